"""What an instruction costs in time: the one place where memory planning's prices are decided."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from megbrain_py import debug, engine
from megbrain_py.dtypes import Array, TensorType
from megbrain_py.errors import EngineError
from megbrain_py.instruments.roof import Roof, processor
from megbrain_py.node import Operator
from megbrain_py.plan import Instruction, Plan, Slot
from megbrain_py.planning.sizes import parse_size

NOMINAL = Roof(flops=1e11, bytes=2e10, threads=1)  # a laptop's core; the same on every machine
_LAUNCH = 2e-6  # seconds that a call takes however small it is
_LEAST_WARM = 0.05  # a smaller share is none: what is cold is not measured again
_USUAL_CACHE = 8 << 20  # bytes, where the system does not say
_PAGE = 1 << 16  # bytes whose last touch is remembered
_MOST_FILES = 16  # of machines, engines and numbers of threads; the oldest go first
_MOST_BYTES = 1 << 24  # of one file: 60,000 signatures; a larger one is begun again


def estimate(
    instruction: Instruction,
    inputs: Sequence[TensorType],
    outputs: Sequence[TensorType],
    device: str = "cpu",
    *,
    over: Mapping[int, int] | None = None,
    warm: float = 0.0,
) -> float:
    """Seconds that the instruction takes with values of these types.

    over: outputs in the memory of an input, and which; by default wherever the operator permits.
    warm: the share of its bytes that the caches hold.

    Measured here when its like is first asked for, or by MB_COSTS=roofline computed, the same on
    every machine (docs/environment.md).
    """
    if instruction.waits_for is not None:
        return _LAUNCH  # its starter's cost is that of the whole work
    op = instruction.op
    repeatable = op is None or op.repeatable  # it is run here
    if debug.costs() == "roofline" or not repeatable:
        return roofline(instruction, inputs, outputs)
    if over is None:
        over = {} if op is None else _in_place(op, inputs, outputs)
    call = _Call(instruction, inputs, outputs, over, device)
    cold = _known_or_measured(call, cold=True)
    if warm < _LEAST_WARM or call.bytes > cache_bytes():
        return cold
    return cold + warm * (_known_or_measured(call, cold=False) - cold)


def predict(plan: Plan, device: str = "cpu") -> float:
    """Seconds of a run of the plan.

    The caches hold what was touched a short time ago: the last `cache_bytes()` of all that
    instructions read and wrote.
    """
    clock, cache = 0, cache_bytes()  # the clock counts bytes
    scratch = np.full(plan.scratch_bytes // _PAGE + 2, -cache - 1)  # when each page was touched
    state = np.full(len(plan.state), -cache - 1)
    total = 0.0
    for step in plan.instructions:
        used = [plan.slots[s] for s in (*step.inputs, *step.outputs)]
        if step.workspace is not None:
            used.append(plan.slots[step.workspace])
        touched = [_place(slot, scratch, state) for slot in used]
        shares = [np.mean(clock - place <= cache) for place in touched]
        sizes = [max(slot.type.nbytes, 1) for slot in used]
        inputs, outputs = ([plan.slots[s] for s in own] for own in (step.inputs, step.outputs))
        total += estimate(
            step, [s.type for s in inputs], [s.type for s in outputs], device,
            over=_over(inputs, outputs), warm=float(np.average(shares, weights=sizes))
            if used else 0.0,
        )  # fmt: skip
        clock += sum(sizes)
        for place in touched:
            place[:] = clock
    return total


def _place(slot: Slot, scratch: Array, state: Array) -> Array:
    if slot.arena == "state":
        return state[slot.offset : slot.offset + 1]
    end = slot.offset + max(slot.type.nbytes, 1)
    return scratch[slot.offset // _PAGE : -(-end // _PAGE)]


def _over(inputs: Sequence[Slot], outputs: Sequence[Slot]) -> dict[int, int]:
    """Outputs that lie where an input lies."""
    at = {(slot.arena, slot.offset): i for i, slot in enumerate(inputs)}
    found = {o: at.get((slot.arena, slot.offset)) for o, slot in enumerate(outputs)}
    return {
        o: i
        for o, i in found.items()
        if i is not None and inputs[i].type.nbytes == outputs[o].type.nbytes
    }


@lru_cache
def cache_bytes() -> int:
    """Of the largest cache of this machine."""
    sizes = [_USUAL_CACHE]
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        try:
            sizes.append(parse_size(path.read_text().strip().removesuffix("K") + "KiB"))
        except (OSError, ValueError):
            continue  # not what Linux writes there
    return max(sizes)


def roofline(
    instruction: Instruction,
    inputs: Sequence[TensorType],
    outputs: Sequence[TensorType],
    roof: Roof = NOMINAL,
) -> float:
    """Seconds that arithmetic or traffic take at least under this roof, and a launch's."""
    flops = 0 if instruction.op is None else int(instruction.op.flops(inputs, outputs))
    traffic = sum(t.nbytes for t in (*inputs, *outputs))
    return roof.seconds(flops, traffic) + _LAUNCH


# --- measuring ---


@dataclass(frozen=True)
class _Call:
    """What is measured."""

    instruction: Instruction
    inputs: Sequence[TensorType]
    outputs: Sequence[TensorType]
    over: Mapping[int, int]
    device: str

    @property
    def bytes(self) -> int:
        return sum(t.nbytes for t in (*self.inputs, *self.outputs))


def _known_or_measured(call: _Call, *, cold: bool) -> float:
    path = _path(call.device)
    known = _known(path)
    key = _signature(call, cold=cold)
    if key not in known:
        known[key] = _measure(call, cold=cold)
        _append(path, key, known[key])
    return known[key]


def _measure(call: _Call, *, cold: bool) -> float:
    op = call.instruction.op
    contents = None if op is None else op.typical(call.inputs)
    try:
        return engine.measured_seconds(
            call.instruction, call.inputs, call.outputs,
            contents=contents, over=call.over, cold=cold, device=call.device,
        )  # fmt: skip
    except EngineError:  # it refuses such values, or there is no memory for a run beside the plan
        return roofline(call.instruction, call.inputs, call.outputs)


def _in_place(
    op: Operator, inputs: Sequence[TensorType], outputs: Sequence[TensorType]
) -> dict[int, int]:
    """Outputs over inputs wherever the operator permits."""
    over: dict[int, int] = {}
    for o, i in op.may_overwrite(inputs, outputs):
        if o not in over and i not in over.values() and inputs[i].nbytes == outputs[o].nbytes:
            over[o] = i
    return over


# --- what was measured before ---


def _path(device: str) -> Path:
    """A file for each machine, engine and number of threads."""
    import hashlib  # 10 ms, which programs that measure nothing are spared

    threads = f"{engine.num_threads()} threads"
    machine = f"{processor()}, {engine.instruction_set()}, {threads}, {device}, {engine.build_id()}"
    name = hashlib.sha256(machine.encode()).hexdigest()[:16]
    return debug.cache_folder() / "costs" / f"{name}.txt"


def _signature(call: _Call, *, cold: bool) -> str:
    """What decides the time of an instruction."""
    instruction = call.instruction
    attrs = sorted((name, repr(value)) for name, value in instruction.attrs.items())
    taken, given = (" ".join(map(str, types)) for types in (call.inputs, call.outputs))
    build = engine.library_id(instruction.kernel)
    caches = "cold" if cold else "warm"
    over = "".join(f" {o} over {i}" for o, i in sorted(call.over.items()))
    return f"{instruction.kernel}{build} {attrs} {taken} -> {given}{over} {caches}"


@lru_cache
def _known(path: Path) -> dict[str, float]:
    """Seconds by signature, from the cache folder; those measured from now on are added to it."""
    _remove_old_files(path)
    return dict(_read(path))


def _read(path: Path) -> Iterator[tuple[str, float]]:
    """Lines that are whole. A cut or damaged one is skipped, and measured again."""
    try:
        text = path.read_text(errors="replace")
    except OSError:  # none yet
        return
    for line in text.splitlines():
        check, _, record = line.partition(" ")
        if check == _check(record):
            key, seconds = json.loads(record)
            yield key, seconds


def _append(path: Path, key: str, seconds: float) -> None:
    """One line by one write, so that processes which measure at the same time do no harm."""
    record = json.dumps([key, seconds])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            if os.fstat(file).st_size > _MOST_BYTES:
                os.truncate(file, 0)
            os.write(file, f"\n{_check(record)} {record}".encode())  # first: after a cut line
        finally:
            os.close(file)
    except OSError:
        pass  # a folder that cannot be written, a full disk: measured again next time


def _check(record: str) -> str:
    return f"{zlib.crc32(record.encode()):08x}"


def _remove_old_files(kept: Path) -> None:
    """All but the newest files of other machines, engines and numbers of threads."""
    try:
        others = [path for path in kept.parent.glob("*.txt") if path != kept]
        others.sort(key=lambda path: path.stat().st_mtime)
        for path in others[: 1 - _MOST_FILES]:
            path.unlink()
    except OSError:
        pass  # another process removes them, or nobody may
