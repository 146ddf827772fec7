"""What both sides of a comparison are fed: the same numbers, as plain numpy arrays.

This file imports nothing of the package: see worker.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

CLASSES = 80  # of the detector, as in COCO
NMS_IOU = 0.5


def classification(batch: int, size: int, classes: int = 1000) -> tuple[Array, Array]:
    """Pictures [N, 3, S, S] and their labels."""
    rng = np.random.default_rng(0)
    pictures = rng.standard_normal((batch, 3, size, size), np.float32)
    return pictures, rng.integers(0, classes, batch)


def random_boxes(rng: np.random.Generator, count: int, size: float, least: float = 8.0) -> Array:
    """Boxes x1, y1, x2, y2 inside a square picture, sides from `least` pixels to half of it."""
    sides = np.exp(rng.uniform(np.log(least), np.log(size / 2), (count, 2)))
    first = rng.uniform(0.0, 1.0, (count, 2)) * (size - sides)
    return np.concatenate([first, first + sides], 1).astype(np.float32)


def detection(batch: int, size: int, boxes: int) -> dict[str, Array]:
    """A batch as the loader makes it: square pictures with some true boxes each."""
    rng = np.random.default_rng(0)
    return {
        "images": rng.standard_normal((batch, 3, size, size), np.float32),
        "image_sizes": np.full((batch, 2), size, np.int32),
        "boxes": np.stack([random_boxes(rng, boxes, size, 32.0) for _ in range(batch)]),
        "labels": rng.integers(1, CLASSES + 1, (batch, boxes)).astype(np.int32),
        "box_count": np.full(batch, boxes, np.int32),
        "image_ids": np.arange(batch),
    }


@dataclass(frozen=True)
class RoiAlign:
    """One feature map [1, C, S, S], boxes [R, 4] on its picture, dy [R, C, 7, 7]."""

    features: Array
    boxes: Array
    gradient: Array
    scale: float


def roi_align(rois: int, channels: int, side: int) -> RoiAlign:
    """A map at a quarter of the picture's resolution."""
    rng = np.random.default_rng(0)
    scale = 0.25
    return RoiAlign(
        rng.standard_normal((1, channels, side, side), np.float32),
        random_boxes(rng, rois, side / scale),
        rng.standard_normal((rois, channels, 7, 7), np.float32),
        scale,
    )


def nms(count: int) -> tuple[Array, Array]:
    """Boxes [R, 4] in a picture of 800 pixels, and scores."""
    rng = np.random.default_rng(0)
    return random_boxes(rng, count, 800.0), rng.uniform(size=count).astype(np.float32)
