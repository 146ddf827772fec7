"""The confusion matrix on cases counted by hand; its pictures exist for any number of classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from megbrain_py.data.coco import Annotation, Category, CocoDataset, ImageEntry
from megbrain_py.data.confusion import confusion_matrix
from megbrain_py.viz.classes import draw_class_ap, draw_confusion

CAT, DOG = 7, 9  # category ids of the labels 1, 2
A, B, C = (0.0, 0.0, 10.0, 10.0), (20.0, 20.0, 30.0, 30.0), (40.0, 0.0, 60.0, 20.0)


def dataset(*objects: tuple[int, tuple[float, ...], bool]) -> CocoDataset:
    listed = tuple(
        Annotation(n, label, box, 1.0, crowd, None)  # type: ignore[arg-type]
        for n, (label, box, crowd) in enumerate(objects)
    )
    categories = (Category(CAT, 1, "cat"), Category(DOG, 2, "dog"))
    return CocoDataset(Path("a"), Path("."), categories, (ImageEntry(1, "x", 80, 80, listed),))


def result(category: int, box: tuple[float, ...], score: float = 0.9) -> dict[str, Any]:
    x1, y1, x2, y2 = box
    bbox = [x1, y1, x2 - x1, y2 - y1]
    return {"image_id": 1, "category_id": category, "bbox": bbox, "score": score}


def counts(data: CocoDataset, *results: dict[str, Any]) -> list[list[int]]:
    found: list[list[int]] = confusion_matrix(data, results).counts.tolist()
    return found


def test_right_wrong_missed_and_made_up() -> None:
    data = dataset((1, A, False), (2, B, False), (2, C, False))
    found = (result(CAT, A), result(CAT, B), result(DOG, (60, 60, 70, 70)))
    assert counts(data, *found) == [[1, 0, 0], [1, 0, 1], [0, 1, 0]]
    assert counts(data) == [[0, 0, 1], [0, 0, 2], [0, 0, 0]]
    assert counts(dataset(), result(DOG, A)) == [[0, 0, 0], [0, 0, 0], [0, 1, 0]]


def test_thresholds() -> None:
    data = dataset((1, A, False))
    half = (0.0, 0.0, 10.0, 5.0)  # IoU 0.5
    assert counts(data, result(CAT, half))[0] == [1, 0, 0]
    less = (0.0, 0.0, 10.0, 4.9)
    assert counts(data, result(CAT, less)) == [[0, 0, 1], [0, 0, 0], [1, 0, 0]]
    assert counts(data, result(CAT, A, 0.49)) == [[0, 0, 1], [0, 0, 0], [0, 0, 0]]
    loose = confusion_matrix(data, [result(CAT, less, 0.3)], iou=0.4, score=0.3).counts
    assert loose.tolist()[0] == [1, 0, 0]


def test_an_object_is_found_once_by_the_best_fitting() -> None:
    data = dataset((1, A, False))
    near = (0.0, 0.0, 10.0, 8.0)
    found = counts(data, result(CAT, near, 0.99), result(DOG, A, 0.6))
    assert found == [[0, 1, 0], [0, 0, 0], [1, 0, 0]]
    equal = counts(data, result(DOG, A, 0.6), result(CAT, A, 0.7))  # the surer one
    assert equal == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]


def test_detections_in_crowds_are_left_out() -> None:
    data = dataset((1, (0.0, 0.0, 40.0, 40.0), True), (2, B, False))
    assert counts(data, result(CAT, A), result(DOG, B)) == [[0, 0, 0], [0, 1, 0], [0, 0, 0]]


@pytest.mark.parametrize("kinds", [1, 3, 30, 90])
def test_pictures_of_any_number_of_classes(kinds: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = [f"class number {n} with a very long name indeed" for n in range(kinds)]
    matrix = rng.poisson(3.0, (kinds + 1, kinds + 1)) * (rng.random((kinds + 1, kinds + 1)) < 0.3)
    draw_confusion(matrix.astype(np.int64), names, tmp_path / "confusion.png", "title")
    ap: dict[str, float | None] = {name: float(rng.random()) for name in names}
    ap[names[0]] = None
    draw_class_ap(ap, {n: min(1.0, (v or 0) + 0.2) for n, v in ap.items()}, tmp_path / "ap.png")
    for name in ("confusion.png", "ap.png"):
        assert (tmp_path / name).read_bytes()[:4] == b"\x89PNG"
