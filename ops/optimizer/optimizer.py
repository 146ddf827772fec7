"""Optimiser steps: new parameter and state from old ones in one walk.

Learning rate, momentum and weight decay are scalar inputs: a schedule never recompiles. The outputs
may take the storage of the inputs they replace, so an update costs no memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from megbrain_py.dtypes import Array, TensorType
from megbrain_py.errors import require
from megbrain_py.node import Operator


@dataclass(frozen=True)
class Update(Operator):
    """Base: `state` states follow parameter and gradient, then scalars. Rows only."""

    state: ClassVar[int] = 0
    scalars: ClassVar[tuple[str, ...]] = ()

    def infer(self, *inputs: TensorType) -> Sequence[TensorType]:
        full = 2 + self.state
        require(
            len(inputs) == full + len(self.scalars),
            f"expected {full + len(self.scalars)} inputs, found {len(inputs)}",
        )
        parameter = inputs[0]
        require(parameter.dtype.is_float, f"parameter must be float, is {parameter}")
        require(inputs[1] == parameter, f"gradient must be {parameter}, is {inputs[1]}")
        for t in inputs[2:full]:
            require(t == parameter, f"state must be {parameter}, is {t}")
        scalar = TensorType((), parameter.dtype)
        for name, t in zip(self.scalars, inputs[full:], strict=True):
            require(t == scalar, f"{name} must be a scalar {scalar}, is {t}")
        return [parameter] * (1 + self.state)

    def may_overwrite(
        self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]
    ) -> Sequence[tuple[int, int]]:
        return [(0, 0), *((1 + s, 2 + s) for s in range(self.state))]


class GradientStep(Update, kernel="gradient_step"):
    """p - lr (g + weight_decay p)"""

    scalars: ClassVar[tuple[str, ...]] = ("lr", "weight_decay")

    def reference(self, p: Array, g: Array, lr: Array, weight_decay: Array) -> Sequence[Array]:
        return [p - lr * (g + weight_decay * p)]


@dataclass(frozen=True)
class SgdUpdate(Update, kernel="sgd_update"):
    """Stochastic gradient descent with momentum, as torch has it (no dampening).

    d = g + weight_decay p; v' = momentum v + d; p' = p - lr v', or with Nesterov's look-ahead
    p' = p - lr (d + momentum v'). Inputs p, g, v; outputs p', v'. Source: Sutskever et al. 2013.
    """

    state: ClassVar[int] = 1
    scalars: ClassVar[tuple[str, ...]] = ("lr", "momentum", "weight_decay")
    nesterov: bool = False

    def reference(
        self, p: Array, g: Array, v: Array, lr: Array, momentum: Array, weight_decay: Array
    ) -> Sequence[Array]:
        d = g + weight_decay * p
        new = momentum * v + d
        step = d + momentum * new if self.nesterov else new
        return p - lr * step, new


@dataclass(frozen=True)
class AdamWUpdate(Update, kernel="adamw_update"):
    """Adam with decoupled weight decay: Loshchilov and Hutter 2019, as torch.optim.AdamW.

    m' = beta1 m + (1 - beta1) g; v' = beta2 v + (1 - beta2) g^2; with the bias corrections
    c = 1 - beta^step: p' = p (1 - lr weight_decay) - lr (m' / c1) / (sqrt(v' / c2) + eps).
    Inputs p, g, m, v; outputs p', m', v'. `step` counts from 1; corrections are made in double.
    """

    state: ClassVar[int] = 2
    scalars: ClassVar[tuple[str, ...]] = ("lr", "weight_decay", "step")
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def reference(
        self,
        p: Array,
        g: Array,
        m: Array,
        v: Array,
        lr: Array,
        weight_decay: Array,
        step: Array,
    ) -> Sequence[Array]:
        new_m = self.beta1 * m + (1 - self.beta1) * g
        new_v = self.beta2 * v + (1 - self.beta2) * g * g
        count = float(step)
        mean = new_m / (1 - self.beta1**count)
        root = np.sqrt(new_v / (1 - self.beta2**count))
        return p * (1 - lr * weight_decay) - lr * mean / (root + self.eps), new_m, new_v
