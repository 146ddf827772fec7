"""Reshape and its relatives: the same elements under another shape, as a view."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from megbrain_py.dtypes import Array, Shape, TensorType
from megbrain_py.errors import GraphError, require
from megbrain_py.graph import Node, Operator, Var, describe, user_origin


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

    def simplify(self, *inputs: Var) -> Sequence[Var] | None:
        (x,) = inputs
        if x.shape == self.shape:
            return [x]
        if isinstance(x.node.op, Reshape):
            return [reshape(x.node.inputs[0], self.shape)]
        return None

    def alias(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> int | None:
        return 0

    def reference(self, x: Array) -> Array:
        return x.reshape(self.shape)


def graph_error(name: str, x: Var, message: str) -> GraphError:
    """An error of a function that is made of operators, in the shape of docs/errors.md."""
    return GraphError(f"{name}: {message}\n  {describe(x)}\n  at {user_origin()}")


def axis_of(name: str, x: Var, axis: int, rank: int | None = None) -> int:
    """An axis counted from the front; GraphError for one that a value of `rank` has not."""
    rank = x.rank if rank is None else rank
    if not -rank <= axis < rank:
        raise graph_error(name, x, f"axis {axis} of a value of rank {rank}")
    return axis % rank


def reshape(x: Var, shape: Sequence[int]) -> Var:
    """x under another shape; one size may be -1 and is then worked out. Any element type."""
    sizes = [int(n) for n in shape]
    if sizes.count(-1) == 1:
        known = math.prod(n for n in sizes if n != -1)
        sizes[sizes.index(-1)] = x.type.count // known if known else 0
    if tuple(sizes) == x.shape:
        return x
    result: Var = Reshape(tuple(sizes))(x)
    return result


def flatten(x: Var, first: int = 0, last: int = -1) -> Var:
    """x with the axes first .. last, both included, as one. Any element type."""
    if x.rank == 0:
        return reshape(x, [1])
    first, last = axis_of("flatten", x, first), axis_of("flatten", x, last)
    if first > last:
        raise graph_error("flatten", x, f"axis {first} comes after axis {last}")
    merged = math.prod(x.shape[first : last + 1])
    return reshape(x, [*x.shape[:first], merged, *x.shape[last + 1 :]])


def expand_dims(x: Var, axis: int) -> Var:
    """x with a new axis of size 1 at place `axis` of the result. Any element type."""
    at = axis_of("expand_dims", x, axis, x.rank + 1)
    return reshape(x, [*x.shape[:at], 1, *x.shape[at:]])


def squeeze(x: Var, axes: Sequence[int] | int | None = None) -> Var:
    """x without these axes, which have size 1 (None: without all of size 1). Any element type."""
    if axes is None:
        chosen = [a for a, n in enumerate(x.shape) if n == 1]
    else:
        listed = [axes] if isinstance(axes, (int, np.integer)) else list(axes)
        chosen = [axis_of("squeeze", x, a) for a in listed]
    for a in chosen:
        if x.shape[a] != 1:
            raise graph_error("squeeze", x, f"axis {a} has size {x.shape[a]}, not 1")
    return reshape(x, [n for a, n in enumerate(x.shape) if a not in chosen])
