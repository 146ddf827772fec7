"""Examples of mask targets: objects at the border, boxes beside them, empty masks, no boxes."""

from __future__ import annotations

from typing import Any

import numpy as np

from megbrain_py import functional as F
from megbrain_py.dtypes import Array
from megbrain_py.op_testing import Benchmark, Case, ErrorCase


def _scene(
    images: int, objects: int, rows: int, size: tuple[int, int], *, spare: int = 0, seed: int = 0
) -> dict[str, Array]:
    """Random masks in rectangles within the image, and boxes around or beside them."""
    rng = np.random.default_rng([seed, images, objects, rows])
    corner = rng.uniform(0, 0.8, (images, objects, 2)) * size
    sides = np.minimum(rng.uniform(0.02, 0.5, corner.shape) * size + 1, np.array(size) - corner)
    rectangles = np.concatenate([corner, sides], -1).astype(np.int32)  # top, left, height, width
    areas = rectangles[..., 2] * rectangles[..., 3]
    ends = np.cumsum(areas, 1)
    places = np.concatenate([(ends - areas)[..., None], rectangles], -1).astype(np.int32)
    most = int(ends.max(initial=0)) + spare
    masks = (rng.random((images, most)) < 0.6).astype(np.uint8)
    chosen = rng.integers(0, max(objects, 1), (images, rows)).astype(np.int32)
    place = (
        np.take_along_axis(rectangles, chosen[..., None], 1)
        if objects
        else np.zeros((images, rows, 4), np.int32)
    )
    y1, x1, h, w = np.moveaxis(place.astype(np.float64), -1, 0)
    boxes = np.stack([x1, y1, x1 + w, y1 + h], -1) + rng.normal(0, 4, (images, rows, 4))
    return {
        "masks": masks,
        "places": places,
        "image_sizes": np.tile(np.array([size], np.int32), (images, 1)),
        "rois": boxes.astype(np.float32),
        "objects": chosen,
        "count": np.full(images, rows, np.int32),
    }


def _targets(size: int) -> Any:
    return lambda **inputs: F.mask_targets(**inputs, size=size)


def _changed(inputs: dict[str, Array], **changes: Any) -> dict[str, Array]:
    return {**inputs, **{name: np.array(v, inputs[name].dtype) for name, v in changes.items()}}


_ONE = _scene(1, 2, 2, (20, 30), spare=7)
# The whole image, beyond each border, thinner than a pixel, inverted, without an end.
_BORDER = _changed(
    _scene(1, 1, 7, (17, 23)),
    masks=np.ones((1, 17 * 23)), places=[[[0, 0, 0, 17, 23]]], objects=np.zeros((1, 7)),
    rois=[[[0, 0, 23, 17], [-9, -9, 40, 5], [15, 9, 60, 60], [-30, -30, -10, -10],
           [4.3, 5.1, 4.4, 5.2], [9, 9, 3, 4], [0, 0, np.inf, 8]]],
)  # fmt: skip

CASES = [
    Case("many", _targets(28), _scene(2, 5, 9, (50, 70)), grad=()),
    Case("odd_size", _targets(5), _scene(2, 3, 4, (33, 20)), grad=()),
    Case("one_bin", _targets(1), _ONE, grad=()),
    Case("border", _targets(7), _BORDER, grad=()),
    Case("few_valid", _targets(14), _changed(_scene(2, 3, 6, (40, 40)), count=[2, 0]), grad=()),
    Case("empty_mask", _targets(4), _changed(_ONE, places=[[[0, 3, 4, 0, 0]] * 2]), grad=()),
    Case("no_objects", _targets(4), _changed(_scene(2, 0, 3, (9, 9)), count=[0, 0]), grad=()),
    Case("no_boxes", _targets(4), _scene(2, 2, 0, (9, 9)), grad=()),
    Case("no_images", _targets(4), _scene(0, 2, 3, (9, 9)), grad=()),
    Case("large", _targets(28), _scene(1, 3, 8, (300, 400)), grad=()),
]  # fmt: skip
ERRORS = [
    ErrorCase("masks", _targets(4), {**_ONE, "masks": _ONE["masks"][0]},
              "mask_targets: masks must be uint8[N, P]"),
    ErrorCase("places", _targets(4), {**_ONE, "places": _ONE["places"][..., :4]},
              "mask_targets: places must be int32[1, G, 5]"),
    ErrorCase("objects", _targets(4), {**_ONE, "objects": _ONE["objects"].astype(np.int64)},
              "mask_targets: objects must be int32[1,2], is int64[1,2]"),
    ErrorCase("size", _targets(0), _ONE, "mask_targets: size must be at least 1, is 0"),
]  # fmt: skip

BENCHMARKS = [
    Benchmark("mask_rcnn", _targets(28), lambda: _scene(2, 8, 128, (800, 1088))),
    Benchmark("small_objects", _targets(28), lambda: _scene(8, 64, 64, (256, 256))),
]
