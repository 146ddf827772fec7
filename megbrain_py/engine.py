"""The only importer of the compiled module: queries, load, run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from megbrain_py import debug
from megbrain_py.dtypes import Array, TensorType
from megbrain_py.errors import EngineError
from megbrain_py.plan import Instruction, Plan

debug.set_openmp_patience()
from megbrain_py import _engine  # noqa: E402  (after the setting that OpenMP reads when loaded)

_isa = debug.isa()
if _isa is not None:
    try:
        _engine.choose_isa(_isa)
    except _engine.NativeError as error:
        raise EngineError(f"MB_ISA={_isa}: {error}") from None
_threads = debug.num_threads()
if _threads is not None:
    _engine.set_default_num_threads(_threads)


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


class Executable:
    """A loaded plan. One runs at a time on a device; the GIL is free while it runs."""

    def __init__(self, plan: Plan) -> None:
        try:
            self._native = _engine.Executable(plan, [block.array for block in plan.state])
        except _engine.NativeError as error:
            raise EngineError(f"load: {error}") from None

    def run(
        self,
        feeds: Mapping[str, Array],
        fetches: Mapping[str, Array],
        *,
        poison: bool = False,
        profile: bool = False,
    ) -> None:
        """Copy feeds in, run, copy into the arrays of `fetches`. Arrays are C-contiguous.

        `poison` fills memory with NaN before it is written; `profile` times every instruction.
        """
        try:
            self._native.run(dict(feeds), dict(fetches), poison, profile)
        except _engine.NativeError as error:
            raise EngineError(str(error)) from None

    def seconds(self) -> list[float]:
        """Time of each instruction in the last profiled run."""
        return list(self._native.seconds())


def arena_bytes() -> int:
    """Size of the CPU's scratch arena now: the largest plan loaded so far."""
    return int(_engine.arena_bytes())


def num_threads() -> int:
    """Threads that kernels use: MB_NUM_THREADS, or the CPUs this process may run on."""
    return int(_engine.num_threads())


def set_num_threads(count: int) -> None:
    """Threads for the runs that this thread starts from now on."""
    _engine.set_num_threads(count)


def instruction_set() -> str:
    """The kernels' instruction set level in use: base, v3 (AVX2) or v4 (AVX-512)."""
    return str(_engine.isa())


def onednn_version() -> str:
    """Version of the oneDNN in use, for example 3.2.0."""
    return str(_engine.onednn_version())


def kernel_names() -> list[str]:
    """Names of all registered CPU kernels."""
    return list(_engine.kernel_names())
