"""Values as they are: given a name, printed on their way, or with a wish for their memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from megbrain_py.dtypes import Array, DType, Layout, TensorType
from megbrain_py.errors import GraphError, require
from megbrain_py.graph import Node, Operator, Var, describe, user_origin


class _View(Operator):
    """x as it is, without an instruction."""

    def infer(self, x: TensorType) -> TensorType:
        return x

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        return [dy[0]]

    def layouts(self, inputs: Sequence[TensorType]) -> tuple[Sequence[Layout], Sequence[Layout]]:
        return [inputs[0].layout], [inputs[0].layout]

    def alias(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> int | None:
        return 0

    def reference(self, x: Array) -> Array:
        return x


@dataclass(frozen=True)
class Named(_View, kernel="name"):
    """x under a name by which compile() finds it. Passes drop it."""

    label: str

    def infer(self, x: TensorType) -> TensorType:
        require(bool(self.label), "the name must not be empty")
        return x

    def simplify(self, *inputs: Var) -> Sequence[Var] | None:
        return [inputs[0]]


@dataclass(frozen=True)
class RecomputeHint(_View, kernel="recompute_hint"):
    """x, which is to be made again for its later readers, or kept. The compiler takes it out."""

    keep: bool

    def wish(self) -> str:
        return "keep" if self.keep else "again"


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


def recompute_hint(x: Var, *, keep: bool = False) -> Var:
    """x, with a wish for `compile(memory_budget=...)`: use the result in the place of x.

    The value should be made again for its later readers rather than kept in memory; with `keep`
    it should be kept, and what makes it runs once. Without a budget, or where all fits, nothing is
    made again. Results are bit-equal with and without hints; `plan.memory` says what they cost.
    GraphError for an input, parameter or constant, which nothing makes.
    """
    if isinstance(x, Var) and x.node.op.source:
        raise GraphError(
            f"recompute_hint: expected a value that is computed\n  {describe(x)}\n"
            f"  at {user_origin()}"
        )
    result: Var = RecomputeHint(keep)(x)
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
