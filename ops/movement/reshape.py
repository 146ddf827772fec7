"""Reshape: the same elements under another shape, as a view."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from megbrain_py.dtypes import Array, Shape, TensorType
from megbrain_py.errors import require
from megbrain_py.graph import Node, Operator, Var


@dataclass(frozen=True)
class Reshape(Operator, kernel="reshape"):
    """x's elements, in row order, under another shape. Costs nothing: the output is a view."""

    shape: Shape

    def infer(self, x: TensorType) -> TensorType:
        require(
            math.prod(self.shape) == x.count,
            f"{x.count} elements of shape {x.shape} do not fit shape {self.shape}",
        )
        return TensorType(self.shape, x.dtype)

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        return [reshape(dy[0], node.inputs[0].shape)]

    def alias(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> int | None:
        return 0

    def reference(self, x: Array) -> Array:
        return x.reshape(self.shape)


def reshape(x: Var, shape: Sequence[int]) -> Var:
    """x under another shape; one size may be -1 and is then worked out."""
    sizes = [int(n) for n in shape]
    if sizes.count(-1) == 1:
        known = math.prod(n for n in sizes if n != -1)
        sizes[sizes.index(-1)] = x.type.count // known if known else 0
    if tuple(sizes) == x.shape:
        return x
    result: Var = Reshape(tuple(sizes))(x)
    return result
