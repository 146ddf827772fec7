"""Soft clipping, limit * tanh(x / limit): close to x near 0, never beyond the limit.

Called soft-capping of logits in Gemma 2 (2024). As an operator it is one node instead of three,
with kernels of one sweep, and its gradient needs nothing but the output.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

import megbrain_py as mb
from megbrain_py.dtypes import Array
from megbrain_py.errors import require


@dataclass(frozen=True)
class SoftClip(mb.Operator, kernel="soft_clip"):
    """limit * tanh(x / limit)"""

    limit: float
    elementwise: ClassVar[bool] = True

    def infer(self, x: mb.TensorType) -> mb.TensorType:
        require(x.dtype.is_float, f"x must be a float tensor, is {x.dtype}")
        require(self.limit > 0, f"limit must be above 0, is {self.limit}")
        return x

    def grad(self, node: mb.Node, *dy: Any) -> Sequence[mb.Var | None]:
        return [SoftClipGrad(self.limit)(node.outputs[0], dy[0])]

    def reference(self, x: Array) -> Array:
        limit = x.dtype.type(self.limit)
        return limit * np.tanh(x / limit)


@dataclass(frozen=True)
class SoftClipGrad(mb.Operator, kernel="soft_clip_grad"):
    """dy * (1 - (y / limit)^2), of the output y: the input's memory is free sooner."""

    limit: float
    elementwise: ClassVar[bool] = True

    def infer(self, y: mb.TensorType, dy: mb.TensorType) -> mb.TensorType:
        require(y == dy, f"dy must be {y}, is {dy}")
        return y

    def grad(self, node: mb.Node, *dy: Any) -> Sequence[mb.Var | None]:
        y, inner = node.inputs
        curve = y * (-2 / self.limit**2)
        return [dy[0] * inner * curve, self(y, dy[0])]  # linear in dy

    def reference(self, y: Array, dy: Array) -> Array:
        share = y / y.dtype.type(self.limit)
        return dy * (1 - share * share)


def soft_clip(x: mb.Var, limit: float = 1.0) -> mb.Var:
    """limit * tanh(x / limit), limit > 0. float, any shape."""
    y: mb.Var = SoftClip(float(limit))(x)
    return y
