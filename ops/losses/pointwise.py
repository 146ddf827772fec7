"""Losses of single elements: sigmoid cross-entropy and smooth L1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from megbrain_py.dtypes import Array, TensorType
from megbrain_py.errors import require
from megbrain_py.node import Node, Operator, Var
from megbrain_py.ops.binary import mul
from megbrain_py.ops.losses.reduction import Reduction, reduce_loss


@dataclass(frozen=True)
class Pointwise(Operator):
    """Base: all inputs have one float type, which is the output's."""

    elementwise: ClassVar[bool] = True

    def infer(self, *inputs: TensorType) -> TensorType:
        x = inputs[0]
        require(x.dtype.is_float, f"x must be a float tensor, is {x}")
        for name, t in zip(("target", "dy"), inputs[1:], strict=False):
            require(t.with_layout("rows") == x.with_layout("rows"), f"{name} must be {x}, is {t}")
        return x


class SigmoidCrossEntropy(Pointwise, kernel="sigmoid_cross_entropy"):
    """-t log(s) - (1 - t) log(1 - s) with s = sigmoid(x), as max(x, 0) - x t + log(1 + e^-|x|)"""

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        x, target = node.inputs
        return [SigmoidCrossEntropyGrad()(x, target, dy[0]), mul(mul(x, dy[0]), -1.0)]

    def reference(self, x: Array, target: Array) -> Array:
        y: Array = np.maximum(x, 0) - x * target + np.log1p(np.exp(-np.abs(x)))
        return y


class SigmoidCrossEntropyGrad(Pointwise, kernel="sigmoid_cross_entropy_grad"):
    """(sigmoid(x) - t) dy"""

    def reference(self, x: Array, target: Array, dy: Array) -> Array:
        e = np.exp(-np.abs(x))
        dx: Array = (np.where(x >= 0, 1, e) / (1 + e) - target) * dy
        return dx


@dataclass(frozen=True)
class SmoothL1(Pointwise, kernel="smooth_l1"):
    """0.5 d^2 / beta where |d| < beta, else |d| - 0.5 beta, with d = x - t"""

    beta: float

    def infer(self, *inputs: TensorType) -> TensorType:
        require(self.beta >= 0, f"beta must not be negative, is {self.beta}")
        return super().infer(*inputs)

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        dx: Var = SmoothL1Grad(self.beta)(*node.inputs, dy[0])
        return [dx, mul(dx, -1.0)]

    def reference(self, x: Array, target: Array) -> Array:
        d: Array = np.abs(x - target)
        if self.beta == 0:
            return d
        y: Array = np.where(d < self.beta, 0.5 * d * d / self.beta, d - 0.5 * self.beta)
        return y


@dataclass(frozen=True)
class SmoothL1Grad(Pointwise, kernel="smooth_l1_grad"):
    """clamp(d / beta, -1, 1) dy; sign(d) dy for beta 0"""

    beta: float

    def reference(self, x: Array, target: Array, dy: Array) -> Array:
        d = x - target
        slope = np.sign(d) if self.beta == 0 else np.clip(d / self.beta, -1, 1)
        dx: Array = slope * dy
        return dx


def binary_cross_entropy_with_logits(
    x: Var,
    target: Var,
    weight: Var | None = None,
    *,
    reduction: Reduction = "mean",
    count: Var | None = None,
) -> Var:
    """Cross-entropy of sigmoid(x) with `target` in [0, 1], element by element; safe for large |x|.

    x, target: float, one shape. weight: a factor that broadcasts to it. reduction: "none", "sum",
    or "mean": the sum divided by `count` (a float scalar), by default the number of elements.
    """
    loss: Var = SigmoidCrossEntropy()(x, target)
    divisor = float(x.type.count) if count is None else count
    return reduce_loss("binary_cross_entropy_with_logits", loss, weight, reduction, divisor)


def smooth_l1(
    x: Var,
    target: Var,
    weight: Var | None = None,
    *,
    beta: float = 1.0,
    reduction: Reduction = "mean",
    count: Var | None = None,
) -> Var:
    """0.5 d^2 / beta where |d| < beta, else |d| - beta / 2, with d = x - target; L1 for beta 0.

    x, target: float, one shape. weight, reduction, count: as for
    `binary_cross_entropy_with_logits`. Source: Girshick, Fast R-CNN (2015).
    """
    loss: Var = SmoothL1(float(beta))(x, target)
    divisor = float(x.type.count) if count is None else count
    return reduce_loss("smooth_l1", loss, weight, reduction, divisor)
