"""Soft non-maximum suppression (Bodla et al. 2017): overlaps lower a score instead of ending it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from megbrain_py.dtypes import Array, DType, TensorType
from megbrain_py.errors import require
from megbrain_py.graph import Node, Operator, Var
from megbrain_py.ops.match_boxes.match_boxes import box_iou
from megbrain_py.ops.nms.nms import check_scored, one_class_all_rows, takes_part

Decay = Literal["linear", "gaussian"]


def with_last_pixel(boxes: Array, plus_one: bool) -> Array:
    """Boxes whose sides are x2 - x1 + 1 and y2 - y1 + 1, if so wanted."""
    return boxes + np.array([0, 0, 1, 1], boxes.dtype) if plus_one else boxes


@dataclass(frozen=True)
class SoftNms(Operator, kernel="soft_nms"):
    """boxes, scores, classes, count -> indices [N, rows], lowered scores [N, rows], count [N]."""

    rows: int
    decay: Decay
    iou_threshold: float
    sigma: float
    least: float
    score_threshold: float
    min_size: float
    plus_one: bool

    def infer(
        self, boxes: TensorType, scores: TensorType, classes: TensorType, count: TensorType
    ) -> list[TensorType]:
        check_scored(boxes, scores, classes, count)
        require(self.rows >= 1, f"rows must be at least 1, is {self.rows}")
        require(
            self.decay in ("linear", "gaussian"),
            f"decay must be linear or gaussian, is {self.decay!r}",
        )
        require(self.iou_threshold >= 0, f"iou_threshold is negative: {self.iou_threshold}")
        require(self.sigma > 0, f"sigma must be positive, is {self.sigma}")
        shape = (boxes.shape[0], self.rows)
        return [
            TensorType(shape, DType.int32),
            TensorType(shape, scores.dtype),
            TensorType(shape[:1], DType.int32),
        ]

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        return [None] * 4

    def reference(self, boxes: Array, scores: Array, classes: Array, count: Array) -> list[Array]:
        indices = np.zeros((len(boxes), self.rows), np.int32)
        lowered = np.zeros((len(boxes), self.rows), scores.dtype)
        found = np.zeros(len(boxes), np.int32)
        for n, given in enumerate(boxes):
            usable = takes_part(given, scores[n], count[n], self.score_threshold, self.min_size)
            usable &= scores[n] >= self.least
            wide = with_last_pixel(given, self.plus_one)
            left = np.where(usable, scores[n], -np.inf)
            while found[n] < min(self.rows, usable.sum()) and left.max() > -np.inf:
                best = int(left.argmax())
                indices[n, found[n]], lowered[n, found[n]] = best, left[best]
                found[n] += 1
                iou = box_iou(wide[best : best + 1], wide)[0]
                same = (classes[n] == classes[n, best]) & (left > -np.inf)
                left[same] *= self._factor(iou[same])
                left[left < self.least] = -np.inf
                left[best] = -np.inf
        return [indices, lowered, found]

    def _factor(self, iou: Array) -> Array:
        if self.decay == "linear":
            return np.where(iou > self.iou_threshold, 1 - iou, 1).astype(iou.dtype)
        decayed = np.exp(-(iou * iou) / iou.dtype.type(self.sigma))
        return np.where(iou > 0, decayed, 1).astype(iou.dtype)


def soft_nms(
    boxes: Var,
    scores: Var,
    classes: Var | None = None,
    count: Var | None = None,
    *,
    rows: int,
    decay: Decay = "linear",
    iou_threshold: float = 0.5,
    sigma: float = 0.5,
    least: float = 1e-4,
    score_threshold: float = 0.0,
    min_size: float = 0.0,
    plus_one: bool = False,
) -> tuple[Var, Var, Var]:
    """Boxes with scores lowered by better ones: (int32[N, rows], float[N, rows], int32[N]).

    boxes: float[N, R, 4]; scores: float[N, R], 0 or more; classes: int32[N, R], only boxes of one
    class lower each other (None: one class); count: int32[N] valid rows (None: all R).
    Takes part: score > score_threshold, both sides >= min_size (pixels). The box with the largest
    score (of equals, the lowest index) is given out, and the scores of the others of its class are
    multiplied, by their overlap o with it: "linear": 1 - o where o > iou_threshold; "gaussian":
    exp(-o^2 / sigma). A box whose score is less than `least` is out. This is repeated until `rows`
    were given out or none is left.
    plus_one: sides are x2 - x1 + 1 in the overlaps, as in Detectron.
    Results: indices into R, the lowered scores in falling order, how many are valid; zeros beyond.
    """
    classes, count = one_class_all_rows(boxes, classes, count)
    op = SoftNms(
        int(rows), decay, float(iou_threshold), float(sigma), float(least),
        float(score_threshold), float(min_size), bool(plus_one),
    )  # fmt: skip
    result: tuple[Var, Var, Var] = op(boxes, scores, classes, count)
    return result
