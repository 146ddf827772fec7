"""`megbrain launch`: a command or a program on many processes of MPI, on one host or several."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO, Any, TextIO

from megbrain_py.errors import DataError, EngineError

_KEPT = 1 << 14  # bytes of output in which the launcher's last words are looked for
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# What MPICH's launcher says of a process that did not end by itself.
_PLACE = re.compile(r"PID (\d+) RUNNING AT (\S+)")
_KILLED = re.compile(r"EXIT STRING: .*\(signal (\d+)\)")


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
    """Start the processes, pass on signals and say which rank was killed; their exit code."""
    if arguments.ranks < 1:
        raise DataError(f"launch: -n expects at least 1, found {arguments.ranks}")
    if not arguments.words:
        raise DataError("launch: expected a command such as train, or a program.py")
    with tempfile.TemporaryDirectory(prefix="megbrain_launch_") as folder:
        file = Path(folder) / "ranks.json"
        return _run([*_mpiexec(arguments), *_program(arguments.words)], file)


def _mpiexec(arguments: argparse.Namespace) -> list[str]:
    """The launcher of the package mpich, else the one on the path, with its arguments."""
    from megbrain_py.distributed import start

    own = [path for path in start.files_of("mpich", "mpiexec") if Path(path).name == "mpiexec"]
    found = own[0] if own else shutil.which("mpiexec")
    if found is None:
        raise EngineError(f"launch: no mpiexec was found; {start.GET_MPI}")
    hosts = ["-hosts", arguments.hosts] if arguments.hosts else []
    return [found, "-n", str(arguments.ranks), *hosts]


def _program(words: Sequence[str]) -> list[str]:
    """A command of ours, or somebody's program, with this Python."""
    module = "megbrain_py.distributed.program" if words[0].endswith(".py") else "megbrain_py"
    return [sys.executable, "-m", module, *words]


def _run(command: Sequence[str], ranks_file: Path) -> int:
    from megbrain_py import debug

    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=debug.child_environment({"MB_RANKS_FILE": str(ranks_file)}),
        start_new_session=True,  # a terminal's Ctrl-C reaches us, and them once: from us
    )
    last = bytearray()
    streams = (process.stdout, sys.stdout), (process.stderr, sys.stderr)
    readers = [threading.Thread(target=_pass_on, args=(*pair, last)) for pair in streams]
    for reader in readers:
        reader.start()
    with _forwarding(process):
        code = process.wait()
    for reader in readers:
        reader.join()
    said = last.decode(errors="replace")
    killed, place = _KILLED.search(said), _PLACE.search(said)
    if killed is None:
        return code if code >= 0 else 128 - code
    who = _rank_at(place[2], int(place[1]), ranks_file) if place is not None else "a rank"
    print(
        f"megbrain launch: {who} was killed by signal {killed[1]}; all ranks have ended. What was "
        "saved is whole: `train --resume RUN` goes on from there",
        file=sys.stderr,
    )
    return 128 + int(killed[1])


def _pass_on(stream: IO[bytes], own: TextIO, last: bytearray) -> None:
    """Copy what comes, as it comes, and keep the last of it."""
    while data := os.read(stream.fileno(), 1 << 16):
        last += data
        del last[:-_KEPT]
        own.buffer.write(data)
        own.flush()


def _rank_at(host: str, process: int, ranks_file: Path) -> str:
    """The rank with this place, as rank 0 wrote them down when all had begun."""
    where = f"process {process} on {host}"
    if ranks_file.is_file():
        places = json.loads(ranks_file.read_text())
        found = [rank for rank, (_, number) in enumerate(places) if number == process]
        if len(found) == 1:
            return f"rank {found[0]} ({where})"
    return f"a rank ({where}), before all had begun,"


@contextmanager
def _forwarding(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Meanwhile SIGINT and SIGTERM go to the processes, which decide what to do."""

    def forward(number: int, _: FrameType | None) -> None:
        process.send_signal(number)

    old = {number: signal.signal(number, forward) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
