"""Batch norm: moments and normalise as separate nodes, so that ranks can merge moments between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from megbrain_py.dtypes import Array, TensorType
from megbrain_py.errors import GraphError, require
from megbrain_py.graph import constant
from megbrain_py.node import Node, Rewriter, Var, describe, user_origin
from megbrain_py.ops.batch_norm.channel_maps import (
    ChannelAffine,
    ChannelOperator,
    ChannelScale,
    channel_shape,
    channel_sum,
    check_channels,
    filled_like,
)
from megbrain_py.ops.batch_norm.joined import NormaliseJoined, ReluNormaliseSums, relu_of_norm
from megbrain_py.ops.binary import add, div, maximum, minimum, mul, pow, sub
from megbrain_py.ops.binary.binary import Add
from megbrain_py.ops.collective import all_reduce, all_reduce_together, merge_moments
from megbrain_py.ops.stop_gradient import stop_gradient
from megbrain_py.ops.unary import square
from megbrain_py.ops.unary.activations import Relu
from megbrain_py.ranks import Group


def _other_axes(x: Array) -> tuple[int, ...]:
    return tuple(a for a in range(x.ndim) if a != 1)


class Moments(ChannelOperator, kernel="channel_moments"):
    """Mean over all axes but 1, and the sum of squared deviations from it (Welford's M2).

    Deviations are summed from each block's own mean and blocks are merged by Chan's formula: no
    E[x^2] - E[x]^2 cancellation, and the order does not depend on the threads.
    Source: Chan, Golub, LeVeque, "Updating formulae ... sample variances" (1979).
    """

    full_outputs: ClassVar[int] = 0
    once: ClassVar[bool] = True

    def infer(self, x: TensorType) -> Sequence[TensorType]:
        check_channels([x], {})
        vector = TensorType((x.shape[1],), x.dtype)
        return vector, vector

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        (x,) = node.inputs
        mean, m2 = node.outputs
        dmean, dm2 = dy
        zero = filled_like(m2, 0.0)
        count = max(x.type.count // max(x.shape[1], 1), 1)
        scale = zero if dm2 is None else mul(dm2, 2.0)
        shift = zero if dmean is None else mul(dmean, 1.0 / count)
        return [ChannelAffine()(x, scale, mean, shift)]

    def reference(self, x: Array) -> Sequence[Array]:
        count = max(x.size // max(x.shape[1], 1), 1)
        mean = x.sum(axis=_other_axes(x)) / count
        m2 = np.square(x - mean.reshape(channel_shape(x))).sum(axis=_other_axes(x))
        return mean, m2


def _joined(node: Node) -> NormaliseJoined | None:
    """The operator of a norm as a joined one, if it is a norm."""
    if isinstance(node.op, Normalise):
        return NormaliseJoined(node.op.eps)
    return node.op if isinstance(node.op, NormaliseJoined) else None


def join_sum(node: Node, inputs: tuple[Var, ...]) -> Sequence[Var] | None:
    """normalise(x) + residual of one type -> NormaliseJoined."""
    if not isinstance(node.op, Add) or inputs[0].type != inputs[1].type:
        return None
    for y, residual in (inputs, inputs[::-1]):
        op = _joined(y.node)
        if op is not None and not op.residual and not op.relu:
            x, *vectors = y.node.inputs
            return [replace(op, residual=True)(x, residual, *vectors)]
    return None


def join_relu(node: Node, inputs: tuple[Var, ...]) -> Sequence[Var] | None:
    """relu(normalise(x) (+ residual)) -> NormaliseJoined."""
    if not isinstance(node.op, Relu):
        return None
    op = _joined(inputs[0].node)
    if op is None or op.relu:
        return None
    return [replace(op, relu=True)(*inputs[0].node.inputs)]


@dataclass(frozen=True)
class Normalise(ChannelOperator, kernel="channel_normalise"):
    """(x - mean) / sqrt(var + eps) * gamma + beta"""

    rewrites: ClassVar[Sequence[Rewriter]] = (join_sum, join_relu)
    eps: float

    def infer(
        self, x: TensorType, mean: TensorType, var: TensorType, gamma: TensorType, beta: TensorType
    ) -> TensorType:
        check_channels([x], {"mean": mean, "var": var, "gamma": gamma, "beta": beta})
        require(self.eps >= 0, f"eps must not be negative, is {self.eps}")
        return x

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        x, mean, var, gamma, _ = node.inputs
        dgamma, dbeta = NormaliseSums(self.eps)(x, dy[0], mean, var)
        inverse = pow(add(var, self.eps), -0.5)
        scale = mul(gamma, inverse)
        dmean = mul(mul(scale, dbeta), -1.0)
        dvar = mul(mul(scale, inverse), mul(dgamma, -0.5))
        return [ChannelScale()(dy[0], scale), dmean, dvar, dgamma, dbeta]

    def reference(self, x: Array, mean: Array, var: Array, gamma: Array, beta: Array) -> Array:
        s = channel_shape(x)
        scale = (gamma / np.sqrt(var + self.eps)).reshape(s)
        return (x - mean.reshape(s)) * scale + beta.reshape(s)


def sums_with_relu(node: Node, inputs: tuple[Var, ...]) -> Sequence[Var] | None:
    """NormaliseSums of a ReLU's gradient -> ReluNormaliseSums."""
    if not isinstance(node.op, NormaliseSums):
        return None
    x, dz, mean, var = inputs
    found = relu_of_norm(x, dz)
    if found is None or found[0] != node.op.eps or found[2][:2] != [mean, var]:
        return None
    return list(ReluNormaliseSums(node.op.eps)(x, found[1], *found[2]))


@dataclass(frozen=True)
class NormaliseSums(ChannelOperator, kernel="channel_normalise_sums"):
    """The reductions of normalise's gradient, in one pass over x and dy.

    dgamma = sum of dy (x - mean) / sqrt(var + eps), dbeta = sum of dy.
    """

    full: ClassVar[int] = 2
    full_outputs: ClassVar[int] = 0
    absorbs: ClassVar[Sequence[Rewriter]] = (sums_with_relu,)
    eps: float

    def infer(
        self, x: TensorType, dy: TensorType, mean: TensorType, var: TensorType
    ) -> Sequence[TensorType]:
        check_channels([x, dy], {"mean": mean, "var": var})
        return mean, mean

    def grad(self, node: Node, *dz: Any) -> Sequence[Var | None]:
        x, dy, mean, var = node.inputs
        zero = filled_like(mean, 0.0)
        ddgamma = zero if dz[0] is None else dz[0]
        ddbeta = zero if dz[1] is None else dz[1]
        inverse = pow(add(var, self.eps), -0.5)
        scale = mul(ddgamma, inverse)
        dmean = mul(mul(scale, channel_sum(dy)), -1.0)
        dvar = mul(mul(ddgamma, node.outputs[0]), mul(mul(inverse, inverse), -0.5))
        return [
            ChannelScale()(dy, scale), ChannelAffine()(x, scale, mean, ddbeta), dmean, dvar,
        ]  # fmt: skip

    def reference(self, x: Array, dy: Array, mean: Array, var: Array) -> Sequence[Array]:
        s = channel_shape(x)
        normalised = (x - mean.reshape(s)) / np.sqrt(var + self.eps).reshape(s)
        return (dy * normalised).sum(axis=_other_axes(x)), dy.sum(axis=_other_axes(x))


def moments(x: Var) -> tuple[Var, Var]:
    """(mean[C], m2[C]) of x `[N, C, ...]` over all axes but 1; m2 sums squared deviations."""
    mean, m2 = Moments()(x)
    return mean, m2


def moments_over(x: Var, group: Group, *, two_pass: bool = False) -> tuple[Var, Var, Var]:
    """(count[1], mean[C], m2[C]) of the values that all ranks of the group hold together.

    Ranks may hold different numbers of images, and none. One collective of the ranks' own moments;
    two_pass: as MegDet's paper has it, the sums first, then the sums of squared deviations from the
    common mean: two collectives and one more walk over x.
    """
    own = constant(np.full(1, x.type.count // max(x.shape[1], 1), x.dtype.numpy))
    if not two_pass:
        return merge_moments(own, *moments(x), group)
    count, total = all_reduce_together([own, channel_sum(x)], group)
    count = stop_gradient(count)
    mean = div(total, maximum(count, 1.0))
    # The deviations add up to 0, so m2 does not change with the mean.
    fixed = stop_gradient(mean)
    centred = ChannelAffine()(x, filled_like(mean, 1.0), fixed, filled_like(mean, 0.0))
    return count, mean, all_reduce(channel_sum(square(centred)), group=group)


def normalise(x: Var, mean: Var, var: Var, gamma: Var, beta: Var, eps: float = 1e-5) -> Var:
    """(x - mean) / sqrt(var + eps) * gamma + beta for each channel (axis 1) of x."""
    result: Var = Normalise(eps)(x, mean, var, gamma, beta)
    return result


def batch_norm(
    x: Var,
    gamma: Var,
    beta: Var,
    running_mean: Var,
    running_var: Var,
    *,
    training: bool,
    momentum: float = 0.1,
    eps: float = 1e-5,
    group: Group | None = None,
    two_pass: bool = False,
) -> tuple[Var, Var, Var]:
    """Batch norm of x `[N, C, ...]`: (y, new running mean, new running variance).

    training: normalises by the batch's mean and biased variance; the running values move by
    `momentum` towards the batch's mean and unbiased variance (torch's rule). Otherwise normalises
    by the running values and returns them as they are. Raises GraphError for a training batch with
    fewer than two values a channel. Source: Ioffe and Szegedy 2015.

    group: ranks whose batches have their moments in common, in training (see `moments_over` for
    two_pass). Their running values stay equal. Source: Peng et al., MegDet, 2018.
    """
    if not training:
        return normalise(x, running_mean, running_var, gamma, beta, eps), running_mean, running_var
    if group is not None and len(set(group.colors)) < len(group.colors):
        return _over_group(
            x, gamma, beta, running_mean, running_var, momentum, eps,
            moments_over(x, group, two_pass=two_pass),
        )  # fmt: skip
    mean, m2 = moments(x)
    count = x.type.count // max(x.shape[1], 1)
    if count < 2:
        raise GraphError(
            f"batch_norm: expected at least 2 values a channel to train, found {count}\n"
            f"  {describe(x)}\n  at {user_origin()}"
        )
    y = normalise(x, mean, mul(m2, 1.0 / count), gamma, beta, eps)
    new_mean = add(mul(running_mean, 1.0 - momentum), mul(mean, momentum))
    unbiased = mul(m2, momentum / (count - 1))
    return y, new_mean, add(mul(running_var, 1.0 - momentum), unbiased)


def _over_group(
    x: Var, gamma: Var, beta: Var, running_mean: Var, running_var: Var, momentum: float,
    eps: float, merged: tuple[Var, Var, Var],
) -> tuple[Var, Var, Var]:  # fmt: skip
    """Batch norm by moments whose count is known in the run only; running values that no image
    has touched stay as they are."""
    count, mean, m2 = merged
    y = normalise(x, mean, div(m2, maximum(count, 1.0)), gamma, beta, eps)
    rate = mul(minimum(count, 1.0), momentum)
    keep = sub(1.0, rate)
    unbiased = div(m2, maximum(sub(count, 1.0), 1.0))
    new_mean = add(mul(running_mean, keep), mul(mean, rate))
    return y, new_mean, add(mul(running_var, keep), mul(unbiased, rate))
