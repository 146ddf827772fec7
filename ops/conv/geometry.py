"""What convolution and pooling share: strides, paddings, dilations and the sizes they give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from megbrain_py.errors import GraphError, require
from megbrain_py.graph import user_origin

Pair: TypeAlias = tuple[int, int]
Padding: TypeAlias = tuple[int, int, int, int]  # top, bottom, left, right


def refuse(operator: str, message: str) -> GraphError:
    """The error of a public function whose arguments cannot even become attributes."""
    return GraphError(f"{operator}: {message}\n  at {user_origin()}")


def pair(operator: str, name: str, value: int | Sequence[int]) -> Pair:
    """(vertical, horizontal) from one integer or two."""
    listed = (
        (value, value) if isinstance(value, (int, np.integer)) else tuple(int(n) for n in value)
    )
    if len(listed) != 2:
        raise refuse(operator, f"{name} must be an integer or a pair, is {value!r}")
    return listed[0], listed[1]


def padding4(operator: str, value: int | Sequence[int]) -> Padding:
    """(top, bottom, left, right) from one integer, (vertical, horizontal), or all four."""
    listed = (
        (value, value) if isinstance(value, (int, np.integer)) else tuple(int(n) for n in value)
    )
    if len(listed) == 2:
        return listed[0], listed[0], listed[1], listed[1]
    if len(listed) != 4:
        raise refuse(
            operator,
            f"padding must be an integer, (vertical, horizontal) or (top, bottom, left, right), "
            f"is {value!r}",
        )
    return listed[0], listed[1], listed[2], listed[3]


def check_window(kernel: Pair, stride: Pair, padding: Padding, dilation: Pair) -> None:
    """Refuse sizes that make no sense."""
    require(min(kernel) >= 1, f"the kernel must be at least 1x1, is {kernel[0]}x{kernel[1]}")
    require(min(stride) >= 1, f"stride must be at least 1, is {stride}")
    require(min(dilation) >= 1, f"dilation must be at least 1, is {dilation}")
    require(min(padding) >= 0, f"padding must not be negative, is {padding}")


def window_sizes(
    size: Sequence[int], kernel: Pair, stride: Pair, padding: Padding, dilation: Pair
) -> Pair:
    """(height, width) of the output; refuses a window that does not fit into the padded input."""
    check_window(kernel, stride, padding, dilation)
    sizes = []
    for axis, name in enumerate(("height", "width")):
        padded = size[axis] + padding[2 * axis] + padding[2 * axis + 1]
        reach = dilation[axis] * (kernel[axis] - 1) + 1
        require(
            size[axis] >= 1 and padded >= reach,
            f"the kernel reaches over {reach} pixels, but the {name} of the padded input is "
            f"{padded if size[axis] >= 1 else 0}: the output would be empty",
        )
        sizes.append((padded - reach) // stride[axis] + 1)
    return sizes[0], sizes[1]
