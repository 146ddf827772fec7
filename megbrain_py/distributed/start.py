"""How a program becomes many ranks: threads of this process, or a process of MPI's world."""

from __future__ import annotations

import atexit
import copy
import os
import socket
import sys
import threading
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, TypeVar

from megbrain_py import engine, nn, ranks
from megbrain_py.distributed.exchange import all_gather_objects
from megbrain_py.errors import EngineError
from megbrain_py.ranks import World

T = TypeVar("T")

_LIBRARY = "libmpi_abi.so"
GET_MPI = "install one: pip install megbrain_py[mpi]"


def run(function: Callable[[], T], ranks: int, *, threads: int | None = None) -> list[T]:
    """Call `function` once for each rank, in threads of this process; their results by rank.

    Within it `current()` tells the rank, and what is compiled goes to the rank's own logical device
    ("cpu:0", "cpu:1", ...): scratch memory, threads and state of its own, so that the ranks compute
    side by side. Layers draw the same first weights on every rank. threads: of each rank's kernels;
    by default the process's threads are shared out.
    When a rank raises, the others stop at their next collective, and its exception is raised here.
    """
    if ranks < 1:
        raise EngineError(f"run: expected at least 1 rank, found {ranks}")
    each = max(1, engine.num_threads() // ranks) if threads is None else threads
    team = _Team(function, [
        World(rank, ranks, "local", f"cpu:{rank}", one)
        for rank, one in enumerate(engine.make_local(ranks))
    ], each)  # fmt: skip
    members = [
        threading.Thread(target=team.work, args=(world,), name=f"rank {world.rank}")
        for world in team.worlds
    ]
    for member in members:
        member.start()
    try:
        for member in members:
            member.join()
    except BaseException as error:  # an interrupt: the ranks must not be left behind
        team.stop(team.worlds[0], error)
        raise
    if team.error is not None:
        raise team.error
    return [team.results[rank] for rank in range(ranks)]


class _Team:
    """The ranks of one `run`: what they return, and the first exception."""

    def __init__(self, function: Callable[[], Any], worlds: list[World], threads: int) -> None:
        self.function = function
        self.worlds = worlds
        self.threads = threads
        self.results: dict[int, Any] = {}
        self.error: BaseException | None = None
        self._lock = threading.Lock()
        self._draws = [copy.deepcopy(nn.init.generator()) for _ in worlds]

    def work(self, world: World) -> None:
        engine.set_num_threads(self.threads)
        try:
            with ranks.entered(world), nn.init.drawing_from(self._draws[world.rank]):
                self.results[world.rank] = self.function()
        except BaseException as error:  # noqa: BLE001  (raised again by `run`)
            self.stop(world, error)

    def stop(self, world: World, error: BaseException) -> None:
        """Let the other ranks end at their next collective; the first error is kept."""
        with self._lock:
            if self.error is None:
                self.error = error
                said = f"{type(error).__name__}: {error}"
                world.communicator.abort(f"rank {world.rank} stopped: {said}")


def abort(reason: str) -> None:
    """Tell the other ranks that this one comes no more; they stop at their next collective.

    With MPI this process and the others end at once, with an exit code that is not 0: say why, and
    save what shall be saved, before. Does nothing where there is one rank.
    """
    communicator = ranks.current().communicator
    if communicator is not None:
        communicator.abort(f"rank {ranks.current().rank} stopped: {reason}")


def init(backend: str = "mpi") -> World:
    """Join the processes that `mpiexec -n N python program.py` started; again: does nothing.

    From now on `current()` is this process's place, for all of its threads; where processes share a
    host's processors, each takes its part of them unless MB_NUM_THREADS says how many. Raises
    EngineError when there is no MPI library with the standard ABI (MPI 5: MPICH 5, Intel MPI, Open
    MPI 6), and for "nccl", which needs CUDA devices and does not exist yet.
    """
    if backend == "nccl":
        raise EngineError(
            "init: nccl needs CUDA devices; kernels for them do not exist yet (docs/devices.md). "
            "On CPUs use mpi"
        )
    if backend != "mpi":
        raise EngineError(f"init: unknown backend {backend}; known: mpi")
    world = ranks.current()
    if world.backend != "alone":
        return world
    communicator = _open_mpi()
    world = World(communicator.rank, communicator.size, "mpi", "cpu", communicator)
    ranks.set_process_world(world)
    atexit.register(engine.finish_mpi)
    _abort_on_exceptions(communicator)
    processors = socket.gethostname(), sorted(os.sched_getaffinity(0))
    engine.share_processors(all_gather_objects(processors).count(processors))
    return world


def _abort_on_exceptions(communicator: engine.Communicator) -> None:
    """A rank that dies of an exception ends the others: they would wait for it."""
    show = sys.excepthook

    def show_and_abort(*error: Any) -> None:
        show(*error)
        sys.stdout.flush()
        sys.stderr.flush()
        communicator.abort(str(error[1]))

    sys.excepthook = show_and_abort


def _open_mpi() -> engine.Communicator:
    """The first library that can be opened: that of the package mpich, then the loader's."""
    reasons = []
    own = files_of("mpich", _LIBRARY)
    for library in [*own, _LIBRARY, f"{_LIBRARY}.1", f"{_LIBRARY}.0"]:
        try:
            return engine.make_mpi(library)
        except EngineError as error:
            reasons.append(str(error))
    raise EngineError(f"init: no MPI library was found; {GET_MPI}\n  " + "\n  ".join(reasons))


def files_of(package: str, beginning: str) -> list[str]:
    """Files of an installed package whose names begin so."""
    try:
        files = distribution(package).files or []
    except PackageNotFoundError:
        return []
    found = [Path(str(f.locate())).resolve() for f in files if f.name.startswith(beginning)]
    return sorted({str(path) for path in found})
