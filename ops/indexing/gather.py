"""Values picked by index, and added up by index: gather, take_along_axis and their adjoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from megbrain_py.dtypes import Array, DType, TensorType
from megbrain_py.errors import EngineError, require
from megbrain_py.graph import Node, Operator, Var
from megbrain_py.ops.binary import add
from megbrain_py.ops.movement.reshape import axis_of

SUMMED = (DType.float32, DType.float64, DType.int32, DType.int64)


def require_indices(indices: TensorType) -> None:
    """Indices are int32 or int64."""
    known = indices.dtype in (DType.int32, DType.int64)
    require(known, f"indices must be int32 or int64, are {indices.dtype}")


def check_range(indices: Array, size: int) -> None:
    """EngineError for the first index outside of [0, size), as the kernels say it."""
    bad = np.flatnonzero((indices < 0) | (indices >= size))
    if bad.size:
        at = int(bad[0])
        raise EngineError(
            f"index {indices.reshape(-1)[at]} at position {at} is outside of [0, {size})"
        )


@dataclass(frozen=True)
class Gather(Operator, kernel="gather"):
    """x's slices along `axis` at the indices; the indices' axes take the place of `axis`."""

    axis: int

    def infer(self, x: TensorType, indices: TensorType) -> TensorType:
        require(0 <= self.axis < x.rank, f"axis {self.axis} of rank {x.rank}")
        require_indices(indices)
        shape = (*x.shape[: self.axis], *indices.shape, *x.shape[self.axis + 1 :])
        return TensorType(shape, x.dtype)

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        x, indices = node.inputs
        if not x.dtype.is_float:
            return [None, None]
        return [ScatterAdd(x.shape[self.axis], self.axis)(indices, dy[0]), None]

    def reference(self, x: Array, indices: Array) -> Array:
        check_range(indices, x.shape[self.axis])
        return np.asarray(np.take(x, indices, self.axis))


@dataclass(frozen=True)
class ScatterAdd(Operator, kernel="scatter_add"):
    """Zeros with `size` slices along `axis`, to which the updates' slices are added.

    The adjoint of gather. Slices for one place are added in the order of their indices.
    """

    size: int
    axis: int

    def infer(self, indices: TensorType, updates: TensorType) -> TensorType:
        require_indices(indices)
        known = ", ".join(map(str, SUMMED))
        require(updates.dtype in SUMMED, f"updates must be {known}, are {updates.dtype}")
        behind = self.axis + indices.rank
        fits = updates.shape[self.axis : behind] == indices.shape
        require(
            self.axis >= 0 and behind <= updates.rank and fits,
            f"updates of shape {updates.shape} do not hold indices of shape {indices.shape} "
            f"at axis {self.axis}",
        )
        shape = (*updates.shape[: self.axis], self.size, *updates.shape[behind:])
        return TensorType(shape, updates.dtype)

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        indices, updates = node.inputs
        return [None, gather(dy[0], indices, self.axis) if updates.dtype.is_float else None]

    def reference(self, indices: Array, updates: Array) -> Array:
        check_range(indices, self.size)
        before = updates.shape[: self.axis]
        after = updates.shape[self.axis + indices.ndim :]
        listed = updates.reshape(*before, indices.size, *after)
        y = np.zeros((*before, self.size, *after), updates.dtype)
        rows = np.moveaxis(y, self.axis, 0)  # a view
        np.add.at(rows, indices.reshape(-1), np.moveaxis(listed, self.axis, 0))
        return y


@dataclass(frozen=True)
class TakeAlongAxis(Operator, kernel="take_along_axis"):
    """y[.., j, ..] = x[.., indices[.., j, ..], ..] along `axis`; other axes agree."""

    axis: int

    def infer(self, x: TensorType, indices: TensorType) -> TensorType:
        require(0 <= self.axis < x.rank, f"axis {self.axis} of rank {x.rank}")
        require_indices(indices)
        require(
            _agree(x.shape, indices.shape, self.axis),
            f"shapes {x.shape} and {indices.shape} differ outside of axis {self.axis}",
        )
        return TensorType(indices.shape, x.dtype)

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        x, indices = node.inputs
        if not x.dtype.is_float:
            return [None, None]
        return [ScatterAlongAxis(x.shape[self.axis], self.axis)(indices, dy[0]), None]

    def reference(self, x: Array, indices: Array) -> Array:
        check_range(indices, x.shape[self.axis])
        return np.take_along_axis(x, indices.astype(np.int64), self.axis)


@dataclass(frozen=True)
class ScatterAlongAxis(Operator, kernel="scatter_along_axis"):
    """Zeros with `size` elements along `axis`, to which the updates are added at the indices.

    The adjoint of take_along_axis. Updates for one place are added in order.
    """

    size: int
    axis: int

    def infer(self, indices: TensorType, updates: TensorType) -> TensorType:
        require(0 <= self.axis < updates.rank, f"axis {self.axis} of rank {updates.rank}")
        require_indices(indices)
        known = ", ".join(map(str, SUMMED))
        require(updates.dtype in SUMMED, f"updates must be {known}, are {updates.dtype}")
        same = indices.shape == updates.shape
        require(same, f"shapes {indices.shape} and {updates.shape} must be equal")
        shape = (*updates.shape[: self.axis], self.size, *updates.shape[self.axis + 1 :])
        return TensorType(shape, updates.dtype)

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        indices, updates = node.inputs
        if not updates.dtype.is_float:
            return [None, None]
        return [None, take_along_axis(dy[0], indices, self.axis)]

    def reference(self, indices: Array, updates: Array) -> Array:
        check_range(indices, self.size)
        shape = (*updates.shape[: self.axis], self.size, *updates.shape[self.axis + 1 :])
        y = np.zeros(shape, updates.dtype)
        place: list[Array] = list(np.indices(indices.shape))
        place[self.axis] = indices
        np.add.at(y, tuple(place), updates)
        return y


@dataclass(frozen=True)
class OneHot(Operator, kernel="one_hot"):
    """1 at the index, 0 elsewhere, along a new last axis of size `classes`; float32."""

    classes: int

    def infer(self, indices: TensorType) -> TensorType:
        require_indices(indices)
        require(self.classes >= 0, f"classes must not be negative, are {self.classes}")
        return TensorType((*indices.shape, self.classes), DType.float32)

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        return [None]

    def reference(self, indices: Array) -> Array:
        check_range(indices, self.classes)
        return np.asarray(indices[..., None] == np.arange(self.classes), np.float32)


def _agree(a: tuple[int, ...], b: tuple[int, ...], axis: int) -> bool:
    """Equal shapes but for one axis."""
    return len(a) == len(b) and a[:axis] == b[:axis] and a[axis + 1 :] == b[axis + 1 :]


def gather(x: Var, indices: Var, axis: int = 0) -> Var:
    """x's slices along `axis` at the indices (numpy's take). Any element type.

    indices: int32 or int64 of any shape, which takes the place of `axis` in the output's shape.
    A run raises EngineError for an index outside of [0, size).
    """
    result: Var = Gather(axis_of("gather", x, axis))(x, indices)
    return result


def take_along_axis(x: Var, indices: Var, axis: int = -1) -> Var:
    """y[.., j, ..] = x[.., indices[.., j, ..], ..] along `axis`. Any element type.

    indices: int32 or int64, of x's shape but for `axis`. A run raises EngineError for an index
    outside of [0, size).
    """
    result: Var = TakeAlongAxis(axis_of("take_along_axis", x, axis))(x, indices)
    return result


def scatter_add(x: Var, indices: Var, updates: Var, axis: int = 0) -> Var:
    """x with the updates' slices added along `axis` at the indices. float, int32 or int64.

    indices: int32 or int64 of any shape; updates: x's shape with the indices' shape in the place
    of `axis`. Slices for one place are added in the order of their indices, in every run alike.
    A run raises EngineError for an index outside of [0, size).
    """
    at = axis_of("scatter_add", x, axis)
    return add(x, ScatterAdd(x.shape[at], at)(indices, updates))


def embedding(indices: Var, weight: Var) -> Var:
    """Rows of weight [count, width] at the indices (int32 or int64): [*indices.shape, width].

    A run raises EngineError for an index outside of [0, count).
    """
    return gather(weight, indices, 0)


def one_hot(indices: Var, classes: int) -> Var:
    """float32 [*indices.shape, classes]: 1 at the index, 0 elsewhere.

    indices: int32 or int64. A run raises EngineError for an index outside of [0, classes).
    """
    result: Var = OneHot(int(classes))(indices)
    return result
