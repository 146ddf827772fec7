"""Examples of matching: thresholds, ties, no true boxes, unfilled rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from megbrain_py import functional as F
from megbrain_py.dtypes import Array
from megbrain_py.op_testing import Benchmark, Case, ErrorCase, integers, normal


def boxes(*shape: int, seed: int = 0, extent: float = 100.0) -> Array:
    """Random boxes x1, y1, x2, y2 of shape [*shape, 4]."""
    rng = np.random.default_rng([seed, *shape])
    first = rng.uniform(0, 0.7, (*shape, 2)) * extent
    sides = rng.uniform(0.05, 0.5, (*shape, 2)) * extent
    return np.concatenate([first, first + sides], -1).astype(np.float32)


def _count(*values: int) -> Array:
    return np.array(values, np.int32)


def _match(**options: Any) -> Any:
    return lambda boxes, truth, count, box_count=None: F.match_boxes(
        boxes, truth, count, box_count=box_count, **options
    )


_RPN = _match(high=0.7, low=0.3, allow_low_quality=True)
_HEADS = _match(high=0.5, low=0.5)
# Whole numbers: overlaps of shifted copies are equal to the last bit.
_GRID = np.array([[[x, y, x + 8, y + 8] for y in range(0, 40, 4) for x in range(0, 40, 4)]],
                 np.float32)  # fmt: skip
# A level of anchors: neighbours share a block of the kernel; every true box meets few blocks.
_LEVEL = np.array([[x - s, y - s, x + s, y + s] for y in range(0, 160, 8) for x in range(0, 160, 8)
                   for s in (6, 9)], np.float32)  # fmt: skip
_ON_LEVEL = np.array([[[10, 10, 26, 26], [60, 70, 90, 81], [-50, -50, -20, -20], [150, 0, 166, 9],
                       [0, 0, 160, 160], [80, 80, 80, 90]]], np.float32)  # fmt: skip
_ON_GRID = np.array([[[2, 2, 10, 10], [6, 6, 14, 14], [0, 0, 40, 40]]], np.float32)

CASES = [
    Case("anchors", _RPN, {"boxes": boxes(301), "truth": boxes(2, 9, seed=1),
                           "count": _count(9, 4)}, grad=()),
    Case("proposals", _HEADS, {"boxes": boxes(3, 67), "truth": boxes(3, 5, seed=1),
         "count": _count(5, 0, 2), "box_count": _count(67, 30, 65)}, grad=()),
    Case("ties", _RPN, {"boxes": _GRID, "truth": _ON_GRID, "count": _count(3)}, grad=()),
    Case("equal_truth", _RPN, {"boxes": _GRID, "truth": np.repeat(_ON_GRID, 2, 1),
                               "count": _count(6)}, grad=()),
    Case("level", _RPN, {"boxes": _LEVEL, "truth": _ON_LEVEL, "count": _count(6)}, grad=()),
    Case("level_twice", _RPN, {"boxes": np.tile(_LEVEL, (2, 1)), "truth": _ON_LEVEL,
                               "count": _count(5)}, grad=()),  # ties in distant blocks
    Case("no_truth", _RPN, {"boxes": boxes(70), "truth": boxes(2, 3), "count": _count(0, 0)},
         grad=()),
    Case("no_truth_rows", _RPN, {"boxes": boxes(70), "truth": boxes(1, 0), "count": _count(0)},
         grad=()),
    Case("no_boxes", _HEADS, {"boxes": boxes(1, 0), "truth": boxes(1, 3), "count": _count(3)},
         grad=()),
    Case("empty_boxes", _RPN, {"boxes": np.zeros((65, 4), np.float32), "truth": boxes(1, 3),
                               "count": _count(3)}, grad=()),
    Case("one", _RPN, {"boxes": boxes(1), "truth": boxes(1, 1, seed=1), "count": _count(1)},
         grad=()),
    Case("many", _RPN, {"boxes": boxes(5000), "truth": boxes(2, 33, seed=1),
                        "count": _count(33, 17)}, grad=()),
]  # fmt: skip
ERRORS = [
    ErrorCase("boxes", _RPN, {"boxes": normal(3, 5), "truth": boxes(1, 2), "count": _count(2)},
              "match_boxes: boxes must be [A, 4] or [1, A, 4]"),
    ErrorCase("count", _RPN, {"boxes": boxes(3), "truth": boxes(1, 2), "count": integers(1)},
              "match_boxes: count must be int32[1]"),
    ErrorCase("thresholds", _match(high=0.3, low=0.7),
              {"boxes": boxes(3), "truth": boxes(1, 2), "count": _count(2)},
              "match_boxes: thresholds must be low <= high"),
]  # fmt: skip

BENCHMARKS = [
    Benchmark("anchors", _RPN, lambda: {"boxes": boxes(65_472, extent=512.0),
                                        "truth": boxes(2, 8, seed=1, extent=512.0),
                                        "count": _count(8, 8)}),
    Benchmark("proposals", _HEADS, lambda: {"boxes": boxes(2, 2008, extent=512.0),
                                            "truth": boxes(2, 8, seed=1, extent=512.0),
                                            "count": _count(8, 8)}),
]  # fmt: skip
