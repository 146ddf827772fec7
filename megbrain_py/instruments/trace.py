"""Trace: a timeline of instructions and of the phases around them, which Perfetto opens."""

from __future__ import annotations

import atexit
import json
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from megbrain_py import debug
from megbrain_py.instruments.profile import shapes, traffic
from megbrain_py.plan import Plan

MOST_EVENTS = 1_000_000  # about 300 MB of JSON; later ones are counted only
_ENGINE = 1  # the track of instructions; other tracks are threads by their numbers
_IN_FLIGHT = 2  # that of work between its start and the end of its wait


class Trace:
    """Collects events; `write` makes a file in Chrome's trace format.

    https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._events: list[dict[str, Any]] = []
        self._tracks: dict[int, str] = {_ENGINE: "instructions (cpu)", _IN_FLIGHT: "in flight"}
        self._lost = 0

    def add(
        self, name: str, start: float, end: float, args: dict[str, Any], track: int | None = None
    ) -> None:
        """An event between two moments of time.perf_counter(); of this thread unless `track`."""
        if len(self._events) >= MOST_EVENTS:
            self._lost += 1
            return
        if track is None:
            track = threading.get_native_id()
            self._tracks.setdefault(track, threading.current_thread().name)
        self._events.append(
            {
                "name": name,
                "ph": "X",
                "ts": start * 1e6,
                "dur": (end - start) * 1e6,
                "pid": os.getpid(),
                "tid": track,
                "args": args,
            }
        )

    def add_run(self, plan: Plan, times: Sequence[tuple[float, float]]) -> None:
        """The instructions of a run."""
        for step, (start, end) in zip(plan.instructions, times, strict=True):
            seconds = max(end - start, 1e-9)
            args: dict[str, Any] = {"origin": step.origin, "shapes": shapes(plan, step)}
            if flops := plan.flops(step):
                args["GFLOP/s"] = round(flops / seconds / 1e9, 2)
            args["GB/s"] = round(traffic(plan, step) / seconds / 1e9, 2)
            self.add(plan.title(step), start, end, args, _ENGINE)
            if step.waits_for is not None:
                begun = plan.instructions[step.waits_for]
                self.add(begun.kernel, times[step.waits_for][0], end, args, _IN_FLIGHT)

    def write(self) -> None:
        """Make the file; again after more events."""
        pid = os.getpid()
        names = [
            {"name": "thread_name", "ph": "M", "pid": pid, "tid": tid, "args": {"name": name}}
            for tid, name in self._tracks.items()
        ]
        process = {"name": "process_name", "ph": "M", "pid": pid, "args": {"name": "megbrain_py"}}
        document: dict[str, Any] = {"traceEvents": [process, *names, *self._events]}
        if self._lost:
            document["metadata"] = {"events left out": self._lost}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(document))


_current: list[Trace] = []  # the innermost last; all threads record into it
_asked = threading.Lock()
_from_environment: list[Trace | None] = []  # what MB_TRACE asks for, once it was read


def active() -> Trace | None:
    """Where events go now: to a `trace(...)` around, or to MB_TRACE's file, or nowhere."""
    return _current[-1] if _current else _environment()


def _environment() -> Trace | None:
    with _asked:
        if not _from_environment:
            path = debug.trace_file()
            found = None if path is None else Trace(path)
            _from_environment.append(found)
            if found is not None:
                atexit.register(found.write)
        return _from_environment[0]


@contextmanager
def trace(path: str | Path) -> Iterator[Trace]:
    """`with trace("trace.json"): ...` writes what happens inside, in all threads."""
    found = Trace(path)
    _current.append(found)
    try:
        yield found
    finally:
        _current.remove(found)
        found.write()


@contextmanager
def span(name: str, **args: Any) -> Iterator[None]:
    """A phase of this thread, recorded if anything is."""
    to = active()
    if to is None:
        yield
        return
    start = time.perf_counter()
    try:
        yield
    finally:
        to.add(name, start, time.perf_counter(), args)
