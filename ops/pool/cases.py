"""Examples of pooling: strides, paddings, ceil_mode, odd channels, ties and NaN, empty batch."""

from typing import Any

import numpy as np

from megbrain_py import functional as F
from megbrain_py.graph import Var
from megbrain_py.op_testing import Benchmark, Case, ErrorCase, integers, normal
from megbrain_py.ops.conv.geometry import padding4, pair
from megbrain_py.ops.pool.maximum import MaxPool2d
from megbrain_py.ops.pool.sizes import pooled_size

_WINDOWS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "plain": ((2, 16, 6, 8), {"kernel": 2}),
    "stem": ((2, 20, 11, 9), {"kernel": 3, "stride": 2, "padding": 1}),
    "overlap": ((1, 7, 7, 7), {"kernel": 3, "stride": 1}),
    "one_pixel": ((2, 33, 7, 6), {"kernel": 1, "stride": 2}),
    "unlike_axes": ((1, 5, 9, 8), {"kernel": (2, 3), "stride": (3, 1), "padding": (1, 0)}),
    "four_paddings": ((1, 5, 6, 6), {"kernel": 4, "stride": 3, "padding": (0, 1, 2, 1)}),
    "ceil": ((1, 4, 6, 7), {"kernel": 3, "stride": 2, "ceil_mode": True}),
    "ceil_padding": ((1, 4, 7, 6), {"kernel": 3, "stride": 3, "padding": 1, "ceil_mode": True}),
    "ceil_dropped": ((1, 3, 5, 5), {"kernel": 2, "stride": 4, "padding": 1, "ceil_mode": True}),
    "whole": ((2, 130, 5, 4), {"kernel": (5, 4)}),
    "many_channels": ((1, 150, 4, 4), {"kernel": 2}),
    "every_width": ((2, 64 + 16 + 3, 9, 7), {"kernel": 3, "stride": 2, "padding": 1}),
    "single": ((1, 1, 1, 1), {"kernel": 1}),
    "empty_batch": ((0, 4, 6, 6), {"kernel": 2}),
}

CASES = [
    Case(f"max_{name}", lambda x, k=k: F.max_pool2d(x, **k), {"x": normal(*x)})
    for name, (x, k) in _WINDOWS.items()
]
CASES += [
    Case(f"avg_{name}{'' if counted else '_inside'}",
         lambda x, k=k, c=counted: F.avg_pool2d(x, **k, count_include_pad=c), {"x": normal(*x)})
    for name, (x, k) in _WINDOWS.items() for counted in (True, False)
]  # fmt: skip
CASES += [
    Case("max_dilation", lambda x: F.max_pool2d(x, 3, 2, 2, dilation=2), {"x": normal(1, 5, 9, 8)}),
    Case("max_large_kernel", lambda x: F.max_pool2d(x, 17), {"x": normal(1, 3, 36, 18)}),
    Case("max_after_convolution", lambda x, w: F.max_pool2d(F.conv2d(x, w, padding=1), 2),
         {"x": normal(1, 4, 6, 6), "w": normal(9, 4, 3, 3)}),
]  # fmt: skip


def _indexed(x: Var, kernel: int, stride: int, padding: int) -> Any:
    window, steps, border = pair("", "", kernel), pair("", "", stride), padding4("", padding)
    size = pooled_size("", (x.shape[2], x.shape[3]), window, steps, border, (1, 1), False)
    return MaxPool2d(size, window, steps, border, (1, 1))(x)


_TIES = integers(1, 3, 8, 8, low=0, high=3).astype(np.float32)
_SPECIAL = normal(1, 20, 6, 6)
_SPECIAL[0, :, 1, 2] = np.nan
_SPECIAL[0, :, 4, 4] = np.inf
_SPECIAL[0, 3] = -np.inf
CASES += [
    Case("max_index_ties", lambda x: _indexed(x, 3, 2, 1), {"x": _TIES}, grad=()),
    Case("max_index_special", lambda x: _indexed(x, 2, 2, 0), {"x": _SPECIAL}, grad=()),
    Case("max_index_wide", lambda x: _indexed(x, 17, 3, 0), {"x": normal(1, 2, 20, 23)}, grad=()),
]

_BINS = {
    "divides": ((2, 16, 6, 9), (3, 3)),
    "overlaps": ((1, 5, 7, 5), (3, 4)),
    "more_bins": ((1, 5, 3, 2), (7, 5)),
    "one": ((2, 20, 7, 7), (1, 1)),
    "same": ((1, 3, 4, 5), (4, 5)),
    "large": ((1, 3, 60, 50), (2, 1)),
    "empty_batch": ((0, 3, 4, 4), (2, 2)),
}
CASES += [
    Case(f"adaptive_{name}", lambda x, s=size: F.adaptive_avg_pool2d(x, s), {"x": normal(*x)})
    for name, (x, size) in _BINS.items()
]
CASES += [
    Case(f"global_{name}", F.global_avg_pool2d, {"x": normal(*x)})
    for name, x in {"plain": (2, 70, 7, 7), "wide": (1, 600, 3, 2), "large": (1, 2, 70, 81),
                    "empty": (0, 3, 2, 2)}.items()
]  # fmt: skip


def _error(name: str, f: Any, message: str, x: np.ndarray | None = None) -> ErrorCase:
    return ErrorCase(name, f, {"x": normal(1, 2, 5, 5) if x is None else x}, message)


ERRORS = [
    _error("too large", lambda x: F.max_pool2d(x, 6),
           "max_pool2d: kernel (6, 6) does not fit into images of 5x5 pixels"),
    _error("no pixels", lambda x: F.avg_pool2d(x, 1), "does not fit into images of 0x5 pixels",
           normal(1, 2, 0, 5)),
    _error("padding", lambda x: F.max_pool2d(x, 2, padding=2),
           "max_pool2d: padding (2, 2, 2, 2) is more than half of the kernel (2, 2)"),
    _error("stride", lambda x: F.avg_pool2d(x, 2, 0), "avg_pool2d: stride must be at least 1"),
    _error("rank", lambda x: F.max_pool2d(x, 2), "max_pool2d: x must be [N, C, H, W], has rank 3",
           normal(2, 5, 5)),
    _error("integers", lambda x: F.max_pool2d(x, 2), "max_pool2d: x must be float, is int64",
           integers(1, 2, 5, 5)),
    _error("no bins", lambda x: F.adaptive_avg_pool2d(x, 0),
           "adaptive_avg_pool2d: there must be pixels: input (5, 5), output (0, 0)"),
]  # fmt: skip

BENCHMARKS = [
    Benchmark("max_3x3", lambda x: F.max_pool2d(x, 3, 2, 1),
              lambda: {"x": normal(16, 64, 112, 112)}, ("x",)),
    Benchmark("average_all", F.global_avg_pool2d, lambda: {"x": normal(16, 2048, 7, 7)}, ("x",)),
]  # fmt: skip
