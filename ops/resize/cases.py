"""Examples of resizing: up, down, odd ratios, fractional scales, one pixel, empty batch."""

from typing import Any

from megbrain_py import functional as F
from megbrain_py.op_testing import Benchmark, Case, ErrorCase, integers, normal

_SHAPES: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "double": ((2, 16, 5, 7), {"scale": 2}),
    "size": ((2, 5, 4, 6), {"size": (7, 9)}),
    "one_size": ((1, 3, 4, 6), {"size": 5}),
    "same": ((1, 8, 4, 3), {"size": (4, 3)}),
    "down": ((1, 20, 13, 11), {"size": (5, 4)}),
    "down_far": ((1, 4, 17, 23), {"size": (2, 3)}),
    "to_one": ((1, 4, 5, 3), {"size": (1, 1)}),
    "from_one": ((1, 4, 1, 1), {"size": (4, 3)}),
    "same_by_scale": ((1, 8, 4, 3), {"scale": 1.1}),
    "fraction": ((1, 6, 7, 5), {"scale": (1.5, 2.3)}),
    "shrink": ((1, 6, 9, 10), {"scale": 0.4}),
    "up_far": ((1, 3, 2, 3), {"scale": 7}),
    "mixed": ((1, 70, 3, 12), {"size": (8, 5)}),
    "many_channels": ((1, 1100, 3, 2), {"size": (5, 3)}),
    "empty_batch": ((0, 4, 3, 3), {"size": (6, 6)}),
}

CASES = [
    Case(f"{mode}_{name}", lambda x, m=mode, k=k: F.resize(x, mode=m, **k), {"x": normal(*x)})
    for mode in ("nearest", "bilinear")
    for name, (x, k) in _SHAPES.items()
]

# the adjoint is linear too: the gradient of a gradient is the resizing again
CASES += [
    Case(f"{mode}_after_convolution",
         lambda x, w, m=mode: F.conv2d(F.resize(F.conv2d(x, w), scale=2, mode=m), w),
         {"x": normal(1, 4, 4, 3), "w": normal(4, 4, 1, 1)})
    for mode in ("nearest", "bilinear")
]  # fmt: skip

ERRORS = [
    ErrorCase("neither", F.resize, {"x": normal(1, 2, 3, 3)},
              "resize: give either size or scale"),
    ErrorCase("both", lambda x: F.resize(x, 3, 2.0), {"x": normal(1, 2, 3, 3)},
              "resize: give either size or scale"),
    ErrorCase("rank", lambda x: F.resize(x, 3), {"x": normal(2, 3, 3)},
              "resize: x must be [N, C, H, W], has rank 3"),
    ErrorCase("mode", lambda x: F.resize(x, 3, mode="cubic"), {"x": normal(1, 2, 3, 3)},
              "resize: mode must be one of nearest, bilinear, is 'cubic'"),
    ErrorCase("size", lambda x: F.resize(x, (0, 3)), {"x": normal(1, 2, 3, 3)},
              "resize: size must be one or two positive sizes, is (0, 3)"),
    ErrorCase("scale", lambda x: F.resize(x, scale=-1.0), {"x": normal(1, 2, 3, 3)},
              "resize: scale must be one or two positive factors"),
    ErrorCase("nothing left", lambda x: F.resize(x, scale=0.2), {"x": normal(1, 2, 3, 3)},
              "resize: there must be pixels: input (3, 3), output (0, 0)"),
    ErrorCase("integers", lambda x: F.resize(x, 3), {"x": integers(1, 2, 3, 3)},
              "resize: x must be float, is int64"),
]  # fmt: skip

BENCHMARKS = [  # of the feature pyramid
    Benchmark(mode, lambda x, m=mode: F.resize(x, scale=2.0, mode=m),
              lambda: {"x": normal(2, 256, 64, 64)}, ("x",))
    for mode in ("nearest", "bilinear")
]  # fmt: skip
