"""stop_gradient: the value as it is, through which no gradient flows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from megbrain_py.dtypes import Array, Layout, TensorType
from megbrain_py.graph import Node, Operator, Var


@dataclass(frozen=True)
class StopGradient(Operator, kernel="stop_gradient"):
    """x. Costs nothing: the output is a view, in whatever layout x has."""

    def infer(self, x: TensorType) -> TensorType:
        return x

    def layouts(self, inputs: Sequence[TensorType]) -> tuple[Sequence[Layout], Sequence[Layout]]:
        return [inputs[0].layout], [inputs[0].layout]

    def alias(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> int | None:
        return 0

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        return [None]

    def reference(self, x: Array) -> Array:
        return x


def stop_gradient(x: Var) -> Var:
    """x as it is; gradients taken through the result are zero (targets, proposals)."""
    result: Var = StopGradient()(x)
    return result
