"""Sizes of pooled images."""

from __future__ import annotations

from megbrain_py.errors import Mismatch, require
from megbrain_py.ops.conv.geometry import Padding, Pair, check_window, refuse


def check_padding(kernel: Pair, padding: Padding, dilation: Pair) -> None:
    """Refuse windows that could lie wholly in the padding."""
    for axis in range(2):
        reach = dilation[axis] * (kernel[axis] - 1) + 1
        require(
            max(padding[2 * axis : 2 * axis + 2]) <= reach // 2,
            f"padding {padding} is more than half of the kernel {kernel}",
        )


def pooled_size(
    operator: str, size: Pair, kernel: Pair, stride: Pair, padding: Padding, dilation: Pair,
    ceil_mode: bool,
) -> Pair:  # fmt: skip
    """(height, width) of the output, or a GraphError when no window fits."""
    try:
        check_window(kernel, stride, padding, dilation)
        check_padding(kernel, padding, dilation)
    except Mismatch as error:
        raise refuse(operator, str(error)) from None
    sizes = []
    for axis in range(2):
        before, after = padding[2 * axis : 2 * axis + 2]
        room = size[axis] + before + after - dilation[axis] * (kernel[axis] - 1) - 1
        if size[axis] < 1 or room < 0:
            raise refuse(
                operator, f"kernel {kernel} does not fit into images of {size[0]}x{size[1]} pixels"
            )
        count = room // stride[axis] + 1
        if ceil_mode and room % stride[axis] and count * stride[axis] < size[axis] + before:
            count += 1
        sizes.append(count)
    return sizes[0], sizes[1]
