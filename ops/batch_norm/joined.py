"""Batch norm with its neighbours: ReLU and a sum behind it, ReLU's gradient before its gradient.

Fusion makes these operators after gradients are taken: they have none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from megbrain_py.dtypes import Array, TensorType
from megbrain_py.errors import require
from megbrain_py.node import Node, Rewriter, Var
from megbrain_py.ops.batch_norm.channel_maps import (
    ChannelAffineSum,
    ChannelOperator,
    channel_shape,
    check_channels,
)
from megbrain_py.ops.unary.activations import ReluGrad

VECTORS = ("mean", "var", "gamma", "beta")


def _normalised(x: Array, mean: Array, var: Array, gamma: Array, beta: Array, eps: float) -> Array:
    s = channel_shape(x)
    y: Array = (x - mean.reshape(s)) * (gamma / np.sqrt(var + eps)).reshape(s) + beta.reshape(s)
    return y


def _relu(x: Array) -> Array:
    return np.where(x < 0, x.dtype.type(0), x)


def relu_of_norm(x: Var, dz: Var) -> tuple[float, Var, list[Var]] | None:
    """(eps, dy, vectors of the norm) where dz = relu_grad(relu(normalise(x)), dy)."""
    if not isinstance(dz.node.op, ReluGrad):
        return None
    y, dy = dz.node.inputs
    op = y.node.op
    if not isinstance(op, NormaliseJoined) or not op.relu or op.residual:
        return None
    if y.node.inputs[0] is not x:
        return None
    return op.eps, dy, list(y.node.inputs[1:])


def affine_sum_with_relu(node: Node, inputs: tuple[Var, ...]) -> Sequence[Var] | None:
    """ChannelAffineSum of a ReLU's gradient -> ReluAffineSum."""
    if not isinstance(node.op, ChannelAffineSum):
        return None
    dz, x, *coefficients = inputs
    found = relu_of_norm(x, dz)
    if found is None:
        return None
    eps, dy, vectors = found
    return [ReluAffineSum(eps)(dy, x, *coefficients, *vectors)]


@dataclass(frozen=True)
class NormaliseJoined(ChannelOperator, kernel="channel_normalise_joined"):
    """relu(normalise(x) + residual), each part where it is asked for.

    Inputs: x, the residual (of x's type) if there is one, mean, var, gamma, beta.
    """

    eps: float
    relu: bool = False
    residual: bool = False
    absorbs: ClassVar[Sequence[Rewriter]] = (affine_sum_with_relu,)

    @property
    def full(self) -> int:  # type: ignore[override]
        return 2 if self.residual else 1

    def infer(self, *inputs: TensorType) -> TensorType:
        x, vectors = inputs[0], inputs[self.full :]
        check_channels([x], dict(zip(VECTORS, vectors, strict=True)))
        for residual in inputs[1 : self.full]:
            require(residual == x, f"residual must be {x}, is {residual}")
        return x

    def reference(self, *inputs: Array) -> Array:
        x, mean, var, gamma, beta = inputs[0], *inputs[self.full :]
        y = _normalised(x, mean, var, gamma, beta, self.eps)
        if self.residual:
            y = y + inputs[1]
        return _relu(y) if self.relu else y


@dataclass(frozen=True)
class ReluNormaliseSums(ChannelOperator, kernel="channel_relu_normalise_sums"):
    """normalise_sums(x, dy where relu(normalise(x)) > 0, ...): the ReLU's output is not read."""

    full: ClassVar[int] = 2
    full_outputs: ClassVar[int] = 0
    eps: float

    def infer(self, x: TensorType, dy: TensorType, *vectors: TensorType) -> Sequence[TensorType]:
        check_channels([x, dy], dict(zip(VECTORS, vectors, strict=True)))
        return vectors[0], vectors[0]

    def reference(
        self, x: Array, dy: Array, mean: Array, var: Array, gamma: Array, beta: Array
    ) -> Sequence[Array]:
        s, axes = channel_shape(x), tuple(a for a in range(x.ndim) if a != 1)
        passed = np.where(_normalised(x, mean, var, gamma, beta, self.eps) > 0, dy, 0)
        normalised = (x - mean.reshape(s)) / np.sqrt(var + self.eps).reshape(s)
        return (passed * normalised).sum(axis=axes), passed.sum(axis=axes)


@dataclass(frozen=True)
class ReluAffineSum(ChannelOperator, kernel="channel_relu_affine_sum"):
    """affine_sum(dy where relu(normalise(x)) > 0, x, ...): the ReLU's output is not read.

    Inputs: dy, x, dy_scale, scale, center, shift of the map; mean, var, gamma, beta of the norm.
    """

    full: ClassVar[int] = 2
    eps: float

    def infer(self, dy: TensorType, x: TensorType, *vectors: TensorType) -> TensorType:
        names = ("dy_scale", "scale", "center", "shift", *VECTORS)
        check_channels([dy, x], dict(zip(names, vectors, strict=True)))
        return dy

    def reference(self, dy: Array, x: Array, *vectors: Array) -> Array:
        s = channel_shape(x)
        dy_scale, scale, center, shift = (v.reshape(s) for v in vectors[:4])
        mean, var, gamma, beta = vectors[4:]
        passed = np.where(_normalised(x, mean, var, gamma, beta, self.eps) > 0, dy, 0)
        y: Array = dy_scale * passed + (scale * (x - center) + shift)
        return y
