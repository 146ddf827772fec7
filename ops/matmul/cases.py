"""Examples of matrix products: transposes, broadcast batches, empty and odd sizes, vectors."""

import itertools

from megbrain_py import functional as F
from megbrain_py.op_testing import Benchmark, Case, ErrorCase, integers, normal

_SHAPES = {
    "square": ((4, 4), (4, 4)),
    "odd": ((3, 5), (5, 7)),
    "wide": ((17, 65), (65, 130)),
    "single": ((1, 1), (1, 1)),
    "row": ((1, 33), (33, 20)),
    "column": ((20, 33), (33, 1)),
    "outer": ((6, 1), (1, 9)),
    "batch": ((3, 4, 5), (3, 5, 6)),
    "batch_of_a": ((2, 3, 4, 5), (5, 6)),
    "batch_of_b": ((4, 5), (3, 5, 6)),
    "broadcast": ((2, 1, 4, 5), (3, 5, 2)),
    "broadcast_both": ((2, 1, 4, 5), (1, 3, 5, 2)),
    "many_batches": ((2, 2, 2, 3, 4), (2, 2, 2, 4, 3)),
    "vector_a": ((5,), (5, 4)),
    "vector_b": ((3, 4, 5), (5,)),
    "vectors": ((5,), (5,)),
    "empty_rows": ((0, 5), (5, 4)),
    "empty_inner": ((3, 0), (0, 4)),
    "empty_batch": ((0, 3, 4), (4, 5)),
}

CASES = [
    Case(f"matmul_{name}", F.matmul, {"a": normal(*a), "b": normal(*b)})
    for name, (a, b) in _SHAPES.items()
]


def _swapped(shape: tuple[int, ...], swap: bool) -> tuple[int, ...]:
    return (*shape[:-2], shape[-1], shape[-2]) if swap else shape


CASES += [
    Case(f"matmul_{name}_{'t' if ta else 'n'}{'t' if tb else 'n'}",
         lambda a, b, ta=ta, tb=tb: F.matmul(a, b, ta, tb),
         {"a": normal(*_swapped(_SHAPES[name][0], ta)),
          "b": normal(*_swapped(_SHAPES[name][1], tb))})
    for name in ("odd", "wide", "batch", "batch_of_a", "broadcast", "empty_inner")
    for ta, tb in itertools.product((False, True), repeat=2) if ta or tb
]  # fmt: skip
CASES += [
    Case("matmul_of_matmul", lambda a, b: F.matmul(F.matmul(a, b), a, True, False),
         {"a": normal(4, 6), "b": normal(6, 4)}),
    Case("matmul_large_values", F.matmul,
         {"a": normal(3, 4, scale=1e18), "b": normal(4, 3, scale=1e18)}, grad=()),
]  # fmt: skip

_LINEAR = {
    "plain": ((3, 5), (4, 5)),
    "large": ((33, 100), (70, 100)),
    "one_row": ((1, 64), (10, 64)),
    "vector": ((6,), (3, 6)),
    "sequence": ((2, 3, 4, 8), (5, 8)),
    "one_output": ((7, 9), (1, 9)),
    "one_input": ((7, 1), (5, 1)),
    "no_rows": ((0, 5), (4, 5)),
    "no_inputs": ((3, 0), (4, 0)),
}
CASES += [
    Case(f"linear_{name}", F.linear,
         {"x": normal(*x), "w": normal(*w), "b": normal(w[0])})
    for name, (x, w) in _LINEAR.items()
]  # fmt: skip
CASES += [
    Case(f"linear_without_bias_{name}", F.linear,
         {"x": normal(*_LINEAR[name][0]), "w": normal(*_LINEAR[name][1])})
    for name in ("plain", "sequence", "no_rows", "no_inputs")
]  # fmt: skip

ERRORS = [
    ErrorCase("inner", F.matmul, {"a": normal(3, 4), "b": normal(5, 6)},
              "matmul: b expects 5 columns of a, a has 4"),
    ErrorCase("batch", F.matmul, {"a": normal(2, 3, 4), "b": normal(3, 4, 5)},
              "matmul: batch axes (2,) and (3,) do not broadcast"),
    ErrorCase("scalar", F.matmul, {"a": normal(), "b": normal(3, 4)},
              "matmul: a and b must be matrices, have ranks 0, 2"),
    ErrorCase("integers", F.matmul, {"a": integers(3, 4), "b": integers(4, 3)},
              "matmul: all inputs must have one float type, are int64, int64"),
    ErrorCase("features", F.linear, {"x": normal(3, 4), "w": normal(7, 5)},
              "linear: w expects 5 input features, x has 4"),
    ErrorCase("bias", F.linear, {"x": normal(3, 4), "w": normal(7, 4), "b": normal(4)},
              "linear: bias must have shape (7,), has (4,)"),
    ErrorCase("weights", F.linear, {"x": normal(3, 4), "w": normal(4)},
              "linear: w must be [out, in], has rank 1"),
]  # fmt: skip

BENCHMARKS = [
    Benchmark("square", F.matmul, lambda: {"a": normal(1024, 1024), "b": normal(1024, 1024)},
              ("a", "b")),
    Benchmark("box_head", F.linear,  # fc6 of 1024 boxes
              lambda: {"x": normal(1024, 12544), "w": normal(1024, 12544), "b": normal(1024)},
              ("x", "w")),
    Benchmark("batched", F.matmul,
              lambda: {"a": normal(64, 197, 64), "b": normal(64, 64, 197)}, ("a", "b")),
]  # fmt: skip
