"""Reductions over axes and the adjoint of the sum, broadcasting."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from megbrain_py.dtypes import Array, DType, Layout, Shape, TensorType, broadcast_shapes
from megbrain_py.errors import require
from megbrain_py.graph import Node, Operator, Var
from megbrain_py.ops.cast import cast
from megbrain_py.ops.movement.reshape import reshape

FLOATS = (DType.float32, DType.float64)
ARITHMETIC = (*FLOATS, DType.int32, DType.int64)


@dataclass(frozen=True)
class Reduction(Operator):
    """Base: over `axes`, which stay as size 1. Reads either layout directly."""

    axes: tuple[int, ...]
    dtypes: ClassVar[tuple[DType, ...]] = ARITHMETIC
    needs_elements: ClassVar[bool] = False

    def infer(self, x: TensorType) -> TensorType:
        require(all(0 <= a < x.rank for a in self.axes), f"axes {self.axes} of rank {x.rank}")
        known = ", ".join(map(str, self.dtypes))
        require(x.dtype in self.dtypes, f"x must be {known}, is {x.dtype}")
        shape = tuple(1 if a in self.axes else n for a, n in enumerate(x.shape))
        nothing = x.count == 0 and math.prod(shape) > 0
        require(not (self.needs_elements and nothing), f"axes {self.axes} of {x.shape} are empty")
        return TensorType(shape, x.dtype)

    def layouts(self, inputs: Sequence[TensorType]) -> tuple[Sequence[Layout], Sequence[Layout]]:
        (x,) = inputs
        if x.layout == "rows":
            return ["rows"], ["rows"]
        _, c, h, w = self.output_types(inputs)[0].shape
        # One channel or one pixel lie alike in both layouts: rows spares a copy later.
        return ["channels_last"], ["rows" if c == 1 or h * w == 1 else "channels_last"]

    def simplify(self, *inputs: Var) -> Sequence[Var] | None:
        (x,) = inputs
        return [x] if all(x.shape[a] == 1 for a in self.axes) else None


class Sum(Reduction, kernel="sum"):
    """Sum over `axes`. Floats are gathered in blocks and then in double precision."""

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        return [broadcast_to(dy[0], node.inputs[0].shape)]

    def reference(self, x: Array) -> Array:
        return np.asarray(x.sum(axis=self.axes, keepdims=True, dtype=x.dtype))


class Mean(Reduction, kernel="mean"):
    """Mean over `axes`; NaN over no elements."""

    dtypes: ClassVar[tuple[DType, ...]] = FLOATS

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        from megbrain_py.ops.binary import mul  # a room that needs this one

        (x,) = node.inputs
        count = math.prod(x.shape[a] for a in self.axes)
        return [broadcast_to(mul(dy[0], 1 / max(count, 1)), x.shape)]

    def reference(self, x: Array) -> Array:
        count = math.prod(x.shape[a] for a in self.axes)
        if count == 0:
            return np.full([1 if a in self.axes else n for a, n in enumerate(x.shape)], np.nan)
        return np.asarray(x.sum(axis=self.axes, keepdims=True, dtype=x.dtype) / count)


class Prod(Reduction, kernel="prod"):
    """Product over `axes`. The gradient is right with zeros among the factors."""

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        from megbrain_py.ops.binary import div, equal, logical_and, mul
        from megbrain_py.ops.select import where

        (x,) = node.inputs
        if not x.dtype.is_float:
            return [None]
        zero = equal(x, 0)
        others = where(zero, 1, x)
        product: Var = Prod(self.axes)(others)  # without the zeros
        zeros: Var = Sum(self.axes)(cast(zero, x.dtype))
        only = logical_and(zero, equal(zeros, 1))
        partial = where(equal(zeros, 0), div(product, others), where(only, product, 0))
        return [mul(dy[0], partial)]

    def reference(self, x: Array) -> Array:
        return np.asarray(x.prod(axis=self.axes, keepdims=True, dtype=x.dtype))


class Max(Reduction, kernel="max"):
    """Largest over `axes`; NaN wins. Equal largest elements share the gradient evenly."""

    needs_elements: ClassVar[bool] = True

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        return _shared_gradient(node, self.axes, dy[0])

    def reference(self, x: Array) -> Array:
        return (
            np.asarray(x.max(axis=self.axes, keepdims=True)) if x.size else _emptied(x, self.axes)
        )


class Min(Reduction, kernel="min"):
    """Smallest over `axes`; NaN wins. Equal smallest elements share the gradient evenly."""

    needs_elements: ClassVar[bool] = True

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        return _shared_gradient(node, self.axes, dy[0])

    def reference(self, x: Array) -> Array:
        return (
            np.asarray(x.min(axis=self.axes, keepdims=True)) if x.size else _emptied(x, self.axes)
        )


def _emptied(x: Array, axes: tuple[int, ...]) -> Array:
    return np.empty([1 if a in axes else n for a, n in enumerate(x.shape)], x.dtype)


def _shared_gradient(node: Node, axes: tuple[int, ...], dy: Var) -> list[Var | None]:
    """As torch.amax: dy divided by the number of elements that equal the result."""
    from megbrain_py.ops.binary import div, equal, mul

    (x,) = node.inputs
    if not x.dtype.is_float:
        return [None]
    chosen = cast(equal(x, node.outputs[0]), x.dtype)
    return [mul(chosen, div(dy, Sum(axes)(chosen)))]


class AnyTrue(Reduction, kernel="any"):
    """True where one element over `axes` is true."""

    dtypes: ClassVar[tuple[DType, ...]] = (DType.bool,)

    def reference(self, x: Array) -> Array:
        return np.asarray(x.any(axis=self.axes, keepdims=True))


class AllTrue(Reduction, kernel="all"):
    """True where all elements over `axes` are true."""

    dtypes: ClassVar[tuple[DType, ...]] = (DType.bool,)

    def reference(self, x: Array) -> Array:
        return np.asarray(x.all(axis=self.axes, keepdims=True))


@dataclass(frozen=True)
class Position(Operator):
    """Base: where along `axis`, which stays as size 1, the extreme is; the first of equals."""

    axis: int

    def infer(self, x: TensorType) -> TensorType:
        require(0 <= self.axis < x.rank, f"axis {self.axis} of rank {x.rank}")
        known = ", ".join(map(str, ARITHMETIC))
        require(x.dtype in ARITHMETIC, f"x must be {known}, is {x.dtype}")
        require(x.shape[self.axis] > 0, f"axis {self.axis} of {x.shape} is empty")
        shape = tuple(1 if a == self.axis else n for a, n in enumerate(x.shape))
        return TensorType(shape, DType.int64)

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        return [None]


class ArgMax(Position, kernel="argmax"):
    """Position of the largest element; a NaN counts as the largest."""

    def reference(self, x: Array) -> Array:
        return np.asarray(np.expand_dims(np.argmax(x, self.axis), self.axis), np.int64)


class ArgMin(Position, kernel="argmin"):
    """Position of the smallest element; a NaN counts as the smallest."""

    def reference(self, x: Array) -> Array:
        return np.asarray(np.expand_dims(np.argmin(x, self.axis), self.axis), np.int64)


@dataclass(frozen=True)
class BroadcastTo(Operator, kernel="broadcast_to"):
    """x repeated to `shape` by numpy's rule."""

    shape: Shape

    def infer(self, x: TensorType) -> TensorType:
        try:
            fits = broadcast_shapes(x.shape, self.shape) == self.shape
        except ValueError:
            fits = False
        require(fits, f"shape {x.shape} does not broadcast to {self.shape}")
        return TensorType(self.shape, x.dtype)

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        return [sum_to(dy[0], node.inputs[0].shape)]

    def layouts(self, inputs: Sequence[TensorType]) -> tuple[Sequence[Layout], Sequence[Layout]]:
        return [inputs[0].layout], [inputs[0].layout]

    def simplify(self, *inputs: Var) -> Sequence[Var] | None:
        return [inputs[0]] if inputs[0].shape == self.shape else None

    def reference(self, x: Array) -> Array:
        return np.ascontiguousarray(np.broadcast_to(x, self.shape))


def broadcast_to(x: Var, shape: Sequence[int]) -> Var:
    """x repeated to `shape` by numpy's rule. Any element type."""
    target = tuple(int(n) for n in shape)
    if x.shape == target:
        return x
    result: Var = BroadcastTo(target)(x)
    return result


def sum_to(x: Var, shape: Sequence[int]) -> Var:
    """x summed to `shape`, from which it could have been broadcast."""
    target = tuple(shape)
    if x.shape == target:
        return x
    lead = x.rank - len(target)
    axes = tuple(a for a in range(x.rank) if a < lead or target[a - lead] != x.shape[a])
    return reshape(Sum(axes)(x), target)
