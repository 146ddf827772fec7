"""Fused: a small program of elementwise operators that runs tile by tile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from megbrain_py.dtypes import Array, DType, TensorType
from megbrain_py.errors import require
from megbrain_py.node import Operator

READS = 3  # operands of a step, as the kernel has them
VALUES = 2  # numbers of a step
DTYPES = frozenset({DType.float32, DType.bool})  # of all values in a program
# Operators that can be a step: the table of steps.h.
KERNELS = frozenset({
    "abs", "add", "clip", "div", "equal", "erf", "exp", "floor", "gelu", "gelu_grad", "greater",
    "greater_equal", "isfinite", "leaky_relu", "leaky_relu_grad", "less", "less_equal", "log",
    "logical_and", "logical_not", "logical_or", "maximum", "minimum", "mul", "neg", "not_equal",
    "pow", "relu", "relu_grad", "round", "rsqrt", "sigmoid", "sigmoid_grad", "sign", "silu",
    "silu_grad", "softplus", "sqrt", "square", "sub", "tanh", "tanh_grad", "where",
})  # fmt: skip


@dataclass(frozen=True)
class Step:
    """An elementwise operator and what it reads: inputs are numbered first, then steps."""

    op: Operator
    reads: tuple[int, ...]


@dataclass(frozen=True)
class Fused(Operator, kernel="fused"):
    """Elementwise steps, one after the other on each tile; the last one's result is the output.

    Every input is read once and no value between the steps reaches memory. The steps are those of
    the operators themselves, so the bits are the same. Passes make it after gradients are taken: it
    has none.
    """

    inputs: int
    steps: tuple[Step, ...]

    elementwise: ClassVar[bool] = True
    max_inputs: ClassVar[int] = 8
    max_steps: ClassVar[int] = 16

    def infer(self, *inputs: TensorType) -> TensorType:
        require(len(inputs) == self.inputs, f"expected {self.inputs} inputs, found {len(inputs)}")
        require(1 <= len(self.steps) <= self.max_steps, f"1 to {self.max_steps} steps")
        require(self.inputs <= self.max_inputs, f"at most {self.max_inputs} inputs")
        types = list(inputs)
        for step in self.steps:
            types += step.op.output_types([types[i] for i in step.reads])
        shape = types[-1].shape
        for t in types[self.inputs :]:
            require(t.shape == shape, f"every step must give {shape}, one gives {t.shape}")
        return types[-1]

    def attrs(self) -> dict[str, Any]:
        reads: list[int] = []
        values: list[float] = []
        for step in self.steps:
            reads += [*step.reads, *[-1] * (READS - len(step.reads))]
            own = step.op.step_values()
            values += [*own, *[0.0] * (VALUES - len(own))]
        names = " ".join(step.op.kernel for step in self.steps)
        return {"names": names, "reads": tuple(reads), "values": tuple(values)}

    def reference(self, *inputs: Array) -> Array:
        values: list[Any] = list(inputs)
        for step in self.steps:
            values.append(step.op.reference(*[values[i] for i in step.reads]))
        result: Array = values[-1]
        return result

    def __str__(self) -> str:
        """fused(t2 = mul(x0, x1); relu(t2))"""

        def shown(value: int) -> str:
            return f"x{value}" if value < self.inputs else f"t{value}"

        lines = [f"{step.op}({', '.join(map(shown, step.reads))})" for step in self.steps]
        named = [f"t{self.inputs + k} = {line}" for k, line in enumerate(lines[:-1])]
        return f"fused({'; '.join([*named, lines[-1]])})"
