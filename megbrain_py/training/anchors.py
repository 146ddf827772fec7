"""Anchor sizes from the sizes of a data set's objects."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from megbrain_py.data import CocoDataset, Resize
from megbrain_py.data.transforms import Draw, training_boxes
from megbrain_py.errors import DataError


def object_sizes(dataset: CocoDataset, resize: Resize) -> npt.NDArray[np.float64]:
    """float64[n]: square root of the area of each usable box, in pixels after the resize."""
    sizes = [np.zeros(0)]
    for image in dataset.images:
        drawn = Draw(*resize.size(image.height, image.width))
        boxes, _ = training_boxes(image, drawn)
        sides = (boxes[:, 2:] - boxes[:, :2]).astype(np.float64)
        sizes.append(np.sqrt(sides.prod(axis=1)))
    return np.concatenate(sizes)


def anchor_sizes(dataset: CocoDataset, resize: Resize, levels: int = 5) -> tuple[float, ...]:
    """One anchor size (square root of the area, pixels) a pyramid level, each twice the last.

    The middle level lies at the middle (on a log scale) of the 5 % and 95 % quantiles of object
    sizes after the resize; COCO at 800 pixels gives about the usual 32 to 512. DataError without
    objects.
    """
    sizes = object_sizes(dataset, resize)
    if not sizes.size:
        raise DataError(f"{dataset.annotation_file}: no objects to take anchor sizes from")
    low, high = np.percentile(sizes, [5, 95])
    first = np.sqrt(low * high) / 2 ** ((levels - 1) / 2)
    return tuple(float(max(1, round(first * 2**level))) for level in range(levels))
