"""What an instruction costs in time: the one place where memory planning's prices are decided."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from megbrain_py import debug, engine
from megbrain_py.dtypes import TensorType
from megbrain_py.errors import EngineError
from megbrain_py.instruments.roof import Roof, processor
from megbrain_py.node import Operator
from megbrain_py.plan import Instruction

NOMINAL = Roof(flops=1e11, bytes=2e10, threads=1)  # a laptop's core; the same on every machine
_LAUNCH = 2e-6  # seconds that a call takes however small it is
_MOST_FILES = 16  # of machines, engines and numbers of threads; the oldest go first
_MOST_BYTES = 1 << 24  # of one file: 60,000 signatures; a larger one is begun again


def estimate(
    instruction: Instruction,
    inputs: Sequence[TensorType],
    outputs: Sequence[TensorType],
    device: str = "cpu",
) -> float:
    """Seconds that the instruction takes with values of these types.

    Measured here when its like is first asked for, or by MB_COSTS=roofline computed, the same on
    every machine (docs/environment.md).
    """
    if instruction.waits_for is not None:
        return _LAUNCH  # its starter's cost is that of the whole work
    op = instruction.op
    repeatable = op is None or op.repeatable  # it is run here
    if debug.costs() == "roofline" or not repeatable:
        return roofline(instruction, inputs, outputs)
    path = _path(device)
    known = _known(path)
    key = _signature(instruction, inputs, outputs)
    if key not in known:
        known[key] = _measure(instruction, inputs, outputs, device)
        _append(path, key, known[key])
    return known[key]


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


def _measure(
    instruction: Instruction,
    inputs: Sequence[TensorType],
    outputs: Sequence[TensorType],
    device: str,
) -> float:
    op = instruction.op
    contents = None if op is None else op.typical(inputs)
    over = None if op is None else _in_place(op, inputs, outputs)
    try:
        return engine.measured_seconds(
            instruction, inputs, outputs, contents=contents, over=over, device=device
        )
    except EngineError:  # it refuses such values, or there is no memory for a run beside the plan
        return roofline(instruction, inputs, outputs)


def _in_place(
    op: Operator, inputs: Sequence[TensorType], outputs: Sequence[TensorType]
) -> dict[int, int]:
    """Outputs over inputs wherever the operator permits: most plans do so, and save traffic."""
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


def _signature(
    instruction: Instruction, inputs: Sequence[TensorType], outputs: Sequence[TensorType]
) -> str:
    """What decides the time of an instruction."""
    attrs = sorted((name, repr(value)) for name, value in instruction.attrs.items())
    taken, given = (" ".join(map(str, types)) for types in (inputs, outputs))
    build = engine.library_id(instruction.kernel)
    return f"{instruction.kernel}{build} {attrs} {taken} -> {given}"


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
