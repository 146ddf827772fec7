"""The pictures of a measuring: AP of each class, confusion of classes, what was found where."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from megbrain_py.data import Detections, read_image
from megbrain_py.data.confusion import confusion_matrix
from megbrain_py.data.masks import decode
from megbrain_py.viz.classes import draw_class_ap, draw_confusion
from megbrain_py.viz.detections import contact_sheet, draw_objects

NAMES = ("classes.png", "confusion.png", "detections.png")
_SHOWN = 16  # pictures on the sheet


def draw_measured(
    found: Detections,
    figures: Mapping[str, Any],
    folder: Path,
    *,
    score: float = 0.5,
    iou: float = 0.5,
) -> None:
    """Write NAMES into the folder.

    figures: `AP_per_class` and `AP50_per_class` by class name, None or NaN where there are no
    objects. score, iou: which detections count in the confusion matrix; `score` also which are
    drawn.
    """
    per_class = [
        {n: v if v is not None and math.isfinite(v) else None for n, v in figures[key].items()}
        for key in ("AP_per_class", "AP50_per_class")
    ]
    draw_class_ap(per_class[0], per_class[1], folder / NAMES[0])
    matrix = confusion_matrix(found.dataset, found.results, iou=iou, score=score)
    title = f"confusion at IoU ≥ {iou:g}, score ≥ {score:g}"
    draw_confusion(matrix.counts, matrix.class_names, folder / NAMES[1], title)
    draw_found(found, folder / NAMES[2], score=score)


def draw_found(
    found: Detections, path: Path, *, score: float = 0.5, pictures: int = _SHOWN
) -> None:
    """Write a sheet of the data set's first pictures with the objects found in them."""
    dataset = found.dataset
    label_of = {category.id: category.label for category in dataset.categories}
    drawn = []
    for image in dataset.images[:pictures]:
        results = [r for r in found.results if r["image_id"] == image.id and r["score"] >= score]
        boxes = [[x, y, x + w, y + h] for x, y, w, h in (r["bbox"] for r in results)]
        labels = [label_of[r["category_id"]] for r in results]
        scores = [r["score"] for r in results]
        masks = [decode(r["segmentation"]) for r in results] if found.has_masks else None
        pixels = read_image(dataset.path(image))
        drawn.append(draw_objects(pixels, boxes, labels, dataset.class_names, scores, masks))
    contact_sheet(drawn, path)
