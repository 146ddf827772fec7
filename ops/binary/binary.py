"""Elementwise functions of two operands, with numpy's broadcasting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from megbrain_py.dtypes import Array, DType, TensorType, broadcast_shapes
from megbrain_py.errors import GraphError, require
from megbrain_py.graph import Constant, Node, Operator, Var, VarLike, constant
from megbrain_py.ops.reduce import sum_to
from megbrain_py.ops.reduce.reduce import BroadcastTo

_ARITHMETIC = (DType.float32, DType.float64, DType.int32, DType.int64)


@dataclass(frozen=True)
class Binary(Operator):
    """Base: both operands have one element type; shapes broadcast."""

    elementwise: ClassVar[bool] = True
    dtypes: ClassVar[tuple[DType, ...]] = _ARITHMETIC
    result: ClassVar[DType | None] = None  # element type of the output; None: the operands'
    neutral: ClassVar[float | None] = None  # a second operand that changes nothing
    commutes: ClassVar[bool] = False

    def infer(self, a: TensorType, b: TensorType) -> TensorType:
        require(
            a.dtype == b.dtype, f"operands must have one element type, are {a.dtype}, {b.dtype}"
        )
        known = ", ".join(map(str, self.dtypes))
        require(a.dtype in self.dtypes, f"operands must be {known}, are {a.dtype}")
        try:
            shape = broadcast_shapes(a.shape, b.shape)
        except ValueError:
            require(False, f"shapes {a.shape} and {b.shape} do not broadcast")
        return TensorType(shape, self.result or a.dtype)

    def simplify(self, *inputs: Var) -> Sequence[Var] | None:
        """x + 0, x * 1 and their like are x; what broadcasts anyway need not be broadcast."""
        a, b = inputs
        shape = broadcast_shapes(a.shape, b.shape)
        if self.neutral is not None:
            if a.shape == shape and _is_constant(b, self.neutral):
                return [a]
            if self.commutes and b.shape == shape and _is_constant(a, self.neutral):
                return [b]
        if isinstance(a.node.op, BroadcastTo) and b.shape == shape:
            return [self(a.node.inputs[0], b)]
        if isinstance(b.node.op, BroadcastTo) and a.shape == shape:
            return [self(a, b.node.inputs[0])]
        return None

    def partial(self, a: Var, b: Var, y: Var, dy: Var) -> tuple[Var, Var]:
        """Gradients for the operands, in the output's shape."""
        raise GraphError(f"{self.name}: has no gradient")

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        a, b = node.inputs
        if self.result is not None:
            return [None, None]
        da, db = self.partial(a, b, node.outputs[0], dy[0])
        return [sum_to(da, a.shape), sum_to(db, b.shape)]


def _is_constant(v: Var, value: float) -> bool:
    return isinstance(v.node.op, Constant) and bool(np.all(v.node.op.value == value))


class Add(Binary, kernel="add"):
    """a + b"""

    neutral: ClassVar[float | None] = 0
    commutes: ClassVar[bool] = True

    def partial(self, a: Var, b: Var, y: Var, dy: Var) -> tuple[Var, Var]:
        return dy, dy

    def reference(self, a: Array, b: Array) -> Array:
        return a + b


class Sub(Binary, kernel="sub"):
    """a - b"""

    neutral: ClassVar[float | None] = 0

    def partial(self, a: Var, b: Var, y: Var, dy: Var) -> tuple[Var, Var]:
        return dy, mul(dy, -1)

    def reference(self, a: Array, b: Array) -> Array:
        return a - b


class Mul(Binary, kernel="mul"):
    """a * b"""

    neutral: ClassVar[float | None] = 1
    commutes: ClassVar[bool] = True

    def partial(self, a: Var, b: Var, y: Var, dy: Var) -> tuple[Var, Var]:
        return mul(dy, b), mul(dy, a)

    def reference(self, a: Array, b: Array) -> Array:
        return a * b


class Div(Binary, kernel="div"):
    """a / b, for floats"""

    neutral: ClassVar[float | None] = 1
    dtypes: ClassVar[tuple[DType, ...]] = (DType.float32, DType.float64)

    def partial(self, a: Var, b: Var, y: Var, dy: Var) -> tuple[Var, Var]:
        da = div(dy, b)
        return da, mul(mul(da, y), -1)

    def reference(self, a: Array, b: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            return a / b


class Pow(Binary, kernel="pow"):
    """a ** b, for floats; the gradient to b is taken only where a > 0."""

    neutral: ClassVar[float | None] = 1
    dtypes: ClassVar[tuple[DType, ...]] = (DType.float32, DType.float64)

    def partial(self, a: Var, b: Var, y: Var, dy: Var) -> tuple[Var, Var]:
        from megbrain_py.ops.select import where  # a room that needs this one
        from megbrain_py.ops.unary import log

        da = mul(dy, mul(b, pow(a, sub(b, 1))))
        positive = greater(a, 0)
        safe = where(positive, a, 1)
        return da, mul(dy, where(positive, mul(y, log(safe)), 0))

    def reference(self, a: Array, b: Array) -> Array:
        with np.errstate(all="ignore"):
            return np.power(a, b)


class Maximum(Binary, kernel="maximum"):
    """max(a, b); NaN wins. Where a == b the gradient goes to b."""

    def partial(self, a: Var, b: Var, y: Var, dy: Var) -> tuple[Var, Var]:
        return _pick(greater(a, b), dy)

    def reference(self, a: Array, b: Array) -> Array:
        return np.maximum(a, b)


class Minimum(Binary, kernel="minimum"):
    """min(a, b); NaN wins. Where a == b the gradient goes to b."""

    def partial(self, a: Var, b: Var, y: Var, dy: Var) -> tuple[Var, Var]:
        return _pick(less(a, b), dy)

    def reference(self, a: Array, b: Array) -> Array:
        return np.minimum(a, b)


def _pick(first: Var, dy: Var) -> tuple[Var, Var]:
    from megbrain_py.ops.select import where

    return where(first, dy, 0), where(first, 0, dy)


@dataclass(frozen=True)
class Comparison(Binary):
    """Base: the output is bool and has no gradient."""

    result: ClassVar[DType | None] = DType.bool


class Less(Comparison, kernel="less"):
    """a < b"""

    def reference(self, a: Array, b: Array) -> Array:
        return np.less(a, b)


class LessEqual(Comparison, kernel="less_equal"):
    """a <= b"""

    def reference(self, a: Array, b: Array) -> Array:
        return np.less_equal(a, b)


class Greater(Comparison, kernel="greater"):
    """a > b"""

    def reference(self, a: Array, b: Array) -> Array:
        return np.greater(a, b)


class GreaterEqual(Comparison, kernel="greater_equal"):
    """a >= b"""

    def reference(self, a: Array, b: Array) -> Array:
        return np.greater_equal(a, b)


class Equal(Comparison, kernel="equal"):
    """a == b, for every element type"""

    dtypes: ClassVar[tuple[DType, ...]] = tuple(DType)

    def reference(self, a: Array, b: Array) -> Array:
        return np.equal(a, b)


class NotEqual(Comparison, kernel="not_equal"):
    """a != b, for every element type"""

    dtypes: ClassVar[tuple[DType, ...]] = tuple(DType)

    def reference(self, a: Array, b: Array) -> Array:
        return np.not_equal(a, b)


class LogicalAnd(Comparison, kernel="logical_and"):
    """a and b, for bools"""

    dtypes: ClassVar[tuple[DType, ...]] = (DType.bool,)

    def reference(self, a: Array, b: Array) -> Array:
        return np.logical_and(a, b)


class LogicalOr(Comparison, kernel="logical_or"):
    """a or b, for bools"""

    dtypes: ClassVar[tuple[DType, ...]] = (DType.bool,)

    def reference(self, a: Array, b: Array) -> Array:
        return np.logical_or(a, b)


def as_operands(a: VarLike, b: VarLike) -> tuple[Var, Var]:
    """Both as Vars; a number takes the other operand's element type, which must hold it."""
    if not isinstance(a, Var):
        a = constant(a, b.dtype if isinstance(b, Var) else None)
    if not isinstance(b, Var):
        b = constant(b, a.dtype)
    return a, b


def apply_binary(op: Operator, a: VarLike, b: VarLike) -> Var:
    """Apply an operator of two operands; a number takes the other operand's element type."""
    result: Var = op(*as_operands(a, b))
    return result


def add(a: VarLike, b: VarLike) -> Var:
    """a + b with broadcasting. float or int."""
    return apply_binary(Add(), a, b)


def sub(a: VarLike, b: VarLike) -> Var:
    """a - b with broadcasting. float or int."""
    return apply_binary(Sub(), a, b)


def mul(a: VarLike, b: VarLike) -> Var:
    """a * b with broadcasting. float or int."""
    return apply_binary(Mul(), a, b)


def div(a: VarLike, b: VarLike) -> Var:
    """a / b with broadcasting. float."""
    return apply_binary(Div(), a, b)


def pow(a: VarLike, b: VarLike) -> Var:
    """a ** b with broadcasting. float."""
    return apply_binary(Pow(), a, b)


def maximum(a: VarLike, b: VarLike) -> Var:
    """The larger of a and b with broadcasting; NaN wins. float or int."""
    return apply_binary(Maximum(), a, b)


def minimum(a: VarLike, b: VarLike) -> Var:
    """The smaller of a and b with broadcasting; NaN wins. float or int."""
    return apply_binary(Minimum(), a, b)


def less(a: VarLike, b: VarLike) -> Var:
    """a < b as bool."""
    return apply_binary(Less(), a, b)


def less_equal(a: VarLike, b: VarLike) -> Var:
    """a <= b as bool."""
    return apply_binary(LessEqual(), a, b)


def greater(a: VarLike, b: VarLike) -> Var:
    """a > b as bool."""
    return apply_binary(Greater(), a, b)


def greater_equal(a: VarLike, b: VarLike) -> Var:
    """a >= b as bool."""
    return apply_binary(GreaterEqual(), a, b)


def equal(a: VarLike, b: VarLike) -> Var:
    """a == b as bool."""
    return apply_binary(Equal(), a, b)


def not_equal(a: VarLike, b: VarLike) -> Var:
    """a != b as bool."""
    return apply_binary(NotEqual(), a, b)


def logical_and(a: VarLike, b: VarLike) -> Var:
    """a and b with broadcasting. bool."""
    return apply_binary(LogicalAnd(), a, b)


def logical_or(a: VarLike, b: VarLike) -> Var:
    """a or b with broadcasting. bool."""
    return apply_binary(LogicalOr(), a, b)
