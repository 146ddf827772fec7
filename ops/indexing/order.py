"""The largest or smallest elements along the last axis, in order: top_k, sort, argsort."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from megbrain_py.dtypes import Array, DType, TensorType
from megbrain_py.errors import require
from megbrain_py.graph import Node, Operator, Var
from megbrain_py.ops.indexing.gather import ScatterAlongAxis
from megbrain_py.ops.movement.reshape import axis_of
from megbrain_py.ops.movement.transpose import swap_axes


@dataclass(frozen=True)
class TopK(Operator, kernel="top_k"):
    """(values, int64 indices) of the first k along the last axis, in order.

    Equal elements come in the order of their indices; a NaN counts as the largest.
    """

    k: int
    largest: bool

    def infer(self, x: TensorType) -> Sequence[TensorType]:
        require(x.rank > 0, "x must have an axis")
        known = x.dtype in (DType.float32, DType.float64, DType.int32)
        require(known, f"x must be float32 or int32, is {x.dtype}")
        require(0 <= self.k <= x.shape[-1], f"k = {self.k} of an axis of size {x.shape[-1]}")
        shape = (*x.shape[:-1], self.k)
        return TensorType(shape, x.dtype), TensorType(shape, DType.int64)

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        (x,) = node.inputs
        if dy[0] is None or not x.dtype.is_float:
            return [None]
        return [ScatterAlongAxis(x.shape[-1], x.rank - 1)(node.outputs[1], dy[0])]

    def reference(self, x: Array) -> Sequence[Array]:
        ranks = np.unique(x, return_inverse=True)[1].reshape(x.shape)  # NaN sorts last
        order = np.argsort(-ranks if self.largest else ranks, axis=-1, kind="stable")
        indices = order[..., : self.k].astype(np.int64)
        return np.take_along_axis(x, indices, -1), indices


def top_k(x: Var, k: int, *, largest: bool = True) -> tuple[Var, Var]:
    """(values, int64 indices) of the k largest (or smallest) along the last axis, in order.

    Equal elements come in the order of their indices; a NaN counts as the largest. float or int32.
    """
    values, indices = TopK(int(k), bool(largest))(x)
    return values, indices


def sort(x: Var, axis: int = -1, *, descending: bool = False) -> tuple[Var, Var]:
    """(sorted values, their int64 indices in x) along `axis`; stable, NaN as the largest.

    float or int32.
    """
    at = axis_of("sort", x, axis)
    last = x.rank - 1
    moved = swap_axes(x, at, last)
    values, indices = TopK(moved.shape[-1], descending)(moved)
    return swap_axes(values, at, last), swap_axes(indices, at, last)


def argsort(x: Var, axis: int = -1, *, descending: bool = False) -> Var:
    """int64 indices that sort x along `axis`; stable, NaN as the largest. float or int32."""
    return sort(x, axis, descending=descending)[1]
