"""Examples of NMS: classes, thresholds, equal scores, too few rows, nothing to keep."""

from __future__ import annotations

from typing import Any

import numpy as np

from megbrain_py import functional as F
from megbrain_py.dtypes import Array
from megbrain_py.op_testing import Benchmark, Case, ErrorCase, integers, normal
from megbrain_py.ops.match_boxes.cases import boxes


def _nms(rows: int = 20, threshold: float = 0.5, **options: float) -> Any:
    def build(boxes: Any, scores: Any, classes: Any = None, count: Any = None) -> Any:
        return F.nms(boxes, scores, classes, count, rows=rows, iou_threshold=threshold, **options)

    return build


def _count(*values: int) -> Array:
    return np.array(values, np.int32)


def _inputs(images: int, rows: int) -> dict[str, Array]:
    return {"boxes": boxes(images, rows), "scores": normal(images, rows)}


_CLASSES = integers(2, 150, high=3, dtype="int32")
_GRID = np.array([[[x, 0, x + 9, 8] for x in range(40)]], np.float32)  # overlaps are fractions

CASES = [
    Case("one_class", _nms(), _inputs(2, 150), grad=()),
    Case("classes", _nms(100), {**_inputs(2, 150), "classes": _CLASSES}, grad=()),
    Case("counts", _nms(100), {**_inputs(2, 150), "classes": _CLASSES, "count": _count(70, 0)},
         grad=()),
    Case("thresholds", _nms(60, 0.3, score_threshold=-0.2, min_size=12.0), _inputs(3, 130),
         grad=()),
    Case("equal_scores", _nms(40), {"boxes": _GRID, "scores": np.ones((1, 40), np.float32)},
         grad=()),
    Case("at_threshold", _nms(40, 0.5), {"boxes": _GRID, "scores": normal(1, 40)}, grad=()),
    Case("zeros", _nms(5), {"boxes": np.zeros((1, 9, 4), np.float32), "scores": normal(1, 9)},
         grad=()),
    Case("more_rows_than_boxes", _nms(30), _inputs(1, 7), grad=()),
    Case("nothing_above", _nms(5, score_threshold=1e9), _inputs(1, 9), grad=()),
    Case("no_boxes", _nms(5), _inputs(2, 0), grad=()),
    Case("many", _nms(1000, 0.7), _inputs(1, 2500), grad=()),
    Case("rows_within_a_block", _nms(133, 0.9), _inputs(2, 700), grad=()),
    Case("many_classes", _nms(2500, 0.5),
         {**_inputs(1, 2500), "classes": integers(1, 2500, high=7, dtype="int32")}, grad=()),
    Case("at_threshold_many", _nms(2000, 0.5),
         {"boxes": np.tile(_GRID, (1, 40, 1)), "scores": normal(1, 1600)}, grad=()),
    Case("no_threshold", _nms(900, 0.0), _inputs(1, 900), grad=()),
]  # fmt: skip
ERRORS = [
    ErrorCase("scores", _nms(), {"boxes": boxes(1, 5), "scores": normal(5)},
              "nms: scores must be float32[1,5]"),
    ErrorCase("boxes", _nms(), {"boxes": boxes(5), "scores": normal(5)},
              "nms: boxes must be float [N, R, 4]"),
    ErrorCase("classes", _nms(), {**_inputs(1, 5), "classes": integers(1, 5)},
              "nms: classes must be int32[1,5]"),
    ErrorCase("rows", _nms(0), _inputs(1, 5), "nms: rows must be at least 1"),
]  # fmt: skip

BENCHMARKS = [
    Benchmark("random_12000", _nms(12_000), lambda: _inputs(1, 12_000)),
    Benchmark("proposals", _nms(2000, 0.7), lambda: _inputs(2, 8_000)),
]
