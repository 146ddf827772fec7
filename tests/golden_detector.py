"""What the tests against torchvision's Faster R-CNN share: model, inputs, comparison."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megbrain_py.data.coco import Annotation, ImageEntry
from megbrain_py.data.transforms import (
    MEAN,
    STD,
    Draw,
    Resize,
    bilinear,
    normalise_into,
    training_boxes,
)
from megbrain_py.models.faster_rcnn import FasterRCNN, FasterRCNNConfig, RoIHeadsConfig
from megbrain_py.models.rpn import RPNConfig

GOLDENS = Path(__file__).with_name("goldens")
sys.path.insert(0, str(GOLDENS))

import recipe  # noqa: E402
import store  # noqa: E402

Array = NDArray[Any]
Goldens = dict[str, Array]

BAR, GRADIENT_BAR = 1e-4, 1e-3  # relative
ORIGINAL_SIZES = ((96, 120), (120, 90))
RESIZE = Resize(112, 144, "torchvision")
PADDED = (160, 160)
# OPTIONS of goldens/make_faster_rcnn.py; the rest of both configurations are defaults.
CONFIG = FasterRCNNConfig(
    num_classes=6,
    norm="frozen",
    rpn=RPNConfig(
        pre_nms_train=60, pre_nms_test=40, post_nms_train=60, post_nms_test=30, samples=64
    ),
    roi=RoIHeadsConfig(samples=24, score=0.15, detections=40),
)
# GT_BOXES and GT_LABELS there, in pixels of the original images.
TRUTH = (
    (
        (1, (8.3, 10.7, 65.3, 63.6)),
        (4, (30.2, 40.6, 111.4, 81.3)),
        (6, (60.9, 4.1, 98.6, 83.7)),
    ),
    ((2, (5.2, 30.4, 60.8, 82.1)), (4, (10.7, 68.9, 86.5, 107.3))),
)
MOST_TRUE = 4  # rows of the padded ground truth: one more than there are


@cache
def goldens(name: str) -> Goldens:
    """The arrays of goldens/<name>.npz."""
    return store.load(GOLDENS / f"{name}.npz")


@cache
def detector() -> FasterRCNN:
    """The goldens' detector with the recipe's weights under torchvision's names."""
    model = FasterRCNN(CONFIG, rng=0)
    shapes = {name: value.shape for name, value in model.named_state().items()}
    model.load_state_dict(recipe.recipe_weights(shapes))
    return model


def error(ours: Array, golden: Array) -> float:
    """max|ours - golden| / max|golden|, and infinity for another shape."""
    if ours.shape != golden.shape:
        return float("inf")
    wide = golden.astype(np.float64)
    return float(np.abs(ours - wide).max() / np.abs(wide).max()) if wide.size else 0.0


def summary_error(arrays: Goldens, key: str, ours: Array) -> float:
    """The relative error of an array under `key`, be it stored in full or as a summary."""
    if key in arrays:
        return error(ours, arrays[key])
    if f"{key}/shape" in arrays and ours.shape != tuple(arrays[f"{key}/shape"]):
        return float("inf")
    samples, (largest, norm) = arrays[f"{key}/samples"], arrays[f"{key}/stats"]
    found = recipe.sample(key, ours, len(samples))
    return max(
        float(np.abs(found - samples.astype(np.float64)).max() / largest),
        abs(float(np.abs(ours).max()) / largest - 1),
        abs(float(np.linalg.norm(ours.astype(np.float64))) / norm - 1),
    )


def made(name: str, *shape: int) -> NDArray[np.float32]:
    """The recipe's numbers under `alone/name`."""
    return recipe.uniform(f"alone/{name}", shape)


def batch(seed: int) -> dict[str, Array]:
    """The goldens' images and ground truth as a loader gives them: a training batch."""
    count = len(ORIGINAL_SIZES)
    images = np.zeros((count, 3, *PADDED), np.float32)
    sizes = np.zeros((count, 2), np.int32)
    boxes = np.zeros((count, MOST_TRUE, 4), np.float32)
    labels = np.zeros((count, MOST_TRUE), np.int32)
    for i, (height, width) in enumerate(ORIGINAL_SIZES):
        sizes[i] = RESIZE.size(height, width)
        picture = recipe.recipe_image(f"detector/{seed}/{i}", height, width) * np.float32(255)
        pixels = bilinear(picture.transpose(1, 2, 0), *sizes[i])
        normalise_into(images[i], pixels, MEAN, STD)
        entry = _entry(i, height, width)
        rows, kinds = training_boxes(entry, Draw(*(int(n) for n in sizes[i])))
        boxes[i, : len(rows)], labels[i, : len(rows)] = rows, kinds
    box_count = np.array([len(true) for true in TRUTH], np.int32)
    return {
        "images": images,
        "image_sizes": sizes,
        "boxes": boxes,
        "labels": labels,
        "box_count": box_count,
    }


def _entry(index: int, height: int, width: int) -> ImageEntry:
    objects = [Annotation(k, label, box, 0.0, False, None) for k, (label, box) in
               enumerate(TRUTH[index])]  # fmt: skip
    return ImageEntry(index, f"{index}.png", height, width, tuple(objects))


def rows_of(ours: Array, golden: Array, bar: float) -> list[int]:
    """Which row of `ours` each golden row is, each once: equal scores may change the order."""
    assert ours.shape == golden.shape
    far = np.abs(ours[None] - golden[:, None].astype(np.float64)).max(-1)
    rows = []
    for distances in far:
        row = int(distances.argmin())
        assert distances[row] <= bar
        far[:, row] = np.inf
        rows.append(row)
    return rows


def padded(rows: list[Array], size: int, dtype: type[np.generic]) -> Array:
    """Arrays of unlike lengths as one, with zero rows at the end: [N, size, ...]."""
    whole = np.zeros((len(rows), size, *rows[0].shape[1:]), dtype)
    for i, row in enumerate(rows):
        whole[i, : len(row)] = row
    return whole
