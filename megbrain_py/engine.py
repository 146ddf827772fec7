"""The only importer of the compiled module: queries, load, run."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from megbrain_py import debug, ranks
from megbrain_py.dtypes import Array, TensorType
from megbrain_py.errors import EngineError
from megbrain_py.plan import Instruction, Plan
from megbrain_py.plan_check import check_plan

debug.set_openmp_patience()
from megbrain_py import _engine  # noqa: E402  (after the setting that OpenMP reads when loaded)

_isa = debug.isa()
if _isa is not None:
    try:
        _engine.choose_isa(_isa)
    except _engine.NativeError as error:
        raise EngineError(f"MB_ISA={_isa}: {error}") from None
_engine.set_collective_limit(debug.collective_timeout())
_threads = debug.num_threads()
if _threads is not None:
    _engine.set_default_num_threads(_threads)


class Communicator(Protocol):
    """How one rank reaches the others outside of a graph. NativeError is `CommunicatorError`."""

    @property
    def rank(self) -> int: ...
    @property
    def size(self) -> int: ...
    def exchange(self, bytes: bytes) -> list[bytes]: ...
    def abort(self, reason: str) -> None: ...


CommunicatorError = _engine.NativeError


def make_local(size: int) -> list[Communicator]:
    """A communicator for each of `size` ranks that are threads of this process."""
    return list(_engine.make_local(size))


def make_mpi(library: str) -> Communicator:
    """All processes of one mpiexec, through this libmpi_abi.so; EngineError when it is none."""
    try:
        return _engine.make_mpi(library)
    except _engine.NativeError as error:
        raise EngineError(str(error)) from None


def finish_mpi() -> None:
    """Before the process ends: leave MPI, or end its other processes after an error."""
    _engine.finish_mpi()


def open_device(device: str) -> None:
    """Open "cpu" or "cuda:0"; EngineError saying what is missing."""
    try:
        _engine.open_device(device)
    except _engine.NativeError as error:
        raise EngineError(str(error)) from None


def workspace_bytes(
    instruction: Instruction,
    inputs: Sequence[TensorType],
    outputs: Sequence[TensorType],
    device: str = "cpu",
) -> int:
    """Bytes of workspace that the instruction's kernel asks for with these types."""
    try:
        return int(_engine.query(instruction, list(inputs), list(outputs), device))
    except _engine.NativeError as error:
        raise EngineError(str(error)) from None


def measured_seconds(
    instruction: Instruction,
    inputs: Sequence[TensorType],
    outputs: Sequence[TensorType],
    *,
    contents: Sequence[Array | None] | None = None,
    over: Mapping[int, int] | None = None,
    cold: bool = True,
    device: str = "cpu",
) -> float:
    """Median seconds of a few runs of the instruction's kernel, on memory that is given back.

    contents: for each input its elements in the order of memory, or None for random numbers in
        [-1, 1), zeros where they are no floats.
    over: outputs that are written over an input, and which.
    cold: no value is in the caches; else they are as the run before left them.
    EngineError as the kernel raises it.
    """
    given = [None] * len(inputs) if contents is None else list(contents)
    places = [(over or {}).get(o, -1) for o in range(len(outputs))]
    try:
        return float(
            _engine.measure(instruction, list(inputs), list(outputs), given, places, cold, device)
        )
    except _engine.NativeError as error:
        raise EngineError(str(error)) from None


class Observer(Protocol):
    """Looks at a run from outside: called with the index of each instruction."""

    def before(self, index: int, /) -> None: ...

    def after(self, index: int, /) -> None: ...


class Executable:
    """A loaded plan. One runs at a time on a device; the GIL is free while it runs.

    EngineError for a plan that must not run (plan_check.py), wherever it comes from.
    """

    def __init__(self, plan: Plan) -> None:
        try:
            check_plan(plan)
            state = [block.array for block in plan.state]
            self._native = _engine.Executable(plan, state, ranks.current().communicator)
        except (EngineError, _engine.NativeError) as error:
            raise EngineError(f"load: {error}") from None

    def run(
        self,
        feeds: Mapping[str, Array],
        fetches: Mapping[str, Array],
        *,
        poison: bool = False,
        profile: bool = False,
        observer: Observer | None = None,
    ) -> None:
        """Copy feeds in, run, copy into the arrays of `fetches`. Arrays are C-contiguous.

        `poison` fills memory with NaN before it is written; `profile` times every instruction;
        `observer` is called before and after each instruction and must not run another plan.
        """
        try:
            self._native.run(dict(feeds), dict(fetches), poison, profile, observer)
        except _engine.NativeError as error:
            raise EngineError(str(error)) from None

    def times(self) -> list[tuple[float, float]]:
        """Start and end of each instruction in the last profiled run, as time.perf_counter()."""
        return list(self._native.times())

    def memory(self, slot: int) -> Array:
        """The elements of a slot in the order of memory, for an observer: a view, not a copy."""
        return self._native.memory(slot)


def arena_bytes() -> int:
    """Size of this rank's scratch arena now: the largest plan loaded so far."""
    return int(_engine.arena_bytes(ranks.current().device))


def num_threads() -> int:
    """Threads that kernels use: MB_NUM_THREADS, or the CPUs this process may run on."""
    return int(_engine.num_threads())


def set_num_threads(count: int) -> None:
    """Threads for the runs that this thread starts from now on."""
    _engine.set_num_threads(count)


def share_processors(parts: int) -> None:
    """This process is one of `parts` that use the same processors: its threads become fewer.

    MB_NUM_THREADS stands above this.
    """
    if debug.num_threads() is None:
        each = max(1, num_threads() // parts)
        _engine.set_default_num_threads(each)
        _engine.set_num_threads(each)


def instruction_set() -> str:
    """The kernels' instruction set level in use: base, v3 (AVX2) or v4 (AVX-512)."""
    return str(_engine.isa())


def onednn_version() -> str:
    """Version of the oneDNN in use, for example 3.2.0."""
    return str(_engine.onednn_version())


def build_id() -> str:
    """Changes when the engine or its oneDNN does: what was measured of another one is void."""
    return f"{onednn_version()} {_file_id(Path(_engine.__file__))}"


def library_id(kernel: str) -> str:
    """As build_id, of the library that the kernel comes from; empty for the engine's own."""
    return _libraries.get(kernel, "")


_libraries: dict[str, str] = {}  # by kernel


def _file_id(path: Path) -> str:
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns}"


def kernel_names() -> list[str]:
    """Names of all registered CPU kernels."""
    return list(_engine.kernel_names())


def open_library(path: Path) -> list[str]:
    """Add the kernels of a shared object to the engine's; their names. Again: does nothing.

    Raises EngineError when it cannot be opened, is no library of kernels, was built for another
    engine, or has a kernel whose name exists.
    """
    try:
        names = sorted(_engine.open_library(str(path.resolve())))
        _libraries.update((name, _file_id(path)) for name in names)
        return names
    except _engine.WrongStamp as error:
        raise WrongStamp(str(error)) from None
    except _engine.NativeError as error:
        raise EngineError(str(error)) from None


class WrongStamp(EngineError):
    """A library of kernels was built for another engine."""


@dataclass(frozen=True)
class BuildRecord:
    """How the engine was built, for libraries that shall fit it.

    flags: of every kernel file. levels: more for each instruction set. headers: digest of mb/*.h.
    """

    compiler: str
    flags: tuple[str, ...]
    levels: Mapping[str, tuple[str, ...]]
    headers: str


def build_record() -> BuildRecord:
    """How this engine was built."""
    compiler, flags, levels, headers = _engine.build_record()
    split = {level: tuple(shlex.split(more)) for level, more in levels.items()}
    return BuildRecord(compiler, tuple(shlex.split(flags)), split, headers)
