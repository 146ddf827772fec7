"""`megbrain launch`: a command or a program on many processes of MPI, on one host or several."""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from megbrain_py.errors import DataError, EngineError

_PATIENCE = 0.5  # seconds
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def add_launch(commands: Any) -> None:
    """The arguments of the command."""
    launch = commands.add_parser(
        "launch", help="run a command or a program on many processes (MPI)",
        usage="megbrain launch -n N [--hosts A,B] (train ... | PROGRAM.py ...)",
    )  # fmt: skip
    launch.add_argument("-n", "--ranks", type=int, required=True, metavar="N", help="processes")
    launch.add_argument("--hosts", metavar="A,B", help="where; each needs this Python and the data")
    launch.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND|PROGRAM.py ...")


def launch(arguments: argparse.Namespace) -> int:
    """Start the processes and pass on signals; their exit code, 1 when some rank failed.

    All have ended then.
    """
    if arguments.ranks < 1:
        raise DataError(f"launch: -n expects at least 1, found {arguments.ranks}")
    if not arguments.words:
        raise DataError("launch: expected a command such as train, or a program.py")
    with tempfile.TemporaryDirectory(prefix="megbrain_launch_") as folder:
        code = _run(_command(arguments, folder))
        if code == 1:
            _say_who(Path(folder))
    return code


def _run(command: Sequence[str]) -> int:
    from megbrain_py.distributed import watch

    process: subprocess.Popen[bytes] | None = None
    waiting: list[int] = []  # signals that came before there was a process

    def forward(number: int, _: FrameType | None) -> None:
        if process is None:
            waiting.append(number)
        else:
            process.send_signal(number)

    old = {number: signal.signal(number, forward) for number in _SIGNALS}
    try:
        # A session of its own: a terminal's Ctrl-C reaches us, and them once: from us.
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
        for number in waiting:
            process.send_signal(number)
        code = process.wait()
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
    return code if code in watch.AGREED else 1


def _say_who(reports: Path) -> None:
    """Print what the watchers wrote; the launcher may end a moment before they do."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline and not (reports / "killed").exists():
        time.sleep(0.05)
    if (reports / "killed").exists():
        print((reports / "killed").read_text(), end="", file=sys.stderr)


def _command(arguments: argparse.Namespace, reports: str) -> list[str]:
    """What mpiexec is told: each rank is a watched process, which knows its number."""
    from megbrain_py.distributed import watch

    watched = [sys.executable, "-S", str(Path(watch.__file__).resolve())]
    program = _program(arguments.words)
    command = [_mpiexec(), *(["-hosts", arguments.hosts] if arguments.hosts else [])]
    for rank in range(arguments.ranks):
        command += [*([":"] if rank else []), "-n", "1", *watched, str(rank), reports, *program]
    return command


def _mpiexec() -> str:
    """That of the package mpich, which goes with its library; else the one on the path."""
    from megbrain_py.distributed import start

    own = [path for path in start.files_of("mpich", "mpiexec") if Path(path).name == "mpiexec"]
    found = own[0] if own else shutil.which("mpiexec")
    if found is None:
        raise EngineError(f"launch: no mpiexec was found; {start.GET_MPI}")
    return found


def _program(words: Sequence[str]) -> list[str]:
    """A command of ours, or somebody's program, with this Python."""
    module = "megbrain_py.distributed.program" if words[0].endswith(".py") else "megbrain_py"
    return [sys.executable, "-m", module, *words]
