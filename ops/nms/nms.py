"""Non-maximum suppression: a fixed number of rows and their count, classes apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from megbrain_py.dtypes import Array, DType, TensorType
from megbrain_py.errors import require
from megbrain_py.graph import Node, Operator, Var, constant
from megbrain_py.ops.match_boxes.match_boxes import box_iou


@dataclass(frozen=True)
class Nms(Operator, kernel="nms"):
    """boxes, scores, classes, count -> indices [N, rows], count [N]."""

    rows: int
    iou_threshold: float
    score_threshold: float
    min_size: float

    def infer(
        self, boxes: TensorType, scores: TensorType, classes: TensorType, count: TensorType
    ) -> list[TensorType]:
        require(
            boxes.rank == 3 and boxes.shape[2] == 4 and boxes.dtype.is_float,
            f"boxes must be float [N, R, 4], is {boxes}",
        )
        images, rows = boxes.shape[:2]
        require(
            scores.shape == (images, rows) and scores.dtype == boxes.dtype,
            f"scores must be {boxes.dtype}[{images},{rows}], is {scores}",
        )
        require(
            classes.shape == (images, rows) and classes.dtype == DType.int32,
            f"classes must be int32[{images},{rows}], is {classes}",
        )
        require(
            count.shape == (images,) and count.dtype == DType.int32,
            f"count must be int32[{images}], is {count}",
        )
        require(self.rows >= 1, f"rows must be at least 1, is {self.rows}")
        require(self.iou_threshold >= 0, f"iou_threshold is negative: {self.iou_threshold}")
        return [TensorType((images, self.rows), DType.int32), TensorType((images,), DType.int32)]

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        return [None] * 4

    def reference(self, boxes: Array, scores: Array, classes: Array, count: Array) -> list[Array]:
        images = len(boxes)
        indices = np.zeros((images, self.rows), np.int32)
        kept_count = np.zeros(images, np.int32)
        for n in range(images):
            sides = boxes[n, :, 2:] - boxes[n, :, :2]
            usable = (scores[n] > self.score_threshold) & (sides >= self.min_size).all(1)
            usable &= np.arange(boxes.shape[1]) < count[n]
            order = np.argsort(-scores[n], kind="stable")
            kept: list[int] = []
            for i in order[usable[order]]:
                rivals = [k for k in kept if classes[n, k] == classes[n, i]]
                overlap = box_iou(boxes[n, rivals], boxes[n, i : i + 1])
                if len(kept) < self.rows and not (overlap > self.iou_threshold).any():
                    kept.append(int(i))
            indices[n, : len(kept)] = kept
            kept_count[n] = len(kept)
        return [indices, kept_count]


def nms(
    boxes: Var,
    scores: Var,
    classes: Var | None = None,
    count: Var | None = None,
    *,
    rows: int,
    iou_threshold: float,
    score_threshold: float = float("-inf"),
    min_size: float = 0.0,
) -> tuple[Var, Var]:
    """The best boxes of each image that do not overlap a better one: (int32[N, rows], int32[N]).

    boxes: float[N, R, 4]; scores: float[N, R]; classes: int32[N, R], only boxes of one class
    suppress each other (None: all are rivals); count: int32[N] valid rows (None: all R).
    Takes part: score > score_threshold, both sides >= min_size (pixels). In falling order of
    score (equal scores: lower index first) a box stays when its overlap (intersection over union)
    with every box that stayed is <= iou_threshold, until `rows` have stayed.
    Indices beyond the second result hold 0. Semantics: torchvision's batched_nms.
    """
    if classes is None:
        classes = constant(np.zeros(boxes.shape[:2], np.int32))
    if count is None:
        count = constant(
            np.full(boxes.shape[:1], boxes.shape[1] if boxes.rank > 1 else 0, np.int32)
        )
    op = Nms(int(rows), float(iou_threshold), float(score_threshold), float(min_size))
    result: tuple[Var, Var] = op(boxes, scores, classes, count)
    return result
