"""Transpose: the axes in another order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from megbrain_py.dtypes import Array, Layout, TensorType
from megbrain_py.errors import require
from megbrain_py.graph import Node, Operator, Var
from megbrain_py.ops.movement.reshape import axis_of

_CHANNELS_TO_END = (0, 2, 3, 1)


@dataclass(frozen=True)
class Transpose(Operator, kernel="transpose"):
    """Axis i of the output is axis perm[i] of x.

    A view where no element moves: when only axes of size 1 move, and when the channels of a
    channels_last value go to the end.
    """

    perm: tuple[int, ...]

    def infer(self, x: TensorType) -> TensorType:
        fits = sorted(self.perm) == list(range(x.rank))
        require(fits, f"{self.perm} is no order of the {x.rank} axes of {x.shape}")
        return TensorType(tuple(x.shape[a] for a in self.perm), x.dtype)

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        return [transpose(dy[0], tuple(int(a) for a in np.argsort(self.perm)))]

    def simplify(self, *inputs: Var) -> Sequence[Var] | None:
        (x,) = inputs
        if self.perm == tuple(range(x.rank)):
            return [x]
        if isinstance(x.node.op, Transpose):
            inner = x.node.op.perm
            return [transpose(x.node.inputs[0], tuple(inner[a] for a in self.perm))]
        return None

    def layouts(self, inputs: Sequence[TensorType]) -> tuple[Sequence[Layout], Sequence[Layout]]:
        view = inputs[0].layout == "channels_last" and self.perm == _CHANNELS_TO_END
        return ["channels_last" if view else "rows"], ["rows"]

    def alias(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> int | None:
        (x,) = inputs
        if x.layout == "channels_last":
            return 0
        moved = [a for a in self.perm if x.shape[a] != 1]
        return 0 if moved == sorted(moved) else None

    def reference(self, x: Array) -> Array:
        return np.ascontiguousarray(x.transpose(self.perm)).reshape([x.shape[a] for a in self.perm])


def transpose(x: Var, perm: Sequence[int] | None = None) -> Var:
    """x with its axes in the order `perm` (None: reversed). Any element type."""
    order = range(x.rank)[::-1] if perm is None else perm
    axes = tuple(axis_of("transpose", x, a) for a in order)
    if axes == tuple(range(x.rank)):
        return x
    result: Var = Transpose(axes)(x)
    return result


def swap_axes(x: Var, a: int, b: int) -> Var:
    """x with two axes exchanged. Any element type."""
    a, b = axis_of("swap_axes", x, a), axis_of("swap_axes", x, b)
    order = list(range(x.rank))
    order[a], order[b] = b, a
    return transpose(x, order)
