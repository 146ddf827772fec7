"""Two-dimensional convolution, its two gradients, and transposed convolution."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from megbrain_py.dtypes import Array, Layout, Shape, TensorType
from megbrain_py.errors import require
from megbrain_py.graph import Node, Operator, Rewriter, Var
from megbrain_py.ops.binary import add, greater
from megbrain_py.ops.conv.algorithm import (
    CONVOLUTION,
    WEIGHT_GRADIENT,
    Costs,
    choose_gemm,
    choose_winograd,
    fits_winograd,
    require_algorithm,
)
from megbrain_py.ops.conv.geometry import Padding, Pair, padding4, pair, refuse, window_sizes
from megbrain_py.ops.movement import reshape
from megbrain_py.ops.reduce import broadcast_to
from megbrain_py.ops.unary.activations import Relu


@dataclass(frozen=True)
class Convolution(Operator):
    """Base of convolution and its gradients: the geometry they share.

    padding is (top, bottom, left, right). In all three, x is [N, C, H, W], the weights w are
    [O, C/groups, kh, kw] and y is [N, O, H', W'] with
    y[n,o,i,j] = sum over c, a, b of w[o,c,a,b] * x[n, c, i*stride + a*dilation - padding, ...].
    algorithm: "direct", "winograd", or "auto": the faster one (algorithm.py).
    """

    stride: Pair
    padding: Padding
    dilation: Pair
    groups: int
    algorithm: str = field(default="auto", kw_only=True)
    costs: ClassVar[Costs] = CONVOLUTION

    def y_shape(self, x: Shape, w: Shape) -> Shape:
        """Shape of the convolution's output; refuses what does not fit."""
        require(len(x) == 4, f"x must be [N, C, H, W], has rank {len(x)}")
        require(len(w) == 4, f"w must be [O, C/groups, kh, kw], has rank {len(w)}")
        require(self.groups >= 1, f"groups must be at least 1, is {self.groups}")
        require(x[1] >= 1 and w[0] >= 1, f"there are no channels: x has {x[1]}, w gives {w[0]}")
        expected = w[1] * self.groups
        require(x[1] == expected, f"w expects {expected} input channels, x has {x[1]}")
        require(
            w[0] % self.groups == 0,
            f"{w[0]} output channels do not split into {self.groups} groups",
        )
        size = window_sizes(x[2:], (w[2], w[3]), self.stride, self.padding, self.dilation)
        require_algorithm(self.algorithm, self.fits_winograd(w))
        return (x[0], w[0], *size)

    def operator(self, kind: Any, **fields: Any) -> Any:
        """An operator of the family with this geometry."""
        return kind(
            stride=self.stride, padding=self.padding, dilation=self.dilation, groups=self.groups,
            algorithm=self.algorithm, **fields,
        )  # fmt: skip

    def fits_winograd(self, w: Shape) -> bool:
        """Can Winograd's algorithm compute this with weights of shape w?"""
        return fits_winograd(w[2:], self.stride, self.padding, self.dilation, self.groups)

    def kernel_for(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> str:
        if self.algorithm == "direct":
            return self.kernel
        x, w, tiled = self.signature(inputs, outputs)
        if self.algorithm == "auto":
            fits = self.fits_winograd(w)
            if not (fits and choose_winograd(x, w, tiled, self.costs)):
                return self.direct_kernel(x, w)
        return self.variants[0]

    def direct_kernel(self, images: TensorType, w: Shape) -> str:
        """The fastest kernel that makes every multiplication."""
        return self.kernel

    def signature(
        self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]
    ) -> tuple[TensorType, Shape, Shape]:
        """Type of the images, shape of w, shape of what Winograd's algorithm cuts into tiles."""
        return inputs[0], inputs[1].shape, outputs[0].shape

    def layouts(self, inputs: Sequence[TensorType]) -> tuple[Sequence[Layout], Sequence[Layout]]:
        wanted: tuple[Layout, ...] = ("channels_last", "rows", "rows")
        return wanted[: len(inputs)], ("channels_last",)

    def flops_of(self, y: Shape, w: Shape) -> int:
        """Two for each output element and weight that it meets, padding included; all three."""
        return 2 * math.prod(y) * math.prod(w[1:])

    # --- for the references ---

    def padded(self, x: Array) -> Array:
        """x with its border of zeros."""
        top, bottom, left, right = self.padding
        return np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))

    def taps(self, kernel: Shape, size: Shape) -> Iterator[tuple[int, int, tuple[slice, slice]]]:
        """For each kernel element (a, b) the pixels of the padded x that it meets."""
        for a in range(kernel[0]):
            for b in range(kernel[1]):
                starts = a * self.dilation[0], b * self.dilation[1]
                rows, columns = (
                    slice(at, at + (n - 1) * step + 1, step)
                    for at, n, step in zip(starts, size, self.stride, strict=True)
                )
                yield a, b, (rows, columns)

    def grouped(self, x: Array, axis: int) -> Array:
        """x with its channel axis split into (groups, channels of a group)."""
        shape = list(x.shape)
        shape[axis : axis + 1] = [self.groups, shape[axis] // self.groups]
        return x.reshape(shape)


def _require_floats(*types: TensorType) -> None:
    require(
        all(t.dtype.is_float and t.dtype == types[0].dtype for t in types),
        f"all inputs must have one float type, are {', '.join(str(t.dtype) for t in types)}",
    )


def join_relu(node: Node, inputs: tuple[Var, ...]) -> Sequence[Var] | None:
    """relu(conv(x, w) + bias) as one node, where Winograd's kernel is taken.

    Not elsewhere: oneDNN's ReLU turns NaN into 0, and a network that diverges must be seen to.
    """
    if not isinstance(node.op, Relu) or not isinstance(inputs[0].node.op, Conv2d):
        return None
    conv = inputs[0].node
    op = replace(inputs[0].node.op, activation="relu")
    types = [v.type for v in conv.inputs]
    wanted, given = op.layouts(types)  # those that the layout pass will give
    kernel = op.kernel_for(
        [t.with_layout(layout) for t, layout in zip(types, wanted, strict=True)],
        [inputs[0].type.with_layout(given[0])],
    )
    if kernel == op.kernel:
        return None
    result: Var = op(*conv.inputs)
    return [result]


@dataclass(frozen=True)
class Conv2d(Convolution, kernel="conv2d", variants=("conv2d_winograd",)):
    """y = conv(x, w) (+ bias) (then the activation, when one is fused in: "relu")."""

    activation: str | None = None
    rewrites: ClassVar[Sequence[Rewriter]] = (join_relu,)

    def infer(self, x: TensorType, w: TensorType, *bias: TensorType) -> TensorType:
        require(len(bias) <= 1, f"takes x, w and one bias, found {2 + len(bias)} inputs")
        _require_floats(x, w, *bias)
        shape = self.y_shape(x.shape, w.shape)
        for b in bias:
            require(b.shape == (shape[1],), f"bias must have shape ({shape[1]},), has {b.shape}")
        require(self.activation in (None, "relu"), f"unknown activation {self.activation!r}")
        return TensorType(shape, x.dtype)

    def flops(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> int:
        return self.flops_of(outputs[0].shape, inputs[1].shape)

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        x, w = node.inputs[:2]
        dz: Var = dy[0]
        if self.activation == "relu":
            from megbrain_py.ops.select import where  # a room that only fused graphs need

            dz = where(greater(node.outputs[0], 0), dz, 0)
        dx = self.operator(Conv2dBackwardData, x_shape=x.shape)(dz, w)
        dw = self.operator(Conv2dBackwardWeights, w_shape=w.shape)(x, dz)
        return [dx, dw, *(ChannelSum()(dz) for _ in node.inputs[2:])]

    def reference(self, x: Array, w: Array, *bias: Array) -> Array:
        shape = self.y_shape(x.shape, w.shape)
        source, weights = self.grouped(self.padded(x), 1), self.grouped(w, 0)
        y = np.zeros((x.shape[0], self.groups, shape[1] // self.groups, *shape[2:]), x.dtype)
        for a, b, (rows, columns) in self.taps(w.shape[2:], shape[2:]):
            pixels = source[..., rows, columns]
            y += np.einsum("ngchw,goc->ngohw", pixels, weights[..., a, b], optimize=True)
        y = y.reshape(shape)
        for offset in bias:
            y = y + offset[:, None, None]
        return np.maximum(y, 0) if self.activation == "relu" else y


@dataclass(frozen=True)
class Conv2dBackwardData(
    Convolution, kernel="conv2d_backward_data", variants=("conv2d_backward_data_winograd",)
):
    """dx of shape `x_shape` from dy and w: the adjoint of the convolution in x."""

    x_shape: Shape

    def infer(self, dy: TensorType, w: TensorType) -> TensorType:
        _require_floats(dy, w)
        shape = self.y_shape(self.x_shape, w.shape)
        require(dy.shape == shape, f"dy must have shape {shape}, has {dy.shape}")
        return TensorType(self.x_shape, dy.dtype)

    def flops(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> int:
        return self.flops_of(inputs[0].shape, inputs[1].shape)

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        w = node.inputs[1]
        ddy = self.operator(Conv2d)(dy[0], w)
        return [ddy, self.operator(Conv2dBackwardWeights, w_shape=w.shape)(dy[0], node.inputs[0])]

    def reference(self, dy: Array, w: Array) -> Array:
        top, bottom, left, right = self.padding
        batch, channels, height, width = self.x_shape
        dx = np.zeros(
            (batch, self.groups, channels // self.groups, height + top + bottom,
             width + left + right), dy.dtype,
        )  # fmt: skip
        source, weights = self.grouped(dy, 1), self.grouped(w, 0)
        for a, b, (rows, columns) in self.taps(w.shape[2:], dy.shape[2:]):
            dx[..., rows, columns] += np.einsum(
                "ngohw,goc->ngchw", source, weights[..., a, b], optimize=True
            )
        inner = dx[..., top : top + height, left : left + width]
        return np.ascontiguousarray(inner).reshape(self.x_shape)


@dataclass(frozen=True)
class Conv2dBackwardWeights(
    Convolution,
    kernel="conv2d_backward_weights",
    variants=("conv2d_backward_weights_winograd", "conv2d_backward_weights_gemm"),
):
    """dw of shape `w_shape` from x and dy: the adjoint of the convolution in w."""

    w_shape: Shape
    costs: ClassVar[Costs] = WEIGHT_GRADIENT

    def infer(self, x: TensorType, dy: TensorType) -> TensorType:
        _require_floats(x, dy)
        shape = self.y_shape(x.shape, self.w_shape)
        require(dy.shape == shape, f"dy must have shape {shape}, has {dy.shape}")
        return TensorType(self.w_shape, x.dtype)

    def layouts(self, inputs: Sequence[TensorType]) -> tuple[Sequence[Layout], Sequence[Layout]]:
        return ("channels_last", "channels_last"), ("rows",)

    def signature(
        self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]
    ) -> tuple[TensorType, Shape, Shape]:
        return inputs[0], self.w_shape, inputs[1].shape

    def direct_kernel(self, images: TensorType, w: Shape) -> str:
        return self.variants[1] if choose_gemm(images, w, self.groups) else self.kernel

    def flops(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> int:
        return self.flops_of(inputs[1].shape, self.w_shape)

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        x, dz = node.inputs
        dx = self.operator(Conv2dBackwardData, x_shape=x.shape)(dz, dy[0])
        return [dx, self.operator(Conv2d)(x, dy[0])]

    def reference(self, x: Array, dy: Array) -> Array:
        source, target = self.grouped(self.padded(x), 1), self.grouped(dy, 1)
        dw = self.grouped(np.zeros(self.w_shape, x.dtype), 0)
        for a, b, (rows, columns) in self.taps(self.w_shape[2:], dy.shape[2:]):
            pixels = source[..., rows, columns]
            dw[..., a, b] = np.einsum("ngchw,ngohw->goc", pixels, target, optimize=True)
        return dw.reshape(self.w_shape)


@dataclass(frozen=True)
class ChannelSum(Operator, kernel="channel_sum"):
    """[N, C, H, W] -> [C], the sum over images and pixels: the gradient of a bias."""

    def infer(self, x: TensorType) -> TensorType:
        require(x.rank == 4 and x.dtype.is_float, f"x must be float [N, C, H, W], is {x}")
        return TensorType((x.shape[1],), x.dtype)

    def layouts(self, inputs: Sequence[TensorType]) -> tuple[Sequence[Layout], Sequence[Layout]]:
        return (inputs[0].layout,), ("rows",)

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        return [broadcast_to(reshape(dy[0], (-1, 1, 1)), node.inputs[0].shape)]

    def reference(self, x: Array) -> Array:
        return np.asarray(x.sum(axis=(0, 2, 3)))


def conv2d(
    x: Var,
    w: Var,
    bias: Var | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    algorithm: str = "auto",
) -> Var:
    """Cross-correlation of images x [N, C, H, W] with w [O, C/groups, kh, kw]: [N, O, H', W'].

    stride, dilation: pixels, one or (vertical, horizontal). padding: pixels of zeros, one,
    (vertical, horizontal) or (top, bottom, left, right). bias: [O].
    H' = (H + top + bottom - dilation * (kh - 1) - 1) // stride + 1; W' likewise.
    algorithm: "direct", "winograd" (3x3, stride and dilation 1, padding <= 2, one group; rounding
    errors are about twice as large), or "auto": whatever is estimated to be faster for the shapes,
    always the same for the same shapes. The gradients use it too.
    Raises GraphError when channels do not fit or the output would have no pixels; N may be 0.
    """
    name = "conv2d"
    op = Conv2d(
        pair(name, "stride", stride), padding4(name, padding), pair(name, "dilation", dilation),
        groups, algorithm=algorithm,
    )  # fmt: skip
    result: Var = op(x, w) if bias is None else op(x, w, bias)
    return result


def conv_transpose2d(
    x: Var,
    w: Var,
    bias: Var | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
    dilation: int | Sequence[int] = 1,
) -> Var:
    """The adjoint of conv2d: x [N, C, H, W], w [C, O/groups, kh, kw], bias [O] -> [N, O, H', W'].

    H' = (H - 1) * stride - top - bottom + dilation * (kh - 1) + output_padding + 1.
    output_padding (0 <= output_padding < stride) picks one of the sizes that conv2d maps to H.
    Raises GraphError when channels do not fit or the output would have no pixels.
    """
    name = "conv_transpose2d"
    if x.rank != 4 or w.rank != 4:
        raise refuse(name, f"x and w must have rank 4, have shapes {x.shape} and {w.shape}")
    if x.shape[1] != w.shape[0]:
        raise refuse(name, f"w expects {w.shape[0]} input channels, x has {x.shape[1]}")
    steps, holes = pair(name, "stride", stride), pair(name, "dilation", dilation)
    border, extra = padding4(name, padding), pair(name, "output_padding", output_padding)
    if not all(0 <= e < s for e, s in zip(extra, steps, strict=True)):
        raise refuse(name, f"output_padding {extra} must be at least 0 and below stride {steps}")
    size = [
        (x.shape[2 + a] - 1) * steps[a] - border[2 * a] - border[2 * a + 1]
        + holes[a] * (w.shape[2 + a] - 1) + extra[a] + 1
        for a in range(2)
    ]  # fmt: skip
    if min(size) < 1:
        raise refuse(name, f"the output would be empty: {size[0]}x{size[1]} pixels")
    shape = (x.shape[0], w.shape[1] * groups, size[0], size[1])
    result: Var = Conv2dBackwardData(steps, border, holes, groups, shape)(x, w)
    if bias is None:
        return result
    if bias.shape != (shape[1],):
        raise refuse(name, f"bias must have shape ({shape[1]},), has {bias.shape}")
    return add(result, reshape(bias, (shape[1], 1, 1)))
