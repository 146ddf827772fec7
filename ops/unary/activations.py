"""Activation functions, and their gradients as operators of one sweep."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from megbrain_py.dtypes import Array, DType, TensorType
from megbrain_py.errors import require
from megbrain_py.graph import Node, Operator, Var
from megbrain_py.ops.binary import add, mul, sub
from megbrain_py.ops.unary.unary import (
    ARITHMETIC,
    FLOATS,
    Unary,
    double_precision,
    exp,
    neg,
    square,
)


def _logistic(x: Array) -> Array:
    """1 / (1 + exp(-x)) without overflow."""
    small = np.exp(-np.abs(x))
    logistic: Array = np.where(x >= 0, 1, small) / (1 + small)
    return logistic


def _normal_distribution(x: Array) -> Array:
    """Phi(x)."""
    return double_precision(lambda v: 0.5 * math.erfc(-v / math.sqrt(2)), x)


def _normal_density(x: Array) -> Array:
    return np.asarray(np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi), x.dtype)


@dataclass(frozen=True)
class ActivationGrad(Operator):
    """Base: (saved value, dy) -> dx, all of one shape. The saved value is x or y, see each."""

    elementwise: ClassVar[bool] = True

    def infer(self, saved: TensorType, dy: TensorType) -> TensorType:
        require(saved == dy, f"the saved value {saved} and dy {dy} must have one type")
        require(saved.dtype in FLOATS, f"x must be a float tensor, is {saved.dtype}")
        return saved

    def slope_change(self, saved: Var, dx: Var, dy: Var) -> Var | None:
        """d dx / d saved, times dy; None where it is zero."""
        return None

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        saved, inner = node.inputs
        outer = dy[0]
        again: Var = self(saved, outer)  # linear in dy
        change = self.slope_change(saved, outer, inner)
        return [change, again]


class Relu(Unary, kernel="relu"):
    """max(x, 0); NaN stays. The gradient needs only the output, so y may overwrite x."""

    dtypes: ClassVar[tuple[DType, ...]] = ARITHMETIC

    def derivative(self, x: Var, y: Var, dy: Var) -> Var:
        result: Var = ReluGrad()(y, dy)
        return result

    def simplify(self, *inputs: Var) -> Sequence[Var] | None:
        return [inputs[0]] if isinstance(inputs[0].node.op, Relu) else None

    def reference(self, x: Array) -> Array:
        return np.where(x < 0, x.dtype.type(0), x)


class ReluGrad(ActivationGrad, kernel="relu_grad"):
    """dy where the output y > 0, else 0."""

    def reference(self, y: Array, dy: Array) -> Array:
        return np.where(y > 0, dy, dy.dtype.type(0))


@dataclass(frozen=True)
class LeakyRelu(Unary, kernel="leaky_relu"):
    """x where x > 0, else slope * x. slope >= 0, so that the output's sign tells the side."""

    slope: float

    def infer(self, x: TensorType) -> TensorType:
        require(self.slope >= 0, f"slope must not be negative, is {self.slope}")
        return super().infer(x)

    def step_values(self) -> Sequence[float]:
        return (self.slope,)

    def derivative(self, x: Var, y: Var, dy: Var) -> Var:
        result: Var = LeakyReluGrad(self.slope)(y, dy)
        return result

    def reference(self, x: Array) -> Array:
        return np.where(x > 0, x, x.dtype.type(self.slope) * x)


@dataclass(frozen=True)
class LeakyReluGrad(ActivationGrad, kernel="leaky_relu_grad"):
    """dy where the output y > 0, else slope * dy."""

    slope: float

    def step_values(self) -> Sequence[float]:
        return (self.slope,)

    def reference(self, y: Array, dy: Array) -> Array:
        return np.where(y > 0, dy, dy.dtype.type(self.slope) * dy)


class Sigmoid(Unary, kernel="sigmoid"):
    """1 / (1 + exp(-x))"""

    def derivative(self, x: Var, y: Var, dy: Var) -> Var:
        result: Var = SigmoidGrad()(y, dy)
        return result

    def reference(self, x: Array) -> Array:
        return np.asarray(_logistic(x), x.dtype)


class SigmoidGrad(ActivationGrad, kernel="sigmoid_grad"):
    """dy * y * (1 - y), of the output y."""

    def slope_change(self, saved: Var, dx: Var, dy: Var) -> Var:
        return mul(mul(dx, dy), sub(1, mul(saved, 2)))

    def reference(self, y: Array, dy: Array) -> Array:
        dx: Array = dy * (y * (1 - y))
        return dx


class Tanh(Unary, kernel="tanh"):
    """Hyperbolic tangent."""

    def derivative(self, x: Var, y: Var, dy: Var) -> Var:
        result: Var = TanhGrad()(y, dy)
        return result

    def reference(self, x: Array) -> Array:
        return np.tanh(x)


class TanhGrad(ActivationGrad, kernel="tanh_grad"):
    """dy * (1 - y^2), of the output y."""

    def slope_change(self, saved: Var, dx: Var, dy: Var) -> Var:
        return mul(mul(dx, dy), mul(saved, -2))

    def reference(self, y: Array, dy: Array) -> Array:
        dx: Array = dy * (1 - y * y)
        return dx


class Silu(Unary, kernel="silu"):
    """x * sigmoid(x)"""

    def derivative(self, x: Var, y: Var, dy: Var) -> Var:
        result: Var = SiluGrad()(x, dy)
        return result

    def reference(self, x: Array) -> Array:
        return np.asarray(x * _logistic(x), x.dtype)


class SiluGrad(ActivationGrad, kernel="silu_grad"):
    """dy * s * (1 + x * (1 - s)) with s = sigmoid(x), of the input x."""

    def slope_change(self, saved: Var, dx: Var, dy: Var) -> Var:
        s = sigmoid(saved)
        curve = mul(mul(s, sub(1, s)), add(2, mul(saved, sub(1, mul(s, 2)))))
        return mul(mul(dx, dy), curve)

    def reference(self, x: Array, dy: Array) -> Array:
        s = _logistic(x)
        return np.asarray(dy * (s * (1 + x * (1 - s))), x.dtype)


class Gelu(Unary, kernel="gelu"):
    """x * Phi(x), Phi the normal distribution function (Hendrycks, Gimpel 2016; exact form)."""

    def derivative(self, x: Var, y: Var, dy: Var) -> Var:
        result: Var = GeluGrad()(x, dy)
        return result

    def reference(self, x: Array) -> Array:
        return x * _normal_distribution(x)


class GeluGrad(ActivationGrad, kernel="gelu_grad"):
    """dy * (Phi(x) + x * phi(x)), phi the normal density, of the input x."""

    def slope_change(self, saved: Var, dx: Var, dy: Var) -> Var:
        density = mul(exp(mul(square(saved), -0.5)), 1 / math.sqrt(2 * math.pi))
        return mul(mul(dx, dy), mul(density, sub(2, square(saved))))

    def reference(self, x: Array, dy: Array) -> Array:
        dx: Array = dy * (_normal_distribution(x) + x * _normal_density(x))
        return dx


class Softplus(Unary, kernel="softplus"):
    """log(1 + exp(x)), without overflow."""

    def derivative(self, x: Var, y: Var, dy: Var) -> Var:
        return mul(dy, sigmoid(x))

    def reference(self, x: Array) -> Array:
        tail: Array = np.log1p(np.exp(-np.abs(x)))
        return np.asarray(np.maximum(x, 0) + tail, x.dtype)


def relu(x: Var) -> Var:
    """max(x, 0); gradient 0 at 0; NaN stays. float or int."""
    result: Var = Relu()(x)
    return result


def leaky_relu(x: Var, slope: float = 0.01) -> Var:
    """x where x > 0, else slope * x; slope >= 0. float."""
    result: Var = LeakyRelu(float(slope))(x)
    return result


def sigmoid(x: Var) -> Var:
    """1 / (1 + exp(-x)). float."""
    result: Var = Sigmoid()(x)
    return result


def log_sigmoid(x: Var) -> Var:
    """log(sigmoid(x)), without overflow. float."""
    return neg(softplus(neg(x)))


def tanh(x: Var) -> Var:
    """Hyperbolic tangent. float."""
    result: Var = Tanh()(x)
    return result


def silu(x: Var) -> Var:
    """x * sigmoid(x), also called swish. float."""
    result: Var = Silu()(x)
    return result


def gelu(x: Var) -> Var:
    """x * Phi(x), the exact form with erf. float."""
    result: Var = Gelu()(x)
    return result


def softplus(x: Var) -> Var:
    """log(1 + exp(x)), without overflow. float."""
    result: Var = Softplus()(x)
    return result
