"""Values as they are: given a name, or printed on their way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from megbrain_py.dtypes import Array, DType, Layout, TensorType
from megbrain_py.errors import require
from megbrain_py.graph import Node, Operator, Var


@dataclass(frozen=True)
class Named(Operator, kernel="name"):
    """x under a name by which compile() finds it. A view; passes drop it."""

    label: str

    def infer(self, x: TensorType) -> TensorType:
        require(bool(self.label), "the name must not be empty")
        return x

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        return [dy[0]]

    def simplify(self, *inputs: Var) -> Sequence[Var] | None:
        return [inputs[0]]

    def layouts(self, inputs: Sequence[TensorType]) -> tuple[Sequence[Layout], Sequence[Layout]]:
        return [inputs[0].layout], [inputs[0].layout]

    def alias(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> int | None:
        return 0

    def reference(self, x: Array) -> Array:
        return x


@dataclass(frozen=True)
class PrintValue(Operator, kernel="print_value"):
    """x as it is; a run prints it. Never merged with another, gone only when x goes nowhere."""

    message: str
    pure: ClassVar[bool] = False
    elementwise: ClassVar[bool] = True

    def infer(self, x: TensorType) -> TensorType:
        require(x.dtype != DType.float64, "float64 exists only in references")
        return x

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        return [dy[0]]

    def reference(self, x: Array) -> Array:
        return x


def name(x: Var, label: str) -> Var:
    """x under a name: `compile([..., label])` fetches it from within the graph. Costs nothing."""
    result: Var = Named(label)(x)
    return result


def identity(x: Var) -> Var:
    """x."""
    return x


def print_value(x: Var, message: str = "") -> Var:
    """x; each run that computes the result prints type, mean, least, largest and first elements.

    Use the result in the place of x: what no output needs is not computed and not printed.
    """
    result: Var = PrintValue(message)(x)
    return result
