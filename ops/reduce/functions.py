"""The public reductions; their names shadow Python's own here, so this file holds nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from megbrain_py.dtypes import DType
from megbrain_py.errors import GraphError
from megbrain_py.graph import Var, describe, user_origin
from megbrain_py.ops.cast import cast
from megbrain_py.ops.movement.reshape import reshape
from megbrain_py.ops.reduce.reduce import (
    AllTrue,
    AnyTrue,
    ArgMax,
    ArgMin,
    Max,
    Mean,
    Min,
    Position,
    Prod,
    Reduction,
    Sum,
)

Axes: TypeAlias = "Sequence[int] | int | None"


def sum(x: Var, axes: Axes = None, *, keepdims: bool = False) -> Var:
    """Sum over `axes` (all when None). float, int32, int64; uint8 and bool count as int64.

    Empty axes give 0.
    """
    if x.dtype in (DType.uint8, DType.bool):
        x = cast(x, DType.int64)
    return _reduced(Sum, "sum", x, axes, keepdims)


def mean(x: Var, axes: Axes = None, *, keepdims: bool = False) -> Var:
    """Mean over `axes` (all when None); NaN over no elements. float."""
    return _reduced(Mean, "mean", x, axes, keepdims)


def prod(x: Var, axes: Axes = None, *, keepdims: bool = False) -> Var:
    """Product over `axes` (all when None). float, int32, int64. Empty axes give 1."""
    return _reduced(Prod, "prod", x, axes, keepdims)


def max(x: Var, axes: Axes = None, *, keepdims: bool = False) -> Var:
    """Largest over `axes` (all when None); NaN wins. float, int32, int64; axes not empty.

    Equal largest elements share the gradient evenly, as torch.amax's.
    """
    return _reduced(Max, "max", x, axes, keepdims)


def min(x: Var, axes: Axes = None, *, keepdims: bool = False) -> Var:
    """Smallest over `axes` (all when None); NaN wins. float, int32, int64; axes not empty.

    Equal smallest elements share the gradient evenly, as torch.amin's.
    """
    return _reduced(Min, "min", x, axes, keepdims)


def any(x: Var, axes: Axes = None, *, keepdims: bool = False) -> Var:
    """True where one element over `axes` (all when None) is true. bool."""
    return _reduced(AnyTrue, "any", x, axes, keepdims)


def all(x: Var, axes: Axes = None, *, keepdims: bool = False) -> Var:
    """True where all elements over `axes` (all when None) are true. bool."""
    return _reduced(AllTrue, "all", x, axes, keepdims)


def argmax(x: Var, axis: int | None = None, *, keepdims: bool = False) -> Var:
    """int64 position of the largest element along `axis` (None: of all, in row order).

    The first of equals; a NaN counts as the largest. float, int32, int64.
    """
    return _position(ArgMax, "argmax", x, axis, keepdims)


def argmin(x: Var, axis: int | None = None, *, keepdims: bool = False) -> Var:
    """int64 position of the smallest element along `axis` (None: of all, in row order).

    The first of equals; a NaN counts as the smallest. float, int32, int64.
    """
    return _position(ArgMin, "argmin", x, axis, keepdims)


def _reduced(kind: type[Reduction], name: str, x: Var, axes: Axes, keepdims: bool) -> Var:
    chosen = normal_axes(name, x, axes)
    result: Var = kind(chosen)(x)
    if keepdims:
        return result
    return reshape(result, [n for a, n in enumerate(x.shape) if a not in chosen])


def _position(kind: type[Position], name: str, x: Var, axis: int | None, keepdims: bool) -> Var:
    if axis is None:
        flat: Var = kind(0)(reshape(x, [x.type.count]))
        return reshape(flat, [1] * x.rank if keepdims else [])
    (chosen,) = normal_axes(name, x, axis)
    result: Var = kind(chosen)(x)
    if keepdims:
        return result
    return reshape(result, [n for a, n in enumerate(x.shape) if a != chosen])


def normal_axes(name: str, x: Var, axes: Axes) -> tuple[int, ...]:
    """Axes counted from the front, sorted, once each; GraphError for one that x has not."""
    if axes is None:
        return tuple(range(x.rank))
    listed = (axes,) if isinstance(axes, (int, np.integer)) else tuple(axes)
    for a in listed:
        if not -x.rank <= a < x.rank:
            raise GraphError(
                f"{name}: axis {a} of a value of rank {x.rank}\n"
                f"  {describe(x)}\n  at {user_origin()}"
            )
    return tuple(sorted({a % x.rank for a in listed}))
