"""Sums and their adjoint, broadcasting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from megbrain_py.dtypes import Array, Shape, TensorType, broadcast_shapes
from megbrain_py.errors import require
from megbrain_py.graph import Node, Operator, Var
from megbrain_py.ops.movement import reshape


@dataclass(frozen=True)
class Sum(Operator, kernel="sum"):
    """Sum over `axes`, which stay as size 1."""

    axes: tuple[int, ...]

    def infer(self, x: TensorType) -> TensorType:
        require(all(0 <= a < x.rank for a in self.axes), f"axes {self.axes} of rank {x.rank}")
        return TensorType(tuple(1 if a in self.axes else n for a, n in enumerate(x.shape)), x.dtype)

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        return [broadcast_to(dy[0], node.inputs[0].shape)]

    def reference(self, x: Array) -> Array:
        return np.asarray(x.sum(axis=self.axes, keepdims=True, dtype=x.dtype))


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

    def reference(self, x: Array) -> Array:
        return np.ascontiguousarray(np.broadcast_to(x, self.shape))


def broadcast_to(x: Var, shape: Sequence[int]) -> Var:
    """x repeated to `shape` by numpy's rule."""
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


def sum(x: Var, axes: Sequence[int] | int | None = None, *, keepdims: bool = False) -> Var:
    """Sum over `axes` (all when None)."""
    chosen = _normal_axes(x, axes)
    result: Var = Sum(chosen)(x)
    if keepdims:
        return result
    return reshape(result, [n for a, n in enumerate(x.shape) if a not in chosen])


def _normal_axes(x: Var, axes: Sequence[int] | int | None) -> tuple[int, ...]:
    if axes is None:
        return tuple(range(x.rank))
    listed = (axes,) if isinstance(axes, int) else axes
    return tuple(sorted({a % x.rank for a in listed}))
