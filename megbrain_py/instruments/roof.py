"""The roof of this machine: what arithmetic and memory give at most, measured once and kept."""

from __future__ import annotations

import json
import platform
import time
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from megbrain_py import debug, engine
from megbrain_py.dtypes import DType, TensorType
from megbrain_py.node import Operator
from megbrain_py.parameter import aligned_copy
from megbrain_py.plan import Instruction, Plan, Slot, StateBlock

_COPIED = 1 << 24  # float32 numbers, 64 MiB: more than the caches hold
_ROUNDS = 1 << 20  # of the arithmetic loop: about 10 ms
_REPEATS = 7  # of which the best counts: a roof is what can be reached


@dataclass(frozen=True)
class Roof:
    """float32 operations per second of fused multiply-adds in registers, and bytes per second of a
    copy (read and written ones together), with `threads` threads of the engine."""

    flops: float
    bytes: float
    threads: int

    def seconds(self, flops: int, bytes: int) -> float:
        """The least time that so much arithmetic and traffic take."""
        return max(flops / self.flops, bytes / self.bytes)

    def bound(self, flops: int, bytes: int) -> str:
        """Which of the two is the limit: "compute" or "memory"."""
        return "compute" if flops / self.flops > bytes / self.bytes else "memory"

    def __str__(self) -> str:
        return (
            f"{self.flops / 1e9:.1f} GFLOP/s, {self.bytes / 1e9:.1f} GB/s "
            f"with {self.threads} threads"
        )


@dataclass(frozen=True)
class FmaLoop(Operator, kernel="fma_loop"):
    """Fused multiply-adds in registers: how many each thread made, and their sums."""

    rounds: int
    threads: int

    def infer(self) -> tuple[TensorType, TensorType]:
        counts = TensorType((self.threads,), DType.float64)
        return counts, TensorType((self.threads,), DType.float32)


def roof() -> Roof:
    """This machine's, for the threads in use; from the cache folder if it was measured before."""
    return _known(engine.num_threads())


@lru_cache
def _known(threads: int) -> Roof:
    key = _key(threads)
    known = _read(_path())
    return known[key] if key in known else renew()


def renew() -> Roof:
    """Measure now; the greater of this and what is known is kept: a busy machine shows less."""
    found = measure()
    known = _read(_path())
    key = _key(found.threads)
    if key in known:
        found = Roof(
            max(found.flops, known[key].flops), max(found.bytes, known[key].bytes), found.threads
        )
    known[key] = found
    _write(_path(), known)
    _known.cache_clear()
    return found


def _path() -> Path:
    return debug.cache_folder() / "roof.json"


def _key(threads: int) -> str:
    return f"{processor()}, {engine.instruction_set()}, {threads} threads"


def processor() -> str:
    """The name that the system gives this machine's processor."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if "model name" in line]
    return names[0] if names else platform.machine()


def _read(path: Path) -> dict[str, Roof]:
    try:
        return {key: Roof(**fields) for key, fields in json.loads(path.read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError):  # none yet, or another version's
        return {}


def _write(path: Path, known: dict[str, Roof]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({key: asdict(roof) for key, roof in known.items()}, indent=1))
    except OSError:
        pass  # a folder that cannot be written: measured again next time


def measure() -> Roof:
    """Time the two loops now, about half a second."""
    threads = engine.num_threads()
    counts = np.zeros(threads)
    loop = FmaLoop(_ROUNDS, threads)
    arithmetic = _time(
        Instruction(loop.kernel, (), (0, 1), loop.attrs(), "the arithmetic roof", op=loop),
        [counts, np.zeros(threads, np.float32)],
    )
    copied = [np.ones(_COPIED, np.float32), np.ones(_COPIED, np.float32)]
    traffic = _time(Instruction("copy", (0,), (1,), {}, "the memory roof"), copied)
    return Roof(float(counts.sum()) / arithmetic, copied[0].nbytes * 2 / traffic, threads)


def _time(instruction: Instruction, arrays: list[np.ndarray]) -> float:
    """Best seconds of one instruction on these arrays, written back into them."""
    aligned = [aligned_copy(a) for a in arrays]
    types = [TensorType(a.shape, DType(a.dtype.name)) for a in aligned]
    plan = Plan(
        slots=tuple(Slot(t, "state", n, -1, 1) for n, t in enumerate(types)),
        instructions=(instruction,),
        feeds={},
        fetches={},
        state=tuple(StateBlock("roof", t, a) for t, a in zip(types, aligned, strict=True)),
        scratch_bytes=0,
        lower_bound=0,
    )
    executable = engine.Executable(plan)
    best = float("inf")
    for _ in range(_REPEATS):
        start = time.perf_counter()
        executable.run({}, {})
        best = min(best, time.perf_counter() - start)
    for array, changed in zip(arrays, aligned, strict=True):
        array[...] = changed
    return best
