"""Which classes a detector takes for which: detections matched to objects of any class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from megbrain_py.data.coco import CocoDataset, ImageEntry

Boxes = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Confusion:
    """counts int64[K + 1, K + 1]: row is the object's class, column the detection's; the last of
    each is the background: an object that was missed, a detection where nothing is."""

    class_names: tuple[str, ...]
    counts: npt.NDArray[np.int64]
    iou: float
    score: float


def _overlaps(a: Boxes, b: Boxes) -> tuple[Boxes, Boxes]:
    """IoU [n, m] of boxes x1, y1, x2, y2, and the share of each `a` that lies in each `b`."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = (high - low).clip(0).prod(axis=2)
    area_a, area_b = (np.asarray((x[:, 2:] - x[:, :2]).clip(0).prod(axis=1)) for x in (a, b))
    union = area_a[:, None] + area_b[None] - common
    share = common / np.maximum(area_a[:, None], 1e-12)
    return common / np.maximum(union, 1e-12), share


def _matches(iou: Boxes, threshold: float) -> list[tuple[int, int]]:
    """Pairs (detection, object), largest overlap first, each used once; of equal overlaps the
    surer detection (the earlier row) comes first."""
    rows, columns = np.nonzero(iou >= threshold)
    order = np.argsort(-iou[rows, columns], kind="stable")
    used: tuple[set[int], set[int]] = set(), set()
    pairs = []
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if row not in used[0] and column not in used[1]:
            used[0].add(row)
            used[1].add(column)
            pairs.append((row, column))
    return pairs


def confusion_matrix(
    dataset: CocoDataset,
    results: Sequence[Mapping[str, Any]],
    *,
    iou: float = 0.5,
    score: float = 0.5,
) -> Confusion:
    """Count pairs of objects and detections (COCO results) with at least this score and overlap.

    A detection in an object of another class counts as that confusion, not as two mistakes. What
    lies mostly in a crowd and matches no object is left out, as COCO's scoring does.
    """
    kinds = len(dataset.categories)
    label_of = {category.id: category.label for category in dataset.categories}
    by_image: dict[int, list[Mapping[str, Any]]] = {}
    for result in results:
        if result["score"] >= score:
            by_image.setdefault(result["image_id"], []).append(result)
    counts = np.zeros((kinds + 1, kinds + 1), np.int64)
    for image in dataset.images:
        found = sorted(by_image.get(image.id, []), key=lambda r: -float(r["score"]))
        boxes = np.array([r["bbox"] for r in found], np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        _count(counts, image, boxes, [label_of[r["category_id"]] for r in found], iou)
    return Confusion(dataset.class_names, counts, iou, score)


def _count(
    counts: npt.NDArray[np.int64], image: ImageEntry, boxes: Boxes, labels: list[int], iou: float
) -> None:
    """Add a picture's pairs, missed objects and false detections."""
    background = len(counts) - 1
    objects = [o for o in image.objects if not o.crowd]
    crowds = [o.box for o in image.objects if o.crowd]
    overlap, _ = _overlaps(boxes, np.array([o.box for o in objects], np.float64).reshape(-1, 4))
    _, inside = _overlaps(boxes, np.array(crowds, np.float64).reshape(-1, 4))
    pairs = _matches(overlap, iou)
    for row, column in pairs:
        counts[objects[column].label - 1, labels[row] - 1] += 1
    hit = {column for _, column in pairs}
    for column, one in enumerate(objects):
        if column not in hit:
            counts[one.label - 1, background] += 1
    matched = {row for row, _ in pairs}
    for row, label in enumerate(labels):
        if row not in matched and not (inside[row] >= iou).any():
            counts[background, label - 1] += 1
