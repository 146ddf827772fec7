"""Examples of the binary operators: broadcasting, odd sizes, empty, extreme values."""

import numpy as np

from megbrain_py import functional as F
from megbrain_py.dtypes import Array
from megbrain_py.op_testing import Benchmark, Case, ErrorCase, integers, normal

_FLOAT = {"add": F.add, "sub": F.sub, "mul": F.mul, "div": F.div, "pow": F.pow,
          "maximum": F.maximum, "minimum": F.minimum}  # fmt: skip
_COMPARISONS = {"less": F.less, "less_equal": F.less_equal, "greater": F.greater,
                "greater_equal": F.greater_equal, "equal": F.equal}  # fmt: skip


def _positive(*shape: int, seed: int = 0) -> Array:
    positive: Array = np.abs(normal(*shape, seed=seed)) + np.float32(0.5)
    return positive


def _pair(name: str, a: tuple[int, ...], b: tuple[int, ...]) -> dict[str, Array]:
    first = _positive(*a) if name == "pow" else normal(*a)
    second = _positive(*b, seed=1) if name == "div" else normal(*b, seed=1)
    return {"a": first, "b": second}


_SHAPES = {
    "same": ((3, 5), (3, 5)),
    "row": ((4, 7), (7,)),
    "column": ((4, 7), (4, 1)),
    "both": ((3, 1, 5), (1, 4, 5)),
    "scalar": ((2, 3), ()),
    "image_channel": ((2, 3, 4, 5), (3, 1, 1)),
    "empty": ((0, 3), (1, 3)),
    "long": ((40001,), (40001,)),
}

CASES = [
    Case(f"{name}_{kind}", lambda a, b, f=f: f(a, b), _pair(name, *shapes))
    for name, f in _FLOAT.items()
    for kind, shapes in _SHAPES.items()
]
CASES += [
    Case(f"{name}_{dtype}", lambda a, b, f=f: f(a, b),
         {"a": integers(3, 4, dtype=dtype), "b": integers(4, seed=1, dtype=dtype)}, grad=())
    for name, f in [*_COMPARISONS.items(), ("add", F.add), ("mul", F.mul), ("sub", F.sub)]
    for dtype in ("int32", "int64")
]  # fmt: skip
CASES += [
    Case(f"{name}_float", lambda a, b, f=f: f(a, b), _pair(name, (5, 6), (6,)), grad=())
    for name, f in _COMPARISONS.items()
]
_SPECIAL = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40, 3e38, 1.0], np.float32)
_LARGE = {dtype: np.array([np.iinfo(dtype).min, -1, 2, np.iinfo(dtype).max], dtype)
          for dtype in ("int32", "int64")}  # fmt: skip
CASES += [
    Case(f"{name}_{dtype}_wraps", lambda a, b, f=f: f(a, b),
         {"a": large, "b": np.roll(large, 1)}, grad=())
    for name, f in {"add": F.add, "sub": F.sub, "mul": F.mul}.items()
    for dtype, large in _LARGE.items()
]  # fmt: skip
CASES += [
    Case(f"{name}_special", lambda a, b, f=f: f(a, b),
         {"a": _SPECIAL, "b": np.roll(_SPECIAL, 1)}, grad=())
    for name, f in {"maximum": F.maximum, "minimum": F.minimum}.items()
]  # fmt: skip
CASES += [
    Case(f"{name}_{dtype}", lambda a, b, f=f: f(a, b),
         {"a": integers(3, 37, high=2, dtype=dtype), "b": integers(37, high=2, dtype=dtype)},
         grad=())
    for name, f, dtype in [
        ("not_equal", F.not_equal, "int64"), ("not_equal", F.not_equal, "uint8"),
        ("equal", F.equal, "bool"), ("logical_and", F.logical_and, "bool"),
        ("logical_or", F.logical_or, "bool"),
    ]
]  # fmt: skip

ERRORS = [
    ErrorCase("shapes", F.add, {"a": normal(3, 4), "b": normal(5)},
              "add: shapes (3, 4) and (5,) do not broadcast"),
    ErrorCase("types", F.mul, {"a": normal(3), "b": integers(3)},
              "mul: operands must have one element type, are float32, int64"),
    ErrorCase("division of integers", F.div,
              {"a": integers(3), "b": integers(3, low=1)}, "div: operands must be float32"),
]  # fmt: skip

BENCHMARKS = [
    Benchmark("add", F.add, lambda: {"a": normal(16, 256, 56, 56), "b": normal(16, 256, 56, 56)}),
    Benchmark("mul_channels", F.mul, lambda: {"a": normal(16, 256, 56, 56),
                                              "b": normal(256, 1, 1)}),
    Benchmark("div_rows", F.div, lambda: {"a": normal(4096, 1024), "b": normal(1024, shift=9)}),
]  # fmt: skip
