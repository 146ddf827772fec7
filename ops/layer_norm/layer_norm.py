"""Layer norm: each row (the last axes) to mean 0 and variance 1, then scaled and shifted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from megbrain_py.dtypes import Array, TensorType
from megbrain_py.errors import require
from megbrain_py.node import Node, Operator, Var


@dataclass(frozen=True)
class LayerNorm(Operator, kernel="layer_norm"):
    """(x - mean) / sqrt(variance + eps) * gamma + beta over the axes of gamma, the last of x"""

    eps: float

    def infer(self, x: TensorType, gamma: TensorType, beta: TensorType) -> TensorType:
        _check(x, gamma, self.eps)
        require(beta == gamma, f"bias must be {gamma}, is {beta}")
        return x

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        x, gamma, _ = node.inputs
        dx, dgamma, dbeta = LayerNormGrad(self.eps)(x, gamma, dy[0])
        return [dx, dgamma, dbeta]

    def may_overwrite(
        self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]
    ) -> Sequence[tuple[int, int]]:
        return [(0, 0)]

    def reference(self, x: Array, gamma: Array, beta: Array) -> Array:
        y: Array = _normalised(x, gamma.ndim, self.eps)[0] * gamma + beta
        return y


@dataclass(frozen=True)
class LayerNormGrad(Operator, kernel="layer_norm_grad"):
    """dx, dgamma and dbeta in one walk; a row's mean and variance are computed anew."""

    eps: float

    def infer(self, x: TensorType, gamma: TensorType, dy: TensorType) -> Sequence[TensorType]:
        _check(x, gamma, self.eps)
        require(dy == x, f"dy must be {x}, is {dy}")
        return x, gamma, gamma

    def may_overwrite(
        self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]
    ) -> Sequence[tuple[int, int]]:
        return [(0, 0), (0, 2)]

    def reference(self, x: Array, gamma: Array, dy: Array) -> Sequence[Array]:
        normalised, inverse = _normalised(x, gamma.ndim, self.eps)
        axes = tuple(range(x.ndim - gamma.ndim, x.ndim))
        lead = tuple(range(x.ndim - gamma.ndim))
        g = dy * gamma
        mean = g.mean(axis=axes, keepdims=True)
        slope = (g * normalised).mean(axis=axes, keepdims=True)
        dx = inverse * (g - mean - normalised * slope)
        return dx, (dy * normalised).sum(axis=lead), dy.sum(axis=lead)


def _normalised(x: Array, rank: int, eps: float) -> tuple[Array, Array]:
    axes = tuple(range(x.ndim - rank, x.ndim))
    centred = x - x.mean(axis=axes, keepdims=True)
    inverse = 1 / np.sqrt(np.square(centred).mean(axis=axes, keepdims=True) + eps)
    return centred * inverse, inverse


def _check(x: TensorType, gamma: TensorType, eps: float) -> None:
    require(x.dtype.is_float, f"x must be a float tensor, is {x}")
    require(
        gamma.dtype == x.dtype and 1 <= gamma.rank <= x.rank,
        f"weight must be {x.dtype} of rank 1 to {x.rank}, is {gamma}",
    )
    last = x.shape[x.rank - gamma.rank :]
    require(gamma.shape == last, f"weight {gamma.shape} must have x's last sizes, {last}")
    require(math.prod(last) > 0, f"the normalised axes {last} must not be empty")
    require(eps >= 0, f"eps must not be negative, is {eps}")


def layer_norm(x: Var, weight: Var, bias: Var, *, eps: float = 1e-5) -> Var:
    """Normalises x over its last axes, those of `weight`, to mean 0 and variance 1.

    x: float `[..., *shape]`; weight, bias: `shape`. The variance is the biased one.
    Source: Ba, Kiros, Hinton 2016.
    """
    result: Var = LayerNorm(float(eps))(x, weight, bias)
    return result
