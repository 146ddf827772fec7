"""Matrix products: batched matmul, and the linear layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from megbrain_py.dtypes import Array, Shape, TensorType, broadcast_shapes
from megbrain_py.errors import require
from megbrain_py.graph import Node, Operator, Var
from megbrain_py.ops.movement import reshape
from megbrain_py.ops.reduce import sum as sum_
from megbrain_py.ops.reduce import sum_to


def _require_floats(*types: TensorType) -> None:
    require(
        all(t.dtype.is_float and t.dtype == types[0].dtype for t in types),
        f"all inputs must have one float type, are {', '.join(str(t.dtype) for t in types)}",
    )


@dataclass(frozen=True)
class Matmul(Operator, kernel="matmul"):
    """a @ b on the last two axes, each first transposed if asked; batch axes broadcast."""

    transpose_a: bool = False
    transpose_b: bool = False

    def infer(self, a: TensorType, b: TensorType) -> TensorType:
        _require_floats(a, b)
        require(
            a.rank >= 2 and b.rank >= 2, f"a and b must be matrices, have ranks {a.rank}, {b.rank}"
        )
        rows, inner = _matrix(a.shape, self.transpose_a)
        inner_b, columns = _matrix(b.shape, self.transpose_b)
        require(inner == inner_b, f"b expects {inner_b} columns of a, a has {inner}")
        try:
            batch = broadcast_shapes(a.shape[:-2], b.shape[:-2])
        except ValueError:
            require(False, f"batch axes {a.shape[:-2]} and {b.shape[:-2]} do not broadcast")
        return TensorType((*batch, rows, columns), a.dtype)

    def flops(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> int:
        return 2 * outputs[0].count * _matrix(inputs[0].shape, self.transpose_a)[1]

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        a, b = node.inputs
        dz: Var = dy[0]
        ta, tb = self.transpose_a, self.transpose_b
        da = Matmul(tb, True)(b, dz) if ta else Matmul(False, not tb)(dz, b)
        db = Matmul(True, ta)(dz, a) if tb else Matmul(not ta, False)(a, dz)
        return [sum_to(da, a.shape), sum_to(db, b.shape)]

    def reference(self, a: Array, b: Array) -> Array:
        left = a.swapaxes(-1, -2) if self.transpose_a else a
        right = b.swapaxes(-1, -2) if self.transpose_b else b
        return np.asarray(left @ right)


def _matrix(shape: Shape, transposed: bool) -> tuple[int, int]:
    return (shape[-1], shape[-2]) if transposed else (shape[-2], shape[-1])


@dataclass(frozen=True)
class Linear(Operator, kernel="linear"):
    """x [..., in] @ w [out, in] transposed (+ bias [out]) -> [..., out]."""

    def infer(self, x: TensorType, w: TensorType, *bias: TensorType) -> TensorType:
        require(len(bias) <= 1, f"takes x, w and one bias, found {2 + len(bias)} inputs")
        _require_floats(x, w, *bias)
        require(x.rank >= 1, "x must have at least one axis")
        require(w.rank == 2, f"w must be [out, in], has rank {w.rank}")
        require(
            x.shape[-1] == w.shape[1], f"w expects {w.shape[1]} input features, x has {x.shape[-1]}"
        )
        for b in bias:
            require(b.shape == w.shape[:1], f"bias must have shape {w.shape[:1]}, has {b.shape}")
        return TensorType((*x.shape[:-1], w.shape[0]), x.dtype)

    def flops(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> int:
        return 2 * outputs[0].count * inputs[1].shape[1]

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        x, w = node.inputs[:2]
        rows = x.type.count // x.shape[-1] if x.shape[-1] else _count(x.shape[:-1])
        flat_x, flat_dy = reshape(x, (rows, x.shape[-1])), reshape(dy[0], (rows, w.shape[0]))
        dx = reshape(Matmul()(flat_dy, w), x.shape)
        dw = Matmul(True, False)(flat_dy, flat_x)
        return [dx, dw, *(sum_(flat_dy, 0) for _ in node.inputs[2:])]

    def reference(self, x: Array, w: Array, *bias: Array) -> Array:
        y = x @ w.T
        for b in bias:
            y = y + b
        return np.asarray(y)


def _count(shape: Shape) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def matmul(a: Var, b: Var, transpose_a: bool = False, transpose_b: bool = False) -> Var:
    """Matrix product of a [..., m, k] and b [..., k, n]: [..., m, n]; batch axes broadcast.

    transpose_a, transpose_b: the last two axes are swapped first (at no cost). A vector a stands
    for one row and a vector b for one column, and that axis is left out of the result.
    Raises GraphError when the inner sizes differ or the batch axes do not broadcast.
    """
    left = reshape(a, (1, *a.shape)) if a.rank == 1 else a
    right = reshape(b, (*b.shape, 1)) if b.rank == 1 else b
    op = Matmul(transpose_a and a.rank > 1, transpose_b and b.rank > 1)
    result: Var = op(left, right)
    shape = list(result.shape)
    if b.rank == 1:
        del shape[-1]
    if a.rank == 1:
        del shape[-1 if b.rank == 1 else -2]
    return reshape(result, shape)


def linear(x: Var, w: Var, b: Var | None = None) -> Var:
    """x [..., in] times w [out, in] transposed, plus b [out]: [..., out].

    Raises GraphError when the features do not fit.
    """
    result: Var = Linear()(x, w) if b is None else Linear()(x, w, b)
    return result
