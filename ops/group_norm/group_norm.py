"""Group norm: each image's groups of channels to mean 0 and variance 1, then scaled and shifted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from megbrain_py.dtypes import Array, Layout, TensorType
from megbrain_py.errors import require
from megbrain_py.node import Node, Operator, Var


@dataclass(frozen=True)
class _Grouped(Operator):
    """Base: images are channels_last, other ranks lie in rows; inputs x, then vectors or dy."""

    groups: int
    eps: float

    def layouts(self, inputs: Sequence[TensorType]) -> tuple[Sequence[Layout], Sequence[Layout]]:
        outputs = self.output_types(inputs)

        def place(t: TensorType) -> Layout:
            return "channels_last" if t.rank == 4 else "rows"

        return [place(t) for t in inputs], [place(t) for t in outputs]

    def check(self, x: TensorType, vectors: dict[str, TensorType]) -> None:
        """x is [N, C, ...] and its channels divide into the groups."""
        require(x.dtype.is_float and x.rank >= 2, f"x must be a float tensor [N, C, ...], is {x}")
        require(
            self.groups > 0 and x.shape[1] % self.groups == 0,
            f"{x.shape[1]} channels do not divide into {self.groups} groups",
        )
        for name, t in vectors.items():
            want = TensorType((x.shape[1],), x.dtype)
            require(t == want, f"{name} must be {want}, one number a channel, is {t}")
        require(self.eps >= 0, f"eps must not be negative, is {self.eps}")


class GroupNorm(_Grouped, kernel="group_norm"):
    """(x - mean) / sqrt(variance + eps) * gamma + beta; also the group's mean and 1 / sqrt(...)"""

    def infer(self, x: TensorType, gamma: TensorType, beta: TensorType) -> Sequence[TensorType]:
        self.check(x, {"weight": gamma, "bias": beta})
        statistics = TensorType((x.shape[0], self.groups), x.dtype)
        return x, statistics, statistics

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        x, gamma, _ = node.inputs
        _, mean, inverse = node.outputs
        dx, dgamma, dbeta = GroupNormGrad(self.groups, self.eps)(x, dy[0], gamma, mean, inverse)
        return [dx, dgamma, dbeta]

    def may_overwrite(
        self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]
    ) -> Sequence[tuple[int, int]]:
        return [(0, 0)]

    def reference(self, x: Array, gamma: Array, beta: Array) -> Sequence[Array]:
        if x.size == 0:
            empty = np.zeros((x.shape[0], self.groups), x.dtype)
            return x, empty, empty
        grouped = x.reshape(x.shape[0], self.groups, -1)
        mean = grouped.mean(axis=2)
        inverse = 1 / np.sqrt(grouped.var(axis=2) + self.eps)
        normalised = ((grouped - mean[..., None]) * inverse[..., None]).reshape(x.shape)
        s = (1, -1, *[1] * (x.ndim - 2))
        return normalised * gamma.reshape(s) + beta.reshape(s), mean, inverse


class GroupNormGrad(_Grouped, kernel="group_norm_grad"):
    """dx, dgamma, dbeta: one walk for the sums of each channel, one for dx."""

    def infer(
        self,
        x: TensorType,
        dy: TensorType,
        gamma: TensorType,
        mean: TensorType,
        inverse: TensorType,
    ) -> Sequence[TensorType]:
        self.check(x, {"weight": gamma})
        require(dy == x, f"dy must be {x}, is {dy}")
        want = TensorType((x.shape[0], self.groups), x.dtype)
        require(mean == want and inverse == want, f"mean and inverse must be {want}")
        return x, gamma, gamma

    def may_overwrite(
        self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]
    ) -> Sequence[tuple[int, int]]:
        return [(0, 0), (0, 1)]

    def reference(
        self, x: Array, dy: Array, gamma: Array, mean: Array, inverse: Array
    ) -> Sequence[Array]:
        s = (1, -1, *[1] * (x.ndim - 2))
        shape = (x.shape[0], self.groups, -1)
        if x.size == 0:
            return x, np.zeros_like(gamma), np.zeros_like(gamma)
        normalised = (x.reshape(shape) - mean[..., None]) * inverse[..., None]
        g = (dy * gamma.reshape(s)).reshape(shape)
        level = g.mean(axis=2, keepdims=True)
        slope = (g * normalised).mean(axis=2, keepdims=True)
        dx = (inverse[..., None] * (g - level - normalised * slope)).reshape(x.shape)
        others = tuple(a for a in range(x.ndim) if a != 1)
        dgamma = (dy * normalised.reshape(x.shape)).sum(axis=others)
        return dx, dgamma, dy.sum(axis=others)


def group_norm(x: Var, groups: int, weight: Var, bias: Var, *, eps: float = 1e-5) -> Var:
    """Normalises each image of x over `groups` groups of neighbouring channels.

    x: float `[N, C, ...]`; weight, bias: `[C]`; C divides into `groups`. The variance is the biased
    one. Source: Wu and He 2018.
    """
    y, _, _ = GroupNorm(int(groups), float(eps))(x, weight, bias)
    result: Var = y
    return result
