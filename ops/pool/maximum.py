"""Maximum over windows of pixels, and its gradient."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from megbrain_py.dtypes import Array, DType, Layout, Shape, TensorType
from megbrain_py.errors import require
from megbrain_py.graph import Node, Operator, Var
from megbrain_py.ops.conv.geometry import Padding, Pair, check_window, padding4, pair, refuse
from megbrain_py.ops.pool.sizes import check_padding, pooled_size


@dataclass(frozen=True)
class MaxPooling(Operator):
    """Base of max-pooling and its gradient.

    `size` is the output's (height, width). Which pixel of its window (kernel row * kernel width +
    kernel column) won is kept for each output: one byte, as long as the kernel has at most 256.
    """

    size: Pair
    window: Pair
    stride: Pair
    padding: Padding
    dilation: Pair

    @property
    def index_type(self) -> DType:
        return DType.uint8 if self.window[0] * self.window[1] <= 256 else DType.int32

    def taps(self, source: Pair) -> Iterator[tuple[int, Array, Array, Array, Array]]:
        """For each window pixel: number, rows and columns (clipped), and which lie inside."""
        for number in range(self.window[0] * self.window[1]):
            place = divmod(number, self.window[1])
            rows, columns = (
                np.arange(self.size[axis]) * self.stride[axis]
                - self.padding[2 * axis]
                + place[axis] * self.dilation[axis]
                for axis in range(2)
            )
            inside_y, inside_x = (
                (rows >= 0) & (rows < source[0]),
                (columns >= 0) & (columns < source[1]),
            )
            clipped = np.clip(rows, 0, source[0] - 1), np.clip(columns, 0, source[1] - 1)
            yield number, *clipped, inside_y, inside_x


@dataclass(frozen=True)
class MaxPool2d(MaxPooling, kernel="max_pool2d"):
    """(largest value of each window, its place in the window). NaN wins; of equals the first."""

    def infer(self, x: TensorType) -> Sequence[TensorType]:
        require(x.rank == 4, f"x must be [N, C, H, W], has rank {x.rank}")
        require(x.dtype.is_float, f"x must be float, is {x.dtype}")
        check_window(self.window, self.stride, self.padding, self.dilation)
        check_padding(self.window, self.padding, self.dilation)
        shape = (*x.shape[:2], *self.size)
        return TensorType(shape, x.dtype), TensorType(shape, self.index_type)

    def layouts(self, inputs: Sequence[TensorType]) -> tuple[Sequence[Layout], Sequence[Layout]]:
        return ("channels_last",), ("channels_last", "channels_last")

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        op = MaxPool2dBackward(
            self.size, self.window, self.stride, self.padding, self.dilation, node.inputs[0].shape
        )
        return [op(dy[0], node.outputs[1])]

    def reference(self, x: Array) -> Sequence[Array]:
        y = np.full((*x.shape[:2], *self.size), -np.inf, x.dtype)
        index = np.zeros(y.shape, self.index_type.numpy)
        for number, rows, columns, inside_y, inside_x in self.taps((x.shape[2], x.shape[3])):
            inside = inside_y[:, None] & inside_x[None, :]
            value = np.where(inside, x[:, :, rows[:, None], columns[None, :]], -np.inf)
            better = (value > y) | np.isnan(value)
            y = np.where(better, value, y)
            index = np.where(better, number, index).astype(index.dtype)
        return y.astype(x.dtype), index


@dataclass(frozen=True)
class MaxPool2dBackward(MaxPooling, kernel="max_pool2d_backward"):
    """dx of shape `x_shape`: each dy goes to the pixel that won."""

    x_shape: Shape

    def infer(self, dy: TensorType, index: TensorType) -> TensorType:
        shape = (*self.x_shape[:2], *self.size)
        require(dy.shape == shape, f"dy must have shape {shape}, has {dy.shape}")
        require(dy.dtype.is_float, f"dy must be float, is {dy.dtype}")
        require(index.shape == shape, f"index must have shape {shape}, has {index.shape}")
        require(
            index.dtype == self.index_type, f"index must be {self.index_type}, is {index.dtype}"
        )
        return TensorType(self.x_shape, dy.dtype)

    def layouts(self, inputs: Sequence[TensorType]) -> tuple[Sequence[Layout], Sequence[Layout]]:
        return ("channels_last", "channels_last"), ("channels_last",)

    def reference(self, dy: Array, index: Array) -> Array:
        dx = np.zeros(self.x_shape, dy.dtype)
        for number, rows, columns, inside_y, inside_x in self.taps(
            (self.x_shape[2], self.x_shape[3])
        ):
            inside = inside_y[:, None] & inside_x[None, :]
            part = np.where(inside & (index == number), dy, 0)
            at: Any = (slice(None), slice(None), rows[:, None], columns[None, :])
            np.add.at(dx, at, part)
        return dx


def max_pool2d(
    x: Var,
    kernel: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
) -> Var:
    """Largest values of windows of x [N, C, H, W]: [N, C, H', W']. NaN wins.

    kernel, stride (None: the kernel), padding, dilation: pixels, as in conv2d; the padding never
    wins and is at most half of the kernel's reach. H' = (H + top + bottom - dilation * (kh - 1) -
    1) // stride + 1, rounded up instead with ceil_mode, when the last window still starts inside
    the image or the padding before it. The gradient goes to the first of equal values.
    Raises GraphError when no window fits.
    """
    name = "max_pool2d"
    if x.rank != 4:
        raise refuse(name, f"x must be [N, C, H, W], has rank {x.rank}")
    window, border = pair(name, "kernel", kernel), padding4(name, padding)
    steps = window if stride is None else pair(name, "stride", stride)
    holes = pair(name, "dilation", dilation)
    size = pooled_size(name, (x.shape[2], x.shape[3]), window, steps, border, holes, ceil_mode)
    result: Var = MaxPool2d(size, window, steps, border, holes)(x)[0]
    return result
