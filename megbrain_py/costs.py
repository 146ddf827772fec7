"""What an instruction costs in time: the one place where a cost is decided."""

from __future__ import annotations

from collections.abc import Sequence

from megbrain_py.dtypes import TensorType
from megbrain_py.instruments.roof import Roof
from megbrain_py.plan import Instruction

NOMINAL = Roof(flops=1e11, bytes=2e10, threads=1)  # a laptop's core; the same on every machine
_LAUNCH = 2e-6  # seconds that a call takes however small it is


def estimate(
    instruction: Instruction, inputs: Sequence[TensorType], outputs: Sequence[TensorType]
) -> float:
    """Seconds that the instruction takes with values of these types."""
    return roofline(instruction, inputs, outputs)


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
