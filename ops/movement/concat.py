"""Concat, stack and split: values side by side, and apart again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from megbrain_py.dtypes import Array, Layout, TensorType
from megbrain_py.errors import GraphError, require
from megbrain_py.graph import Node, Operator, Var, user_origin
from megbrain_py.ops.movement.reshape import axis_of, expand_dims, graph_error
from megbrain_py.ops.movement.slice import slice_axis


@dataclass(frozen=True)
class Concat(Operator, kernel="concat"):
    """Values side by side along `axis`; they agree in every other axis."""

    axis: int

    def infer(self, *inputs: TensorType) -> TensorType:
        first = inputs[0]
        require(0 <= self.axis < first.rank, f"axis {self.axis} of rank {first.rank}")
        total = 0
        for t in inputs:
            require(t.dtype == first.dtype, f"element types differ: {first.dtype}, {t.dtype}")
            same = t.rank == first.rank and all(
                n == m or a == self.axis
                for a, (n, m) in enumerate(zip(t.shape, first.shape, strict=True))
            )
            require(same, f"shapes {first.shape} and {t.shape} differ outside of axis {self.axis}")
            total += t.shape[self.axis]
        shape = (*first.shape[: self.axis], total, *first.shape[self.axis + 1 :])
        return TensorType(shape, first.dtype)

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        sizes = [v.shape[self.axis] for v in node.inputs]
        return list(split(dy[0], sizes, self.axis))

    def simplify(self, *inputs: Var) -> Sequence[Var] | None:
        return [inputs[0]] if len(inputs) == 1 else None

    def layouts(self, inputs: Sequence[TensorType]) -> tuple[Sequence[Layout], Sequence[Layout]]:
        last = sum(t.count for t in inputs if t.layout == "channels_last")
        rows = sum(t.count for t in inputs if t.layout == "rows")
        layout: Layout = "channels_last" if last > rows else "rows"  # fewer elements to copy
        return [layout] * len(inputs), [layout]

    def reference(self, *inputs: Array) -> Array:
        return np.concatenate(inputs, self.axis)


def concat(xs: Sequence[Var], axis: int = 0) -> Var:
    """Values side by side along `axis`, where alone their shapes may differ. Any element type."""
    if not xs:
        raise GraphError(f"concat: needs at least one value\n  at {user_origin()}")
    if len(xs) == 1:
        return xs[0]
    result: Var = Concat(axis_of("concat", xs[0], axis))(*xs)
    return result


def stack(xs: Sequence[Var], axis: int = 0) -> Var:
    """Values of one shape along a new axis, at place `axis` of the result. Any element type."""
    if not xs:
        raise GraphError(f"stack: needs at least one value\n  at {user_origin()}")
    at = axis_of("stack", xs[0], axis, xs[0].rank + 1)
    return concat([expand_dims(x, at) for x in xs], at)


def split(x: Var, sizes: Sequence[int], axis: int = 0) -> tuple[Var, ...]:
    """Pieces of these sizes along `axis`; the sizes add up to x's. Any element type."""
    at = axis_of("split", x, axis)
    if min(sizes, default=0) < 0 or sum(sizes) != x.shape[at]:
        raise graph_error("split", x, f"sizes {list(sizes)} of an axis of size {x.shape[at]}")
    ends = np.cumsum([0, *sizes]).tolist()
    return tuple(slice_axis(x, at, ends[i], ends[i + 1]) for i in range(len(sizes)))
