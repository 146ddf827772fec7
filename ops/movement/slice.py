"""Slice and its adjoint Place (pad): regular parts of a value; and `x[...]`."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from megbrain_py.dtypes import Array, DType, Layout, Shape, TensorType
from megbrain_py.errors import require
from megbrain_py.graph import Node, Operator, Var
from megbrain_py.ops.movement.reshape import axis_of, graph_error, reshape

Ints = tuple[int, ...]


def _positions(starts: Ints, stops: Ints, steps: Ints) -> tuple[range, ...]:
    return tuple(range(*where) for where in zip(starts, stops, steps, strict=True))


def _check(shape: Shape, starts: Ints, stops: Ints, steps: Ints) -> tuple[range, ...]:
    """Where along each axis of `shape`; every position lies inside."""
    ranks = len(starts) == len(stops) == len(steps) == len(shape)
    require(ranks, f"needs a start, stop and step for each of {len(shape)} axes")
    require(all(steps), "a step is 0")
    positions = _positions(starts, stops, steps)
    for a, (n, at) in enumerate(zip(shape, positions, strict=True)):
        inside = not at or (0 <= at[0] < n and 0 <= at[-1] < n)
        require(inside, f"positions {at} of axis {a}, which has size {n}")
    return positions


class _FollowsLayout(Operator):
    """Reads and gives either layout."""

    def layouts(self, inputs: Sequence[TensorType]) -> tuple[Sequence[Layout], Sequence[Layout]]:
        return [inputs[0].layout], [inputs[0].layout]


@dataclass(frozen=True)
class Slice(_FollowsLayout, kernel="slice"):
    """The elements at range(start, stop, step) of each axis; a step may be negative."""

    starts: Ints
    stops: Ints
    steps: Ints

    def infer(self, x: TensorType) -> TensorType:
        positions = _check(x.shape, self.starts, self.stops, self.steps)
        return TensorType(tuple(len(at) for at in positions), x.dtype)

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        x = node.inputs[0]
        place = Place(x.shape, self.starts, self.stops, self.steps, 0.0)
        return [place(dy[0]) if x.dtype.is_float else None]

    def simplify(self, *inputs: Var) -> Sequence[Var] | None:
        (x,) = inputs
        everything = tuple(range(n) for n in x.shape)
        return [x] if _positions(self.starts, self.stops, self.steps) == everything else None

    def reference(self, x: Array) -> Array:
        index = np.ix_(*_positions(self.starts, self.stops, self.steps))
        return x[index] if x.ndim else x


@dataclass(frozen=True)
class Place(_FollowsLayout, kernel="place"):
    """x at range(start, stop, step) of each axis of a value of `shape`; `value` elsewhere."""

    shape: Shape
    starts: Ints
    stops: Ints
    steps: Ints
    value: float

    def infer(self, x: TensorType) -> TensorType:
        positions = _check(self.shape, self.starts, self.stops, self.steps)
        found = tuple(len(at) for at in positions)
        require(found == x.shape, f"positions of shape {found} for x of shape {x.shape}")
        whole = x.dtype.is_float or float(self.value).is_integer()
        require(whole, f"value {self.value} of {x.dtype} must be a whole number")
        in_range = x.dtype not in (DType.uint8, DType.bool) or 0 <= self.value <= 255
        require(in_range, f"value {self.value} is outside of {x.dtype}")
        return TensorType(self.shape, x.dtype)

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        if not node.inputs[0].dtype.is_float:
            return [None]
        result: Var = Slice(self.starts, self.stops, self.steps)(dy[0])
        return [result]

    def simplify(self, *inputs: Var) -> Sequence[Var] | None:
        everything = tuple(range(n) for n in self.shape)
        same = _positions(self.starts, self.stops, self.steps) == everything
        return [inputs[0]] if same else None

    def reference(self, x: Array) -> Array:
        y = np.full(self.shape, self.value, x.dtype)
        if x.ndim == 0:
            return x
        y[np.ix_(*_positions(self.starts, self.stops, self.steps))] = x
        return y


def slice(
    x: Var, starts: Sequence[int], stops: Sequence[int], steps: Sequence[int] | None = None
) -> Var:
    """x[start:stop:step] of every axis, by Python's rules (negative counts from the end)."""
    given = [1] * x.rank if steps is None else list(steps)
    if not len(starts) == len(stops) == len(given) == x.rank:
        raise graph_error("slice", x, f"needs a start, stop and step for each of {x.rank} axes")
    parts = [builtins.slice(*part) for part in zip(starts, stops, given, strict=True)]
    return _sliced(x, [range(*p.indices(n)) for p, n in zip(parts, x.shape, strict=True)])


def slice_axis(x: Var, axis: int, start: int, stop: int, step: int = 1) -> Var:
    """x[start:stop:step] of one axis, by Python's rules."""
    at = axis_of("slice_axis", x, axis)
    positions = [range(n) for n in x.shape]
    positions[at] = range(*builtins.slice(start, stop, step).indices(x.shape[at]))
    return _sliced(x, positions)


def _sliced(x: Var, positions: Sequence[range]) -> Var:
    if list(positions) == [range(n) for n in x.shape]:
        return x
    starts, stops, steps = zip(*[(p.start, p.stop, p.step) for p in positions], strict=True)
    result: Var = Slice(starts, stops, steps)(x)
    return result


def flip(x: Var, axes: Sequence[int] | int) -> Var:
    """x with the order along these axes turned around. Any element type."""
    listed = [axes] if isinstance(axes, (int, np.integer)) else list(axes)
    chosen = {axis_of("flip", x, a) for a in listed}
    return _sliced(x, [range(n)[::-1] if a in chosen else range(n) for a, n in enumerate(x.shape)])


def pad(x: Var, widths: Sequence[tuple[int, int]], value: float = 0.0) -> Var:
    """x with (before, after) elements of `value` added along each axis. Any element type."""
    if len(widths) != x.rank or any(n < 0 for pair in widths for n in pair):
        raise graph_error(
            "pad", x, f"widths must be {x.rank} pairs of numbers >= 0, are {list(widths)}"
        )
    if not any(n for pair in widths for n in pair):
        return x
    starts = tuple(int(before) for before, _ in widths)
    stops = tuple(s + n for s, n in zip(starts, x.shape, strict=True))
    shape = tuple(e + int(after) for e, (_, after) in zip(stops, widths, strict=True))
    result: Var = Place(shape, starts, stops, (1,) * x.rank, float(value))(x)
    return result


def getitem(x: Var, index: Any) -> Var:
    """x[index]: integers, slices, `...` and None by numpy's rules. Any element type."""
    items = list(index) if isinstance(index, tuple) else [index]
    for item in items:
        allowed = item is None or item is Ellipsis or isinstance(item, (builtins.slice, np.integer))
        if not (allowed or (isinstance(item, int) and not isinstance(item, bool))):
            raise graph_error(
                "getitem", x, f"{type(item).__name__} is no index; use functional.gather or where"
            )
    used = sum(item is not None and item is not Ellipsis for item in items)
    dots = sum(item is Ellipsis for item in items)
    if used > x.rank or dots > 1:
        raise graph_error("getitem", x, f"{used} indices of a value of rank {x.rank}")
    if not dots:
        items.append(Ellipsis)
    at = next(i for i, item in enumerate(items) if item is Ellipsis)
    items[at : at + 1] = [builtins.slice(None)] * (x.rank - used)
    positions: list[range] = []
    shape: list[int] = []
    for item in items:
        if item is None:
            shape.append(1)
            continue
        axis = len(positions)
        n = x.shape[axis]
        if isinstance(item, builtins.slice):
            positions.append(range(*item.indices(n)))
            shape.append(len(positions[-1]))
        else:
            place = axis_index(x, axis, int(item))
            positions.append(range(place, place + 1))
    return reshape(_sliced(x, positions), shape)


def axis_index(x: Var, axis: int, index: int) -> int:
    """An index along an axis counted from the front; GraphError outside of it."""
    n = x.shape[axis]
    if not -n <= index < n:
        raise graph_error("getitem", x, f"index {index} of axis {axis}, which has size {n}")
    return index % n
