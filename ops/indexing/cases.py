"""Examples of the indexing room: repeated and no indices, every element size, ties, NaN."""

import numpy as np

from megbrain_py import functional as F
from megbrain_py.op_testing import Benchmark, Case, ErrorCase, integers, normal

_TYPES = ("int32", "int64", "uint8", "bool")

CASES = [
    Case(f"gather_{kind}", lambda x, i, axis=axis: F.gather(x, i, axis),
         {"x": normal(*shape), "i": integers(*places, high=shape[axis], dtype=dtype)})
    for kind, shape, axis, places, dtype in (
        ("rows", (7, 33), 0, (12,), "int64"), ("last", (3, 9), 1, (5,), "int32"),
        ("middle", (3, 9, 4), 1, (2, 6), "int64"), ("scalar_index", (5, 4), 0, (), "int64"),
        ("vector", (40,), 0, (3, 4), "int32"), ("long", (50, 3), 0, (20001,), "int64"),
        ("no_index", (5, 4), 0, (0,), "int64"), ("empty_rows", (5, 0), 0, (3,), "int64"),
        ("negative_axis", (3, 9, 4), -1, (7,), "int64"),
    )
]  # fmt: skip
CASES += [
    Case(f"gather_{dtype}_{axis}", lambda x, i, axis=axis: F.gather(x, i, axis),
         {"x": integers(9, 9, high=2, dtype=dtype), "i": integers(21, high=9)}, grad=())
    for dtype in _TYPES
    for axis in (0, 1)
]  # fmt: skip
CASES += [
    Case(f"take_along_axis_{kind}", lambda x, i, axis=axis: F.take_along_axis(x, i, axis),
         {"x": normal(*shape), "i": integers(*places, high=shape[axis], dtype=dtype)})
    for kind, shape, axis, places, dtype in (
        ("last", (3, 9), 1, (3, 5), "int64"), ("first", (9, 33), 0, (12, 33), "int32"),
        ("middle", (3, 9, 4), 1, (3, 20, 4), "int64"), ("none", (3, 9), 1, (3, 0), "int64"),
        ("empty", (0, 9), 1, (0, 4), "int64"), ("long", (2, 50), -1, (2, 9001), "int64"),
    )
]  # fmt: skip
CASES += [
    Case(f"take_along_axis_{dtype}", F.take_along_axis,
         {"x": integers(9, 9, high=2, dtype=dtype), "indices": integers(9, 4, high=9)}, grad=())
    for dtype in _TYPES
]  # fmt: skip
CASES += [
    Case(f"scatter_add_{kind}", lambda x, i, u, axis=axis: F.scatter_add(x, i, u, axis),
         {"x": normal(*shape), "i": integers(*places, high=shape[axis]), "u": normal(*updates)})
    for kind, shape, axis, places, updates in (
        ("rows", (7, 33), 0, (12,), (12, 33)), ("last", (3, 9), 1, (4, 5), (3, 4, 5)),
        ("middle", (3, 9, 4), 1, (6,), (3, 6, 4)), ("none", (3, 4), 0, (0,), (0, 4)),
        ("long", (90, 5), 0, (7001,), (7001, 5)), ("scalar", (5,), 0, (), ()),
    )
]  # fmt: skip
CASES += [
    Case(f"scatter_add_{dtype}", F.scatter_add,
         {"x": integers(5, 3, dtype=dtype), "indices": integers(40, high=5, dtype=dtype),
          "updates": integers(40, 3, dtype=dtype, seed=1)}, grad=())
    for dtype in ("int32", "int64")
]  # fmt: skip
CASES += [
    Case("embedding", F.embedding,
         {"indices": integers(4, 6, high=11), "weight": normal(11, 20)}),
    Case("one_hot", lambda i: F.one_hot(i, 7), {"i": integers(4, 3, high=7)}, grad=()),
    Case("one_hot_int32", lambda i: F.one_hot(i, 7), {"i": integers(9, high=7, dtype="int32")},
         grad=()),
    Case("one_hot_empty", lambda i: F.one_hot(i, 7), {"i": integers(0)}, grad=()),
]  # fmt: skip

_SPECIAL = np.array([[0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1e-40, 1e-40, np.nan, -1.0],
                     [2, 2, 2, 1, 1, 1, 3, 3, 3, 3]], np.float32)  # fmt: skip
CASES += [
    Case(f"top_k_{kind}_{'large' if largest else 'small'}",
         lambda x, k=k, largest=largest: F.top_k(x, k, largest=largest), {"x": x})
    for kind, k, x in (
        ("some", 5, normal(3, 40)), ("all", 9, normal(2, 9)), ("none", 0, normal(2, 9)),
        ("one", 1, normal(40, 9)), ("vector", 3, normal(1000)), ("empty", 2, normal(0, 5)),
        ("many_rows", 2, normal(100, 7)),
    )
    for largest in (True, False)
]  # fmt: skip
CASES += [  # neighbours lie too close for a finite difference
    Case(f"top_k_{k}_of_{n}_{largest}", lambda x, k=k, largest=largest: F.top_k(x, k,
         largest=largest), {"x": normal(2, n)}, grad=())
    for k, n in ((700, 5000), (3, 5000), (1000, 1300))
    for largest in (True, False)
]  # fmt: skip
CASES += [
    Case(f"top_k_special_{largest}", lambda x, largest=largest: F.top_k(x, 7, largest=largest),
         {"x": _SPECIAL}, grad=())
    for largest in (True, False)
]  # fmt: skip
CASES += [
    Case("top_k_ties", lambda x: (F.top_k(x, 30), F.top_k(x, 30, largest=False))[0],
         {"x": integers(5, 90, low=-2, high=3, dtype="int32")}, grad=()),
    Case("top_k_many_ties", lambda x: F.top_k(x, 900),
         {"x": integers(2, 4000, low=0, high=3).astype(np.float32)}, grad=()),
    Case("top_k_equal", lambda x: F.top_k(x, 10), {"x": np.zeros((1, 3000), np.float32)}, grad=()),
    Case("top_k_special_many", lambda x: F.top_k(x, 400), {"x": np.tile(_SPECIAL, (1, 200))},
         grad=()),
    Case("sort_radix", F.sort, {"x": integers(2, 3000, low=-(2**31), high=2**31, dtype="int32")},
         grad=()),
    Case("sort_last", F.sort, {"x": normal(4, 33)}),
    Case("sort_first", lambda x: F.sort(x, 0, descending=True), {"x": normal(33, 4)}),
    Case("sort_ties", F.sort, {"x": integers(5, 90, low=-2, high=3, dtype="int32")}, grad=()),
    Case("sort_extreme", F.sort,
         {"x": np.array([2**31 - 1, -(2**31), 0, -1, 1], np.int32)}, grad=()),
    Case("argsort", lambda x: F.argsort(x, 1), {"x": normal(3, 8, 2)}, grad=()),
    Case("sort_empty", F.sort, {"x": normal(3, 0)}, grad=()),
]  # fmt: skip

ERRORS = [
    ErrorCase("gather floats", F.gather, {"x": normal(3), "indices": normal(3)},
              "gather: indices must be int32 or int64, are float32"),
    ErrorCase("gather axis", lambda x, i: F.gather(x, i, 1), {"x": normal(3), "i": integers(3)},
              "gather: axis 1 of a value of rank 1"),
    ErrorCase("take shapes", F.take_along_axis, {"x": normal(3, 4), "indices": integers(2, 4)},
              "take_along_axis: shapes (3, 4) and (2, 4) differ outside of axis 1"),
    ErrorCase("scatter shapes", F.scatter_add,
              {"x": normal(3, 4), "indices": integers(2), "updates": normal(3, 4)},
              "scatter_add: updates of shape (3, 4) do not hold indices of shape (2,) at axis 0"),
    ErrorCase("top_k", lambda x: F.top_k(x, 5), {"x": normal(3, 4)},
              "top_k: k = 5 of an axis of size 4"),
    ErrorCase("top_k type", lambda x: F.top_k(x, 1), {"x": integers(3)},
              "top_k: x must be float32 or int32, is int64"),
    ErrorCase("one_hot", lambda x: F.one_hot(x, 3), {"x": normal(3)},
              "one_hot: indices must be int32 or int64"),
]  # fmt: skip

BENCHMARKS = [
    Benchmark("top_2000_of_49152", lambda x: F.top_k(x, 2000), lambda: {"x": normal(2, 49_152)}),
    Benchmark("sort", lambda x: F.sort(x, -1), lambda: {"x": normal(64, 16_384)}),
    Benchmark("embedding", F.embedding, lambda: {"indices": integers(65_536, high=30_000),
                                                 "weight": normal(30_000, 256)}, ("weight",)),
]  # fmt: skip
