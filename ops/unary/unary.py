"""Elementwise functions of one operand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from megbrain_py.dtypes import Array, DType, TensorType
from megbrain_py.errors import require
from megbrain_py.graph import Node, Operator, Var
from megbrain_py.ops.binary import div, equal, greater_equal, less_equal, logical_and, mul
from megbrain_py.ops.select import where

FLOATS = (DType.float32, DType.float64)
ARITHMETIC = (*FLOATS, DType.int32, DType.int64)


def double_precision(function: Any, x: Array) -> Array:
    """A function of Python floats over an array, in the array's element type."""
    return np.asarray(np.vectorize(function, otypes=[np.float64])(x), x.dtype)


@dataclass(frozen=True)
class Unary(Operator):
    """Base: the output has the operand's shape, and its element type unless `result` is set."""

    elementwise: ClassVar[bool] = True
    dtypes: ClassVar[tuple[DType, ...]] = FLOATS
    result: ClassVar[DType | None] = None

    def infer(self, x: TensorType) -> TensorType:
        known = ", ".join(map(str, self.dtypes))
        require(x.dtype in self.dtypes, f"x must be {known}, is {x.dtype}")
        return TensorType(x.shape, self.result or x.dtype)

    def derivative(self, x: Var, y: Var, dy: Var) -> Var | None:
        """The gradient for x, or None where it is zero everywhere."""
        return None

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        (x,) = node.inputs
        if not x.dtype.is_float:
            return [None]
        return [self.derivative(x, node.outputs[0], dy[0])]


class Exp(Unary, kernel="exp"):
    """e ** x"""

    def derivative(self, x: Var, y: Var, dy: Var) -> Var:
        return mul(dy, y)

    def reference(self, x: Array) -> Array:
        with np.errstate(over="ignore"):
            return np.exp(x)


class Log(Unary, kernel="log"):
    """Natural logarithm; -inf at 0, NaN below."""

    def derivative(self, x: Var, y: Var, dy: Var) -> Var:
        return div(dy, x)

    def reference(self, x: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.log(x)


class Sqrt(Unary, kernel="sqrt"):
    """Square root; NaN below 0."""

    def derivative(self, x: Var, y: Var, dy: Var) -> Var:
        return div(mul(dy, 0.5), y)

    def reference(self, x: Array) -> Array:
        with np.errstate(invalid="ignore"):
            return np.sqrt(x)


class Rsqrt(Unary, kernel="rsqrt"):
    """1 / sqrt(x); inf at 0, NaN below."""

    def derivative(self, x: Var, y: Var, dy: Var) -> Var:
        return mul(mul(dy, -0.5), mul(y, mul(y, y)))

    def reference(self, x: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            return 1 / np.sqrt(x)


class Abs(Unary, kernel="abs"):
    """|x|; the gradient at 0 is 0."""

    dtypes: ClassVar[tuple[DType, ...]] = ARITHMETIC

    def derivative(self, x: Var, y: Var, dy: Var) -> Var:
        return mul(dy, sign(x))

    def reference(self, x: Array) -> Array:
        return np.abs(x)


class Neg(Unary, kernel="neg"):
    """-x"""

    dtypes: ClassVar[tuple[DType, ...]] = ARITHMETIC

    def derivative(self, x: Var, y: Var, dy: Var) -> Var:
        return neg(dy)

    def simplify(self, *inputs: Var) -> Sequence[Var] | None:
        made = inputs[0].node
        return [made.inputs[0]] if isinstance(made.op, Neg) else None

    def reference(self, x: Array) -> Array:
        return -x


class Sign(Unary, kernel="sign"):
    """-1, 0 or 1; NaN stays."""

    dtypes: ClassVar[tuple[DType, ...]] = ARITHMETIC

    def reference(self, x: Array) -> Array:
        return np.sign(x)


class Square(Unary, kernel="square"):
    """x * x"""

    dtypes: ClassVar[tuple[DType, ...]] = ARITHMETIC

    def derivative(self, x: Var, y: Var, dy: Var) -> Var:
        return mul(mul(dy, x), 2)

    def reference(self, x: Array) -> Array:
        with np.errstate(over="ignore"):
            return x * x


class Floor(Unary, kernel="floor"):
    """The largest integer not above x, as a float; its gradient is zero."""

    def reference(self, x: Array) -> Array:
        return np.floor(x)


class Round(Unary, kernel="round"):
    """The nearest integer as a float, halves to the even one; its gradient is zero."""

    def reference(self, x: Array) -> Array:
        return np.rint(x)


class Erf(Unary, kernel="erf"):
    """2 / sqrt(pi) times the integral of exp(-t^2) from 0 to x."""

    def derivative(self, x: Var, y: Var, dy: Var) -> Var:
        return mul(mul(dy, exp(neg(square(x)))), 2 / math.sqrt(math.pi))

    def reference(self, x: Array) -> Array:
        return double_precision(math.erf, x)


@dataclass(frozen=True)
class Clip(Unary, kernel="clip"):
    """x moved into [low, high]; NaN stays. The gradient passes inside, the ends included."""

    low: float | None
    high: float | None
    dtypes: ClassVar[tuple[DType, ...]] = ARITHMETIC

    def infer(self, x: TensorType) -> TensorType:
        ordered = self.low is None or self.high is None or self.low <= self.high
        require(ordered, f"low {self.low} is above high {self.high}")
        bounds = [b for b in (self.low, self.high) if b is not None]
        whole = x.dtype.is_float or all(float(b).is_integer() for b in bounds)
        require(whole, f"bounds {bounds} of {x.dtype} must be whole numbers")
        return super().infer(x)

    def step_values(self) -> Sequence[float]:
        low = -math.inf if self.low is None else self.low
        return low, math.inf if self.high is None else self.high

    def derivative(self, x: Var, y: Var, dy: Var) -> Var:
        if self.low is None and self.high is None:
            return dy
        if self.low is None:
            inside = less_equal(x, float(self.high or 0))
        elif self.high is None:
            inside = greater_equal(x, float(self.low))
        else:
            inside = logical_and(greater_equal(x, float(self.low)), less_equal(x, float(self.high)))
        return where(inside, dy, 0)

    def reference(self, x: Array) -> Array:
        if self.low is None and self.high is None:
            return x
        low = None if self.low is None else x.dtype.type(self.low)
        high = None if self.high is None else x.dtype.type(self.high)
        return np.asarray(np.clip(x, low, high))


class LogicalNot(Unary, kernel="logical_not"):
    """not x, for bools"""

    dtypes: ClassVar[tuple[DType, ...]] = (DType.bool,)

    def reference(self, x: Array) -> Array:
        return np.logical_not(x)


class IsFinite(Unary, kernel="isfinite"):
    """True where x is neither infinite nor NaN."""

    result: ClassVar[DType | None] = DType.bool

    def reference(self, x: Array) -> Array:
        return np.isfinite(x)


def exp(x: Var) -> Var:
    """e ** x. float."""
    return _apply(Exp(), x)


def log(x: Var) -> Var:
    """Natural logarithm; -inf at 0, NaN below. float."""
    return _apply(Log(), x)


def sqrt(x: Var) -> Var:
    """Square root; NaN below 0. float."""
    return _apply(Sqrt(), x)


def rsqrt(x: Var) -> Var:
    """1 / sqrt(x). float."""
    return _apply(Rsqrt(), x)


def abs(x: Var) -> Var:
    """|x|; gradient 0 at 0. float or int."""
    return _apply(Abs(), x)


def neg(x: Var) -> Var:
    """-x. float or int."""
    return _apply(Neg(), x)


def sign(x: Var) -> Var:
    """-1, 0 or 1; NaN stays. float or int."""
    return _apply(Sign(), x)


def square(x: Var) -> Var:
    """x * x. float or int."""
    return _apply(Square(), x)


def floor(x: Var) -> Var:
    """The largest integer not above x, as a float; gradient 0. float."""
    return _apply(Floor(), x)


def round(x: Var) -> Var:
    """The nearest integer as a float, halves to the even one; gradient 0. float."""
    return _apply(Round(), x)


def erf(x: Var) -> Var:
    """The error function. float."""
    return _apply(Erf(), x)


def clip(x: Var, low: float | None = None, high: float | None = None) -> Var:
    """x moved into [low, high] (None: no bound); NaN stays. float or int.

    The gradient passes where low <= x <= high, as torch.clamp's.
    """
    return _apply(Clip(low, high), x)


def logical_not(x: Var) -> Var:
    """not x. bool."""
    return _apply(LogicalNot(), x)


def isfinite(x: Var) -> Var:
    """True where x is neither infinite nor NaN. float -> bool."""
    return _apply(IsFinite(), x)


def isnan(x: Var) -> Var:
    """True where x is NaN. float -> bool."""
    return logical_not(equal(x, x))


def _apply(op: Unary, x: Var) -> Var:
    result: Var = op(x)
    return result
