"""Per-channel affine maps: what the gradients of moments and normalise are made of.

Moments gives dx = 2 dm2 (x - mean) + dmean / n, Normalise gives dx = scale dy: each an operator of
its own, so that they compose when a collective stands between moments and normalise. Their sum is
one node after passes/fuse.py: dx is then written once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from megbrain_py.dtypes import Array, Layout, TensorType
from megbrain_py.errors import require
from megbrain_py.graph import constant
from megbrain_py.node import Node, Operator, Rewriter, Var
from megbrain_py.ops.binary import mul
from megbrain_py.ops.binary.binary import Add
from megbrain_py.ops.movement import reshape
from megbrain_py.ops.reduce import sum as sum_


def channel_shape(x: Array) -> tuple[int, ...]:
    """The shape under which a vector of channels broadcasts against x."""
    return (1, x.shape[1], *[1] * (x.ndim - 2))


def channel_sum(x: Var) -> Var:
    """Sum over all axes but 1."""
    return sum_(x, [a for a in range(x.rank) if a != 1])


def filled_like(x: Var, value: float) -> Var:
    """A constant of x's shape and type."""
    return constant(np.full(x.shape, value, x.dtype.numpy))


def check_channels(full: Sequence[TensorType], vectors: dict[str, TensorType]) -> None:
    """All of `full` are one float type of rank >= 2; all of `vectors` are [channels]."""
    x = full[0]
    require(x.dtype.is_float and x.rank >= 2, f"x must be a float tensor of rank >= 2, is {x}")
    for other in full[1:]:
        require(other == x, f"dy must be {x}, is {other}")
    for name, t in vectors.items():
        want = TensorType((x.shape[1],), x.dtype)
        require(t == want, f"{name} must be {want}, one number a channel, is {t}")


@dataclass(frozen=True)
class ChannelOperator(Operator):
    """Base: the first `full` inputs have x's shape, the others are vectors of channels.

    Images are channels_last; values of any other rank lie in rows.
    """

    full: ClassVar[int] = 1
    full_outputs: ClassVar[int] = 1  # outputs of x's shape, before those that are vectors

    def layouts(self, inputs: Sequence[TensorType]) -> tuple[Sequence[Layout], Sequence[Layout]]:
        image: Layout = "channels_last" if inputs[0].rank == 4 else "rows"
        wanted: list[Layout] = [image if i < self.full else "rows" for i in range(len(inputs))]
        outputs = range(len(self.output_types(inputs)))
        return wanted, [image if o < self.full_outputs else "rows" for o in outputs]

    def may_overwrite(
        self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]
    ) -> Sequence[tuple[int, int]]:
        return [(0, i) for i in range(self.full)] if self.full_outputs else []


def scale_of_step(node: Node, inputs: tuple[Var, ...]) -> Sequence[Var] | None:
    """ChannelScale of an elementwise value -> the same as a product, which can join its chain."""
    if not isinstance(node.op, ChannelScale):
        return None
    dy, scale = inputs
    if not dy.node.op.elementwise or dy.node.op.random:
        return None
    again: Var = dy.node.op(*dy.node.inputs)
    return [mul(again, reshape(scale, (-1, *[1] * (dy.rank - 2))))]


class ChannelScale(ChannelOperator, kernel="channel_scale"):
    """scale dy"""

    absorbs: ClassVar[Sequence[Rewriter]] = (scale_of_step,)

    def infer(self, dy: TensorType, scale: TensorType) -> TensorType:
        check_channels([dy], {"scale": scale})
        return dy

    def grad(self, node: Node, *dz: Any) -> Sequence[Var | None]:
        dy, scale = node.inputs
        return [ChannelScale()(dz[0], scale), channel_sum(mul(dz[0], dy))]

    def reference(self, dy: Array, scale: Array) -> Array:
        y: Array = dy * scale.reshape(channel_shape(dy))
        return y


def fuse_affine_sum(node: Node, inputs: tuple[Var, ...]) -> Sequence[Var] | None:
    """ChannelScale + ChannelAffine of one shape -> ChannelAffineSum."""
    if not isinstance(node.op, Add) or inputs[0].type != inputs[1].type:
        return None
    for a, b in (inputs, inputs[::-1]):
        if isinstance(a.node.op, ChannelScale) and isinstance(b.node.op, ChannelAffine):
            dy, dy_scale = a.node.inputs
            x, *affine = b.node.inputs
            return [ChannelAffineSum()(dy, x, dy_scale, *affine)]
    return None


class ChannelAffine(ChannelOperator, kernel="channel_affine"):
    """scale (x - center) + shift"""

    rewrites: ClassVar[Sequence[Rewriter]] = (fuse_affine_sum,)

    def infer(
        self, x: TensorType, scale: TensorType, center: TensorType, shift: TensorType
    ) -> TensorType:
        check_channels([x], {"scale": scale, "center": center, "shift": shift})
        return x

    def grad(self, node: Node, *dz: Any) -> Sequence[Var | None]:
        x, scale, center, _ = node.inputs
        total = channel_sum(dz[0])
        ones, zeros = filled_like(scale, 1.0), filled_like(scale, 0.0)
        centred = ChannelAffine()(x, ones, center, zeros)
        dscale = channel_sum(mul(dz[0], centred))
        return [ChannelScale()(dz[0], scale), dscale, mul(mul(total, scale), -1.0), total]

    def reference(self, x: Array, scale: Array, center: Array, shift: Array) -> Array:
        s = channel_shape(x)
        y: Array = scale.reshape(s) * (x - center.reshape(s)) + shift.reshape(s)
        return y


class ChannelAffineSum(ChannelOperator, kernel="channel_affine_sum"):
    """dy_scale dy + scale (x - center) + shift: made by fusion only."""

    full: ClassVar[int] = 2

    def infer(
        self,
        dy: TensorType,
        x: TensorType,
        dy_scale: TensorType,
        scale: TensorType,
        center: TensorType,
        shift: TensorType,
    ) -> TensorType:
        vectors = {"dy_scale": dy_scale, "scale": scale, "center": center, "shift": shift}
        check_channels([dy, x], vectors)
        return dy

    def grad(self, node: Node, *dz: Any) -> Sequence[Var | None]:
        dy, x, dy_scale, scale, center, shift = node.inputs
        first = ChannelScale()(dy, dy_scale).node
        second = ChannelAffine()(x, scale, center, shift).node
        to_dy = first.op.grad(first, dz[0])
        to_x = second.op.grad(second, dz[0])
        return [to_dy[0], to_x[0], to_dy[1], *to_x[1:]]

    def reference(
        self, dy: Array, x: Array, dy_scale: Array, scale: Array, center: Array, shift: Array
    ) -> Array:
        s = channel_shape(x)
        affine = scale.reshape(s) * (x - center.reshape(s)) + shift.reshape(s)
        y: Array = dy_scale.reshape(s) * dy + affine
        return y
