"""Masks of boxes that are already decided, from all views and detectors: mean of probabilities."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from megbrain_py.compiler import SpecializedFunction
from megbrain_py.data import CocoDataset, ImageEntry
from megbrain_py.data.masks import THRESHOLD, encode, paste, paste_window
from megbrain_py.dtypes import Array
from megbrain_py.training.views import ScoredBoxes, View, looks

_AT_ONCE = 128  # pictures whose maps are in memory


@dataclass(frozen=True)
class Maps:
    """What one view says of a picture's boxes, upright: maps [D, S, S], and where they lie on
    pixels, windows [D, 3], of the picture as it was `seen` (height, width)."""

    maps: Array
    windows: Array | None
    seen: tuple[int, int]


def masks_of_all(
    detectors: Sequence[Any],
    views: Sequence[View],
    dataset: CocoDataset,
    found: Mapping[int, ScoredBoxes],
    *,
    rows: int,
    batch: int,
    workers: int,
    progress: Callable[[int, str], None] | None,
) -> dict[int, list[dict[str, Any]]]:
    """Run lengths of the mask of each box of each picture, by image id.

    Each detector masks the boxes in each view; the maps are laid into the picture, and a pixel
    belongs to an object when their mean says more than 1 / 2. `rows`: the most boxes of a picture.
    """
    functions = [SpecializedFunction(trained.model.masks_of, 8) for trained in detectors]
    made: dict[int, list[dict[str, Any]]] = {}
    for start in range(0, len(dataset.images), _AT_ONCE):
        part = dataset.take(range(start, min(start + _AT_ONCE, len(dataset.images))))
        said: dict[int, list[Maps]] = {image.id: [] for image in part.images}
        for look in looks(detectors, views, part, batch=batch, workers=workers, progress=progress):
            given = look.batch
            placed = _placed(given, look.view, found, rows)
            answer = functions[look.detector](
                images=given["images"], image_sizes=given["image_sizes"], **placed
            )
            for row in look.pictures:
                n = int(placed["count"][row])
                height, width = given["image_sizes"][row].tolist()
                maps = _upright(answer, row, n, look.view, (height, width))
                said[int(given["image_ids"][row])].append(maps)
        for image in part.images:
            made[image.id] = [
                _mean_mask(said[image.id], d, box, image)
                for d, box in enumerate(found[image.id].boxes)
            ]
    return made


def _placed(
    given: Mapping[str, Array], view: View, found: Mapping[int, ScoredBoxes], rows: int
) -> dict[str, Any]:
    """The boxes of a batch's pictures where they lie in this view: boxes, labels, count."""
    size = len(given["image_ids"])
    boxes, labels = np.zeros((size, rows, 4), np.float32), np.zeros((size, rows), np.int32)
    count = np.zeros(size, np.int32)
    for row, key in enumerate(given["image_ids"].tolist()):
        if key < 0:
            continue
        own = found[key]
        n = count[row] = len(own.scores)
        boxes[row, :n] = view.in_view(own.boxes, given, row)
        labels[row, :n] = own.labels
    return {"boxes": boxes, "labels": labels, "count": count}


def _upright(
    answer: Mapping[str, Array], row: int, n: int, view: View, seen: tuple[int, int]
) -> Maps:
    """A picture's maps as if its view had not been mirrored."""
    maps = answer["masks"][row, :n]
    windows = answer["mask_windows"][row, :n].copy() if "mask_windows" in answer else None
    if view.flip:
        maps = maps[:, :, ::-1]
        if windows is not None:  # x of the first pixel's middle, y, distance of two
            last = windows[:, 0] + (maps.shape[2] - 1) * windows[:, 2]
            windows[:, 0] = seen[1] - 1 - last
    return Maps(maps, windows, seen)


def _mean_mask(said: Sequence[Maps], d: int, box: Array, image: ImageEntry) -> dict[str, Any]:
    """Run lengths of the mean of all maps of a box, each 0 where it says nothing."""
    size = image.height, image.width
    patches = [
        paste(view.maps[d], box, *size)
        if view.windows is None
        else paste_window(view.maps[d], view.windows[d], box, size, view.seen)
        for view in said
    ]
    top, left = min(y for y, _, _ in patches), min(x for _, x, _ in patches)
    bottom = max(y + values.shape[0] for y, _, values in patches)
    right = max(x + values.shape[1] for _, x, values in patches)
    total = np.zeros((bottom - top, right - left), np.float32)
    for y, x, values in patches:
        total[y - top :, x - left :][: values.shape[0], : values.shape[1]] += values
    return encode(total / len(patches) > THRESHOLD, top, left, *size)
