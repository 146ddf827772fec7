"""Averages over windows of pixels: fixed windows, adaptive bins, the whole image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from megbrain_py.graph import Var
from megbrain_py.ops.conv.geometry import Padding, Pair, check_window, padding4, pair, refuse
from megbrain_py.ops.pool.sizes import check_padding, pooled_size
from megbrain_py.ops.resize.resample import Resample, Taps


@lru_cache(maxsize=256)
def _window_taps(
    source: int, target: int, kernel: int, stride: int, border: tuple[int, int], counted: bool
) -> Taps:
    """Windows of `kernel` pixels; `counted`: the border belongs to the divisor."""
    taps: list[tuple[int, tuple[float, ...]]] = []
    for i in range(target):
        begin = i * stride - border[0]
        end = min(begin + kernel, source + border[1])  # ceil_mode: clipped to the padded input
        first, last = max(begin, 0), min(end, source)
        divisor = end - begin if counted else last - first
        inside = max(last - first, 0)
        taps.append((min(first, source - 1), (1.0 / divisor,) * inside if inside else ()))
    return tuple(taps)


@lru_cache(maxsize=256)
def _bin_taps(source: int, target: int) -> Taps:
    """Bin i reaches from floor(i * source / target) to ceil((i + 1) * source / target)."""
    taps: list[tuple[int, tuple[float, ...]]] = []
    for i in range(target):
        begin, end = i * source // target, -((-(i + 1) * source) // target)
        taps.append((begin, (1.0 / (end - begin),) * (end - begin)))
    return tuple(taps)


@dataclass(frozen=True, kw_only=True)
class AvgPool2d(Resample, kernel="avg_pool2d"):
    """Averages of windows of fixed size."""

    window: Pair
    stride: Pair
    padding: Padding
    count_include_pad: bool

    def check(self) -> None:
        check_window(self.window, self.stride, self.padding, (1, 1))
        check_padding(self.window, self.padding, (1, 1))

    def taps(self, axis: int) -> Taps:
        border = (self.padding[2 * axis], self.padding[2 * axis + 1])
        return _window_taps(
            self.input_size[axis], self.output_size[axis], self.window[axis], self.stride[axis],
            border, self.count_include_pad,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class AdaptiveAvgPool2d(Resample, kernel="adaptive_avg_pool2d"):
    """Averages of `output_size` bins; they overlap when sizes do not divide."""

    def taps(self, axis: int) -> Taps:
        return _bin_taps(self.input_size[axis], self.output_size[axis])


def _source(operator: str, x: Var) -> Pair:
    if x.rank != 4:
        raise refuse(operator, f"x must be [N, C, H, W], has rank {x.rank}")
    return x.shape[2], x.shape[3]


def avg_pool2d(
    x: Var,
    kernel: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Var:
    """Averages of windows of x [N, C, H, W]: [N, C, H', W'].

    kernel, stride (None: the kernel), padding: pixels, as in conv2d; padding is at most half the
    kernel. H' = (H + top + bottom - kh) // stride + 1, rounded up instead with ceil_mode, when the
    last window still starts inside the image or the padding before it.
    count_include_pad: zeros of the padding count in the divisor.
    Raises GraphError when no window fits.
    """
    name = "avg_pool2d"
    window, border = pair(name, "kernel", kernel), padding4(name, padding)
    steps = window if stride is None else pair(name, "stride", stride)
    source = _source(name, x)
    target = pooled_size(name, source, window, steps, border, (1, 1), ceil_mode)
    op = AvgPool2d(
        input_size=source, output_size=target, window=window, stride=steps, padding=border,
        count_include_pad=count_include_pad,
    )  # fmt: skip
    result: Var = op(x)
    return result


def adaptive_avg_pool2d(x: Var, size: int | Sequence[int]) -> Var:
    """Averages of size[0] x size[1] bins of x [N, C, H, W]: [N, C, *size].

    Bin i covers pixels floor(i * H / H') to ceil((i + 1) * H / H') - 1, as torch's does.
    """
    name = "adaptive_avg_pool2d"
    op = AdaptiveAvgPool2d(input_size=_source(name, x), output_size=pair(name, "size", size))
    result: Var = op(x)
    return result


def global_avg_pool2d(x: Var) -> Var:
    """The mean over all pixels of x [N, C, H, W]: [N, C, 1, 1]."""
    result: Var = AdaptiveAvgPool2d(input_size=_source("global_avg_pool2d", x), output_size=(1, 1))(
        x
    )
    return result
