"""Softmax and its logarithm over any axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from megbrain_py.dtypes import Array, TensorType
from megbrain_py.errors import GraphError, require
from megbrain_py.node import Node, Operator, Var, describe, user_origin
from megbrain_py.ops.binary import mul, sub
from megbrain_py.ops.reduce import sum
from megbrain_py.ops.unary import exp, neg


@dataclass(frozen=True)
class AlongAxis(Operator):
    """Base: works along one axis of float values of one type; the output may replace an input."""

    axis: int

    def infer(self, *inputs: TensorType) -> TensorType:
        x = inputs[0]
        require(x.dtype.is_float, f"x must be a float tensor, is {x}")
        require(0 <= self.axis < x.rank, f"axis must be in [0, {x.rank}), is {self.axis}")
        require(all(t == x for t in inputs), f"dy must be {x}, is {inputs[-1]}")
        return x

    def may_overwrite(
        self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]
    ) -> Sequence[tuple[int, int]]:
        return [(0, i) for i in range(len(inputs))]

    def total(self, x: Var) -> Var:
        """The sum along the axis, which stays with length 1."""
        return sum(x, self.axis, keepdims=True)


class Softmax(AlongAxis, kernel="softmax"):
    """exp(x) / sum of exp(x) along the axis"""

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        return [SoftmaxGrad(self.axis)(node.outputs[0], dy[0])]

    def reference(self, x: Array) -> Array:
        return np.exp(_log_softmax(x, self.axis))


class LogSoftmax(AlongAxis, kernel="log_softmax"):
    """x - log(sum of exp(x)) along the axis"""

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        return [LogSoftmaxGrad(self.axis)(node.outputs[0], dy[0])]

    def reference(self, x: Array) -> Array:
        return _log_softmax(x, self.axis)


class SoftmaxGrad(AlongAxis, kernel="softmax_grad"):
    """y (dy - sum of y dy)"""

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        (y, inner), outer = node.inputs, dy[0]
        change = sub(mul(outer, sub(inner, self.total(mul(y, inner)))),
                     mul(inner, self.total(mul(y, outer))))  # fmt: skip
        return [change, SoftmaxGrad(self.axis)(y, outer)]

    def reference(self, y: Array, dy: Array) -> Array:
        dx: Array = y * (dy - (y * dy).sum(axis=self.axis, keepdims=True))
        return dx


class LogSoftmaxGrad(AlongAxis, kernel="log_softmax_grad"):
    """dy - exp(y) sum of dy"""

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        (y, inner), outer = node.inputs, dy[0]
        weighted = mul(exp(y), outer)
        return [neg(mul(weighted, self.total(inner))), sub(outer, self.total(weighted))]

    def reference(self, y: Array, dy: Array) -> Array:
        dx: Array = dy - np.exp(y) * dy.sum(axis=self.axis, keepdims=True)
        return dx


def _log_softmax(x: Array, axis: int) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        shifted = x - x.max(axis=axis, keepdims=True, initial=-np.inf)
        y: Array = shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))
    return y


def _normal_axis(name: str, x: Var, axis: int) -> int:
    if not -x.rank <= axis < x.rank:
        raise GraphError(
            f"{name}: axis must be in [{-x.rank}, {x.rank}), is {axis}\n  {describe(x)}\n"
            f"  at {user_origin()}"
        )
    return axis % x.rank


def softmax(x: Var, axis: int = -1) -> Var:
    """exp(x) / sum of exp(x) along `axis`; safe for large x. float, any shape."""
    result: Var = Softmax(_normal_axis("softmax", x, axis))(x)
    return result


def log_softmax(x: Var, axis: int = -1) -> Var:
    """x - log(sum of exp(x)) along `axis`; safe for large x. float, any shape."""
    result: Var = LogSoftmax(_normal_axis("log_softmax", x, axis))(x)
    return result
