"""Non-maximum suppression: a fixed number of rows and their count, classes apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from megbrain_py.dtypes import Array, DType, TensorType
from megbrain_py.errors import require
from megbrain_py.graph import Node, Operator, Var, constant
from megbrain_py.ops.match_boxes.match_boxes import box_iou, boxes_of_objects

ClassSwitch = Literal["exact", "torchvision"]
_MOST_SHIFTED = 1000  # boxes: torchvision on a CPU compares more than these class by class


def check_scored(
    boxes: TensorType,
    scores: TensorType,
    classes: TensorType,
    count: TensorType,
    *,
    prefix: str = "",
) -> None:
    """Refuse what is not boxes [N, R, 4] with scores, classes and a count of valid rows."""
    require(
        boxes.rank == 3 and boxes.shape[2] == 4 and boxes.dtype.is_float,
        f"{prefix}boxes must be float [N, R, 4], is {boxes}",
    )
    images, rows = boxes.shape[:2]
    require(
        scores.shape == (images, rows) and scores.dtype == boxes.dtype,
        f"{prefix}scores must be {boxes.dtype}[{images},{rows}], is {scores}",
    )
    require(
        classes.shape == (images, rows) and classes.dtype == DType.int32,
        f"{prefix}classes must be int32[{images},{rows}], is {classes}",
    )
    require(
        count.shape == (images,) and count.dtype == DType.int32,
        f"{prefix}count must be int32[{images}], is {count}",
    )


def one_class_all_rows(boxes: Var, classes: Var | None, count: Var | None) -> tuple[Var, Var]:
    """The classes and the count given, or one class and all rows."""
    images, rows = (*boxes.shape, 0, 0)[:2]
    if classes is None:
        classes = constant(np.zeros((images, rows), np.int32))
    if count is None:
        count = constant(np.full(images, rows, np.int32))
    return classes, count


def takes_part(
    boxes: Array, scores: Array, count: int, score_threshold: float, min_size: float
) -> Array:
    """For the references: which rows of one image are looked at, bool[R]."""
    sides = boxes[:, 2:] - boxes[:, :2]
    large = (sides >= min_size).all(1)
    usable: Array = (scores > score_threshold) & large & (np.arange(len(boxes)) < count)
    return usable


@dataclass(frozen=True)
class Nms(Operator, kernel="nms"):
    """boxes, scores, classes, count -> indices [N, rows], count [N]."""

    rows: int
    iou_threshold: float
    score_threshold: float
    min_size: float
    class_switch: ClassSwitch

    def infer(
        self, boxes: TensorType, scores: TensorType, classes: TensorType, count: TensorType
    ) -> list[TensorType]:
        check_scored(boxes, scores, classes, count)
        require(self.rows >= 1, f"rows must be at least 1, is {self.rows}")
        require(self.iou_threshold >= 0, f"iou_threshold is negative: {self.iou_threshold}")
        require(
            self.class_switch in ("exact", "torchvision"),
            f"class_switch must be exact or torchvision, is {self.class_switch!r}",
        )
        images = boxes.shape[0]
        return [TensorType((images, self.rows), DType.int32), TensorType((images,), DType.int32)]

    def typical(self, inputs: Sequence[TensorType]) -> Sequence[Array | None]:
        images, rows = inputs[1].shape
        boxes = boxes_of_objects(images, rows).astype(inputs[0].dtype.numpy)
        return [boxes, None, None, np.full(images, rows, np.int32)]

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        return [None] * 4

    def reference(self, boxes: Array, scores: Array, classes: Array, count: Array) -> list[Array]:
        images = len(boxes)
        indices = np.zeros((images, self.rows), np.int32)
        kept_count = np.zeros(images, np.int32)
        for n in range(images):
            usable = takes_part(boxes[n], scores[n], count[n], self.score_threshold, self.min_size)
            own, group = boxes[n], classes[n]
            if self.class_switch == "torchvision" and 0 < usable.sum() <= _MOST_SHIFTED:
                own = own.astype(np.float32)  # its rounding is what this is about
                apart = own[usable].max() + np.float32(1)
                own = own + (group.astype(np.float32) * apart)[:, None]
                group = np.zeros_like(group)
            order = np.argsort(-scores[n], kind="stable")
            kept: list[int] = []
            for i in order[usable[order]]:
                rivals = [k for k in kept if group[k] == group[i]]
                overlap = box_iou(own[rivals], own[i : i + 1])
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
    class_switch: ClassSwitch = "exact",
) -> tuple[Var, Var]:
    """The best boxes of each image that do not overlap a better one: (int32[N, rows], int32[N]).

    boxes: float[N, R, 4]; scores: float[N, R]; classes: int32[N, R], only boxes of one class
    suppress each other (None: all are rivals); count: int32[N] valid rows (None: all R).
    Takes part: score > score_threshold, both sides >= min_size (pixels). In falling order of
    score (equal scores: lower index first) a box stays when its overlap (intersection over union)
    with every box that stayed is <= iou_threshold, until `rows` have stayed.
    Indices beyond the second result hold 0.

    class_switch "exact": boxes of one class are compared as they are. "torchvision": as its
    batched_nms on a CPU, which for up to 1000 boxes that take part adds class * (largest
    coordinate + 1) to the coordinates and forgets the classes; the sums are rounded, so an overlap
    near the threshold may fall on its other side.
    """
    classes, count = one_class_all_rows(boxes, classes, count)
    op = Nms(int(rows), float(iou_threshold), float(score_threshold), float(min_size), class_switch)
    result: tuple[Var, Var] = op(boxes, scores, classes, count)
    return result
