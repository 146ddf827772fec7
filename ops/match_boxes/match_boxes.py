"""Overlap of boxes with the true boxes and matching, in one streaming operator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from megbrain_py.dtypes import Array, DType, TensorType
from megbrain_py.errors import require
from megbrain_py.graph import Node, Operator, Var


def box_iou(a: Array, b: Array) -> Array:
    """Intersection over union of boxes [A, 4] and [B, 4]: [A, B]; 0 where both are empty."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    inner = np.prod(np.maximum(high - low, 0), axis=-1)
    areas = [(x[:, 2] - x[:, 0]) * (x[:, 3] - x[:, 1]) for x in (a, b)]
    union = areas[0][:, None] + areas[1][None, :] - inner
    with np.errstate(divide="ignore", invalid="ignore"):
        iou: Array = np.where(inner > 0, inner / union, 0)
    return iou


def boxes_of_objects(images: int, rows: int, picture: float = 512.0) -> Array:
    """float32[images, rows, 4] to time operators with: sides from 16 pixels to half the picture."""
    rng = np.random.default_rng(0)
    sides = np.exp(rng.uniform(np.log(16.0), np.log(picture / 2), (images, rows, 2)))
    first = rng.uniform(0.0, 1.0, sides.shape) * (picture - sides)
    return np.concatenate([first, first + sides], 2).astype(np.float32)


@dataclass(frozen=True)
class MatchBoxes(Operator, kernel="match_boxes"):
    """boxes, truth and its count (and the boxes' count) -> matches and the largest overlap."""

    high: float
    low: float
    allow_low_quality: bool

    def infer(self, boxes: TensorType, truth: TensorType, *counts: TensorType) -> list[TensorType]:
        require(len(counts) in (1, 2), f"takes 3 or 4 inputs, found {2 + len(counts)}")
        require(
            truth.rank == 3 and truth.shape[2] == 4 and truth.dtype.is_float,
            f"truth must be float [N, G, 4], is {truth}",
        )
        images = truth.shape[0]
        per_image = boxes.rank == 3 and boxes.shape[0] == images
        require(
            (per_image or boxes.rank == 2) and boxes.shape[-1] == 4,
            f"boxes must be [A, 4] or [{images}, A, 4], is {boxes}",
        )
        require(boxes.dtype == truth.dtype, f"boxes are {boxes.dtype}, truth is {truth.dtype}")
        for name, count in zip(("count", "box_count"), counts, strict=False):
            require(
                count.shape == (images,) and count.dtype == DType.int32,
                f"{name} must be int32[{images}], is {count}",
            )
        require(0 <= self.low <= self.high, f"thresholds must be low <= high, are {self.low}, "
                f"{self.high}")  # fmt: skip
        shape = (images, boxes.shape[-2])
        return [TensorType(shape, DType.int32), TensorType(shape, boxes.dtype)]

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        return [None] * len(node.inputs)  # matching is a decision

    def reference(self, boxes: Array, truth: Array, *counts: Array) -> list[Array]:
        images, size = truth.shape[0], boxes.shape[-2]
        matches = np.full((images, size), -2, np.int32)
        best = np.zeros((images, size), boxes.dtype)
        for n in range(images):
            valid = min(int(counts[1][n]), size) if len(counts) > 1 else size
            given = (boxes if boxes.ndim == 2 else boxes[n])[:valid]
            matches[n, :valid] = -1
            if min(int(counts[0][n]), truth.shape[1]) <= 0 or valid <= 0:
                continue
            iou = box_iou(truth[n, : int(counts[0][n])], given)  # as torchvision's Matcher
            best[n, :valid], nearest = iou.max(0), iou.argmax(0)
            row = np.where(best[n, :valid] >= self.high, nearest, -2)
            row[best[n, :valid] < self.low] = -1
            if self.allow_low_quality:
                largest = iou.max(1, keepdims=True)
                chosen = ((iou == largest) & (largest > 0)).any(0)
                row[chosen] = nearest[chosen]
            matches[n, :valid] = row
        return [matches, best]


def match_boxes(
    boxes: Var,
    truth: Var,
    count: Var,
    *,
    high: float,
    low: float,
    allow_low_quality: bool = False,
    box_count: Var | None = None,
) -> tuple[Var, Var]:
    """Which true box each box belongs to: (int32[N, A], overlap float[N, A]).

    boxes: [A, 4] (the same in every image, as anchors are) or [N, A, 4]; truth: [N, G, 4] with
    count int32[N] valid rows; box_count: int32[N], valid rows of the boxes (all, when None).
    The result is the index of the true box with the largest overlap (the first of equals) where
    that is >= high, -1 (background) where it is < low, -2 (neither, or no valid box) otherwise.
    allow_low_quality: every box whose overlap with some true box equals that box's largest gets
    its own best match whatever the thresholds; ties all count, overlaps of 0 do not.
    An image without true boxes is all background. The second result is the largest overlap.
    Memory: a few numbers a true box; the matrix of overlaps is never stored.
    Semantics: torchvision's Matcher; there a true box that overlaps nothing ties with every box,
    at 0, and makes all of them positive.
    """
    counts = [count] if box_count is None else [count, box_count]
    op = MatchBoxes(float(high), float(low), bool(allow_low_quality))
    result: tuple[Var, Var] = op(boxes, truth, *counts)
    return result
