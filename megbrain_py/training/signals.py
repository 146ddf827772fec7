"""SIGINT and SIGTERM ask a training to stop; they reach the process, its ranks look here."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Asked:
    """The signal that asked the process to stop; 0: none did."""

    number = 0


_listening: Asked | None = None  # signals belong to a process, so this does too


@contextmanager
def listening() -> Iterator[Asked]:
    """Inside, the first signal is noted and a second one raises KeyboardInterrupt.

    Within another `listening` of the process this is the same one. A thread other than the main
    one cannot begin it: what it is given stays 0.
    """
    global _listening  # noqa: PLW0603
    asked = Asked()
    if _listening is not None or threading.current_thread() is not threading.main_thread():
        yield _listening or asked
        return

    def ask(number: int, _: FrameType | None) -> None:
        if asked.number:
            raise KeyboardInterrupt
        asked.number = number

    old = {number: signal.signal(number, ask) for number in _SIGNALS}
    _listening = asked
    try:
        yield asked
    finally:
        _listening = None
        for number, handler in old.items():
            signal.signal(number, handler)
