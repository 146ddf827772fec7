"""Examples of NMS, soft NMS and voting: classes, thresholds, ties, NaN, nothing to keep."""

from __future__ import annotations

from typing import Any

import numpy as np

from megbrain_py import functional as F
from megbrain_py.dtypes import Array
from megbrain_py.op_testing import Benchmark, Case, ErrorCase, integers, normal
from megbrain_py.ops.match_boxes.cases import boxes


def _nms(rows: int = 20, threshold: float = 0.5, **options: Any) -> Any:
    def build(boxes: Any, scores: Any, classes: Any = None, count: Any = None) -> Any:
        return F.nms(boxes, scores, classes, count, rows=rows, iou_threshold=threshold, **options)

    return build


def _soft(rows: int = 20, decay: Any = "linear", **options: Any) -> Any:
    def build(boxes: Any, scores: Any, classes: Any = None, count: Any = None) -> Any:
        return F.soft_nms(boxes, scores, classes, count, rows=rows, decay=decay, **options)

    return build


def _vote(threshold: float = 0.5, rows: int = 20, **options: Any) -> Any:
    """What NMS keeps, moved by what it was given."""

    def build(boxes: Any, scores: Any, classes: Any, count: Any) -> Any:
        index, found = F.nms(boxes, scores, classes, count, rows=rows, iou_threshold=0.5)
        kept: Any = [F.batched_gather(x, index) for x in (boxes, scores, classes)]
        given = boxes, scores, classes, count
        return F.vote_boxes((*kept, found), given, iou_threshold=threshold, **options)

    return build


def _vote_alone(boxes: Any, scores: Any, classes: Any, count: Any, **kept: Any) -> Any:
    kept_boxes: Any = tuple(kept.values())
    return F.vote_boxes(kept_boxes, (boxes, scores, classes, count), iou_threshold=0.5)


def _count(*values: int) -> Array:
    return np.array(values, np.int32)


def _inputs(images: int, rows: int) -> dict[str, Array]:
    return {"boxes": boxes(images, rows), "scores": normal(images, rows)}


_CLASSES = integers(2, 150, high=3, dtype="int32")
_GRID = np.array([[[x, 0, x + 9, 8] for x in range(40)]], np.float32)  # overlaps are fractions


def _fractions(images: int, rows: int, kinds: int = 3) -> dict[str, Array]:
    """Boxes with scores in 0..1, classes and counts."""
    rng = np.random.default_rng([1, images, rows])
    return {
        "boxes": boxes(images, rows, extent=60.0),
        "scores": rng.random((images, rows), np.float32),
        "classes": integers(images, rows, high=kinds, dtype="int32"),
        "count": np.full(images, rows, np.int32),
    }


def _kept(images: int, rows: int) -> dict[str, Array]:
    return {f"kept_{name}": array for name, array in _fractions(images, rows).items()}


def _some_nan() -> dict[str, Array]:
    """Every fifth box has a NaN, or its score is one."""
    made = _fractions(2, 40)
    made["boxes"][:, ::10, 2] = np.nan
    made["scores"][:, 5::10] = np.nan
    return made


_EQUAL = {**_fractions(1, 40, 1), "boxes": _GRID, "scores": np.full((1, 40), 0.5, np.float32)}
# Far from the origin, where sums are rounded: a pair above the threshold of its class falls below.
_FAR = np.array([[[2000.1, 2000.1, 2003.3, 2003.3], [2000.1, 2000.1, 2003.3, 2001.7]]], np.float32)

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
    Case("nan", _nms(40), _some_nan(), grad=()),
    Case("shifted", _nms(100, class_switch="torchvision"), {**_inputs(2, 150), "classes": _CLASSES},
         grad=()),
    Case("shifted_counts", _nms(100, class_switch="torchvision", score_threshold=-0.2),
         {**_inputs(2, 150), "classes": _CLASSES, "count": _count(70, 0)}, grad=()),
    Case("shifted_1000", _nms(1000, class_switch="torchvision"),
         {**_inputs(1, 1000), "classes": integers(1, 1000, high=90, dtype="int32")}, grad=()),
    Case("compared_1001", _nms(1001, class_switch="torchvision"),
         {**_inputs(1, 1001), "classes": integers(1, 1001, high=90, dtype="int32")}, grad=()),
    Case("shifted_far", _nms(2, 0.5, class_switch="torchvision"),
         {"boxes": _FAR, "scores": np.array([[0.9, 0.8]], np.float32),
          "classes": np.full((1, 2), 80, np.int32)}, grad=()),
    Case("shifted_negative", _nms(100, class_switch="torchvision"),
         {**_inputs(1, 150), "boxes": boxes(1, 150) - 400, "classes": _CLASSES[:1]}, grad=()),
    Case("shifted_by_nothing", _nms(2, class_switch="torchvision"),  # largest coordinate + 1 is 0
         {"boxes": np.tile(np.float32([-9, -9, -1, -1]), (1, 2, 1)), "scores": normal(1, 2),
          "classes": np.int32([[1, 2]])}, grad=()),
    Case("shifted_no_boxes", _nms(5, class_switch="torchvision"), _inputs(2, 0), grad=()),
    Case("soft_linear", _soft(), _fractions(2, 150), grad=()),
    Case("soft_gaussian", _soft(150, "gaussian"), _fractions(2, 150), grad=()),
    Case("soft_sigma_and_least", _soft(150, "gaussian", sigma=0.1, least=0.05), _fractions(1, 150),
         grad=()),
    Case("soft_plus_one", _soft(150, plus_one=True, iou_threshold=0.3), _fractions(1, 150),
         grad=()),
    Case("soft_one_class", _soft(60), {n: a for n, a in _fractions(2, 60).items()
                                       if n in ("boxes", "scores")}, grad=()),
    Case("soft_counts", _soft(60), {**_fractions(3, 60), "count": _count(25, 0, 99)}, grad=()),
    Case("soft_thresholds", _soft(60, score_threshold=0.3, min_size=12.0), _fractions(2, 60),
         grad=()),
    Case("soft_equal_scores", _soft(40), _EQUAL, grad=()),
    Case("soft_same_box", _soft(9, "linear"),
         {**_fractions(1, 9), "boxes": np.full((1, 9, 4), [2, 3, 9, 8], np.float32)}, grad=()),
    Case("soft_nan", _soft(40, "gaussian"), _some_nan(), grad=()),
    Case("soft_no_boxes", _soft(5), _fractions(2, 0), grad=()),
    Case("soft_nothing_above", _soft(5, score_threshold=2.0), _fractions(1, 9), grad=()),
    Case("vote", _vote(), _fractions(2, 150), grad=()),
    Case("vote_avg", _vote(0.3, score_rule="avg"), _fractions(2, 150), grad=()),
    Case("vote_iou_avg", _vote(0.3, score_rule="iou_avg"), _fractions(2, 150), grad=()),
    Case("vote_plus_one", _vote(0.6, plus_one=True, score_rule="iou_avg"), _fractions(2, 150),
         grad=()),
    Case("vote_counts", _vote(), {**_fractions(3, 60), "count": _count(25, 0, 99)}, grad=()),
    Case("vote_score_threshold", _vote(0.3, score_threshold=0.6, score_rule="avg"),
         _fractions(2, 80), grad=()),
    Case("vote_equal_scores", _vote(0.5), _EQUAL, grad=()),
    Case("vote_nan", _vote(0.3), _some_nan(), grad=()),
    Case("vote_no_boxes", _vote_alone, {**_kept(2, 5), **_fractions(2, 0)}, grad=()),
    Case("vote_nothing_kept", _vote_alone, {**_kept(2, 0), **_fractions(2, 30)}, grad=()),
    Case("vote_nobody", _vote(1.0, score_threshold=2.0, score_rule="avg"), _fractions(1, 30),
         grad=()),
]  # fmt: skip
ERRORS = [
    ErrorCase("scores", _nms(), {"boxes": boxes(1, 5), "scores": normal(5)},
              "nms: scores must be float32[1,5]"),
    ErrorCase("boxes", _nms(), {"boxes": boxes(5), "scores": normal(5)},
              "nms: boxes must be float [N, R, 4]"),
    ErrorCase("classes", _nms(), {**_inputs(1, 5), "classes": integers(1, 5)},
              "nms: classes must be int32[1,5]"),
    ErrorCase("rows", _nms(0), _inputs(1, 5), "nms: rows must be at least 1"),
    ErrorCase("class_switch", _nms(class_switch="detectron"), _inputs(1, 5),
              "nms: class_switch must be exact or torchvision, is 'detectron'"),
    ErrorCase("soft_decay", _soft(decay="cubic"), _inputs(1, 5),
              "soft_nms: decay must be linear or gaussian, is 'cubic'"),
    ErrorCase("soft_sigma", _soft(sigma=0), _inputs(1, 5), "soft_nms: sigma must be positive"),
    ErrorCase("soft_scores", _soft(), {"boxes": boxes(1, 5), "scores": normal(5)},
              "soft_nms: scores must be float32[1,5]"),
    ErrorCase("vote_rule", _vote(score_rule="sum"), _fractions(1, 5),
              "vote_boxes: score_rule must be one of id, avg, iou_avg, is 'sum'"),
    ErrorCase("vote_threshold", _vote(0.0), _fractions(1, 5),
              "vote_boxes: iou_threshold must be > 0"),
]  # fmt: skip

BENCHMARKS = [
    Benchmark("random_12000", _nms(12_000), lambda: _inputs(1, 12_000)),
    Benchmark("proposals", _nms(2000, 0.7), lambda: _inputs(2, 8_000)),
    Benchmark("soft_6_views", _soft(100, "gaussian"), lambda: _fractions(1, 6_000, 80)),
    Benchmark("vote_6_views", _vote(0.8, 100), lambda: _fractions(1, 6_000, 80)),
]
