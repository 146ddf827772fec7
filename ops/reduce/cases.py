"""Examples of the reductions: all axes, both layouts, empty axes, many blocks, ties, NaN."""

import numpy as np

from megbrain_py import functional as F
from megbrain_py.op_testing import Benchmark, Case, ErrorCase, channels_last, integers, normal

_FLOAT = {"sum": F.sum, "mean": F.mean, "max": F.max, "min": F.min, "prod": F.prod}
_AXES = {
    "all": ((3, 5, 7), None),
    "last": ((9, 130), 1),
    "last_long": ((3, 9001), -1),
    "first": ((130, 9), 0),
    "first_wide": ((33, 1100), 0),
    "first_narrow": ((5000, 3), 0),
    "middle": ((4, 70, 6), 1),
    "outer_two": ((4, 3, 65), (0, 1)),
    "sandwich": ((5, 6, 7, 8), (0, 2)),
    "sandwich_kept": ((5, 6, 7, 8), (1, 3)),
    "channels": ((2, 5, 6, 7), (0, 2, 3)),
    "size_one": ((1, 5, 1), (0, 2)),
    "none": ((3, 4), ()),
    "scalar": ((), None),
}
CASES = [
    Case(
        f"{name}_{kind}",
        lambda x, f=f, axes=axes: f(x, axes),
        {
            "x": normal(
                *shape, shift=0 if name != "prod" else 1, scale=1 if name != "prod" else 0.01
            )
        },
    )
    for name, f in _FLOAT.items()
    for kind, (shape, axes) in _AXES.items()
]
CASES += [
    Case(
        f"{name}_channels_last_{''.join(map(str, axes))}",
        lambda x, f=f, axes=axes: f(channels_last(x), axes, keepdims=True),
        {"x": normal(3, 5, 4, 6)},
    )
    for name, f in (("sum", F.sum), ("max", F.max), ("mean", F.mean))
    for axes in ((0, 2, 3), (2, 3), (1,), (0,), (3,), (0, 1, 2, 3), (1, 2))
]
CASES += [
    Case("sum_keepdims", lambda x: F.sum(x, -2, keepdims=True), {"x": normal(3, 4, 5)}),
    Case("sum_large", F.sum, {"x": normal(300, 701, shift=3)}, tolerance=1e-6),
    Case(
        "sum_columns_large", lambda x: F.sum(x, 0), {"x": normal(9000, 37, shift=3)}, tolerance=1e-6
    ),
    Case(
        "mean_large",
        lambda x: F.mean(x, (0, 2)),
        {"x": normal(40, 3, 1700, shift=9)},
        tolerance=1e-6,
    ),
    Case("sum_empty_axis", lambda x: F.sum(x, 1), {"x": normal(3, 0)}),
    Case("sum_empty_rows", lambda x: F.sum(x, 1), {"x": normal(0, 3)}),
    Case("mean_empty_axis", lambda x: F.mean(x, 1), {"x": normal(3, 0)}, grad=()),
    Case("prod_empty_axis", lambda x: F.prod(x, 1), {"x": normal(3, 0)}, grad=()),
    Case("max_empty_rows", lambda x: F.max(x, 1), {"x": normal(0, 3)}, grad=()),
    Case(
        "prod_zeros",
        lambda x: F.prod(x, 1),
        {"x": np.array([[2, 0, 3], [0, 0, 4], [1, 2, 3]], np.float32)},
    ),
    Case(
        "max_ties",
        lambda x: F.max(x, 1) + F.min(x, 1) * 3,
        {"x": np.array([[1, 2, 2, 0], [5, 5, 5, 5], [-1, 0, 0, -1]], np.float32)},
        grad=(),
    ),
    Case(
        "max_special",
        lambda x: (F.max(x, 1), F.min(x, 1), F.argmax(x, 1), F.argmin(x, 1)),
        {
            "x": np.array(
                [[1, np.nan, 2], [-np.inf, -np.inf, -np.inf], [np.inf, 0, np.nan]], np.float32
            )
        },
        grad=(),
    ),
]
CASES += [
    Case(
        f"{name}_{dtype}",
        lambda x, f=f: (f(x), f(x, 0), f(x, 1)),
        {"x": integers(7, 70, low=-3, high=9, dtype=dtype)},
        grad=(),
    )
    for name, f in _FLOAT.items()
    if name != "mean"
    for dtype in ("int32", "int64")
]
CASES += [
    Case(
        f"sum_{dtype}", lambda x: F.sum(x, 0), {"x": integers(70, 9, high=2, dtype=dtype)}, grad=()
    )
    for dtype in ("uint8", "bool")
]
CASES += [
    Case(
        f"{name}_{kind}",
        lambda x, f=f, axes=axes: f(x, axes),
        {"x": integers(5, 90, high=2, dtype="bool") if kind != "empty" else np.ones((3, 0), bool)},
        grad=(),
    )
    for name, f in (("any", F.any), ("all", F.all))
    for kind, axes in (("every", None), ("last", 1), ("first", 0), ("empty", 1))
]
CASES += [
    Case(f"{name}_{kind}", lambda x, f=f, axis=axis: f(x, axis), {"x": make}, grad=())
    for name, f in (("argmax", F.argmax), ("argmin", F.argmin))
    for kind, axis, make in (
        ("last", -1, normal(5, 90)),
        ("first", 0, normal(90, 5)),
        ("middle", 1, normal(3, 9, 4)),
        ("flat", None, normal(5, 9)),
        ("ties", 1, integers(9, 40, high=4)),
        ("int32", 1, integers(9, 40, high=4, dtype="int32")),
        ("long", 1, integers(6, 500, high=90).astype(np.float32)),
        ("late", 1, np.eye(4, 300, 260, dtype=np.float32)),
        (
            "late_nan",
            1,
            np.where(np.eye(4, 300, 140) + np.eye(4, 300, 290), np.nan, 1).astype(np.float32),
        ),
        ("single", 0, normal(1)),
        ("empty", 1, normal(0, 4)),
    )
]
CASES.append(
    Case(
        "argmax_channels_last",
        lambda x: F.argmax(channels_last(x), 1, keepdims=True),
        {"x": normal(2, 5, 3, 4)},
        grad=(),
    )
)
CASES += [
    Case(f"broadcast_{kind}", lambda x, to=to: F.broadcast_to(x, to), {"x": normal(*shape)})
    for kind, shape, to in (
        ("row", (7,), (5, 7)),
        ("column", (5, 1), (5, 70)),
        ("both", (1, 5, 1), (3, 5, 4)),
        ("scalar", (), (3, 33)),
        ("empty", (1, 3), (0, 3)),
        ("same", (3, 4), (3, 4)),
    )
]
CASES += [
    Case(
        f"broadcast_{dtype}",
        lambda x: F.broadcast_to(x, (3, 5, 33)),
        {"x": integers(5, 1, high=2, dtype=dtype)},
        grad=(),
    )
    for dtype in ("int32", "int64", "uint8", "bool")
]
CASES.append(
    Case(
        "broadcast_channels_last",
        lambda x: F.broadcast_to(channels_last(x), (2, 3, 4, 5)) * 2,
        {"x": normal(2, 3, 1, 1)},
    )
)

ERRORS = [
    ErrorCase(
        "axis", lambda x: F.sum(x, 2), {"x": normal(3, 4)}, "sum: axis 2 of a value of rank 2"
    ),
    ErrorCase("mean of integers", F.mean, {"x": integers(3)}, "mean: x must be float32"),
    ErrorCase("any of floats", F.any, {"x": normal(3)}, "any: x must be bool, is float32"),
    ErrorCase(
        "max of nothing",
        lambda x: F.max(x, 1),
        {"x": normal(3, 0)},
        "max: axes (1,) of (3, 0) are empty",
    ),
    ErrorCase(
        "argmax of nothing",
        lambda x: F.argmax(x, 1),
        {"x": normal(3, 0)},
        "argmax: axis 1 of (3, 0) is empty",
    ),
    ErrorCase(
        "broadcast",
        lambda x: F.broadcast_to(x, (3, 5)),
        {"x": normal(3)},
        "broadcast_to: shape (3,) does not broadcast to (3, 5)",
    ),
]

BENCHMARKS = [
    Benchmark("sum_all", F.sum, lambda: {"x": normal(4096, 4096)}),
    Benchmark("sum_rows", lambda x: F.sum(x, 1), lambda: {"x": normal(4096, 4096)}),
    Benchmark("sum_columns", lambda x: F.sum(x, 0), lambda: {"x": normal(4096, 4096)}),
    Benchmark("max_rows", lambda x: F.max(x, 1), lambda: {"x": normal(4096, 4096)}),
]
