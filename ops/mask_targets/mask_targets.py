"""Masks of objects, each cropped to its own pixels, averaged over the bins of boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from megbrain_py.dtypes import Array, DType, TensorType
from megbrain_py.errors import require
from megbrain_py.graph import Node, Operator, Var


@dataclass(frozen=True)
class MaskTargets(Operator, kernel="mask_targets"):
    """Masks, their places, image sizes, boxes, objects and count -> [N * R, size, size]."""

    size: int

    def infer(
        self,
        masks: TensorType,
        places: TensorType,
        image_sizes: TensorType,
        rois: TensorType,
        objects: TensorType,
        count: TensorType,
    ) -> TensorType:
        require(self.size >= 1, f"size must be at least 1, is {self.size}")
        require(
            masks.rank == 2 and masks.dtype == DType.uint8, f"masks must be uint8[N, P], is {masks}"
        )
        images = masks.shape[0]
        require(
            places.rank == 3 and places.shape[0] == images and places.shape[2] == 5,
            f"places must be int32[{images}, G, 5], is {places}",
        )
        require(
            rois.rank == 3 and rois.shape[0] == images and rois.shape[2] == 4,
            f"rois must be float32[{images}, R, 4], is {rois}",
        )
        require(rois.dtype.is_float, f"rois must be a float tensor, is {rois.dtype}")
        rows = rois.shape[1]
        for name, given, shape in (
            ("places", places, places.shape),
            ("image_sizes", image_sizes, (images, 2)),
            ("objects", objects, (images, rows)),
            ("count", count, (images,)),
        ):
            expected = TensorType(shape, DType.int32)
            require(given == expected, f"{name} must be {expected}, is {given}")
        return TensorType((images * rows, self.size, self.size), rois.dtype)

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        return [None] * len(node.inputs)  # a target is no function of the weights

    def samples(self, low: float, high: float, pixels: int) -> tuple[Array, Array]:
        """For each bin of an axis the positions that it averages, and which of them count."""
        length = max(high - low, 1.0)
        grid = math.ceil(length / self.size)
        steps = (np.arange(self.size * grid) + 0.5) * (length / self.size / grid)
        at = (low + steps).reshape(self.size, grid)
        return np.clip(at, 0, pixels - 1), (at >= -1) & (at <= pixels)

    def reference(
        self,
        masks: Array,
        places: Array,
        image_sizes: Array,
        rois: Array,
        objects: Array,
        count: Array,
    ) -> Array:
        images, rows = rois.shape[:2]
        y = np.zeros((images, rows, self.size, self.size), rois.dtype)
        for n in range(images):
            height, width = (int(v) for v in image_sizes[n])
            for r in range(min(int(count[n]), rows)):
                if not np.isfinite(rois[n, r]).all():
                    continue
                offset, top, left, h, w = (int(v) for v in places[n, objects[n, r]])
                whole = np.zeros((height + 1, width + 1))  # a border that is read with weight 0
                whole[top : top + h, left : left + w] = masks[n, offset : offset + h * w].reshape(
                    h, w
                )
                x1, y1, x2, y2 = (float(v) for v in rois[n, r])
                at_y, in_y = self.samples(y1, y2, height)
                at_x, in_x = self.samples(x1, x2, width)
                i, j = at_y.astype(int)[:, :, None, None], at_x.astype(int)
                fy, fx = at_y[:, :, None, None] - i, at_x - j
                upper = whole[i, j] * (1 - fx) + whole[i, j + 1] * fx
                lower = whole[i + 1, j] * (1 - fx) + whole[i + 1, j + 1] * fx
                value = (upper * (1 - fy) + lower * fy) * in_y[:, :, None, None] * in_x
                y[n, r] = value.mean((1, 3))
        return y.reshape(images * rows, self.size, self.size)


def mask_targets(
    masks: Var, places: Var, image_sizes: Var, rois: Var, objects: Var, count: Var, size: int
) -> Var:
    """The share of each bin of each box that an object's mask covers: [N * R, size, size].

    masks: uint8[N, P], the masks (0 or 1) of an image's objects one after the other, each cropped
    to a rectangle outside of which it is 0. places: int32[N, G, 5], of each object the first
    element in masks, and top, left, height, width of the rectangle in the image. image_sizes:
    int32[N, 2], (height, width). rois: float[N, R, 4], boxes x1, y1, x2, y2 in pixels; objects:
    int32[N, R], the object that each belongs to; count: int32[N], valid boxes: the others give 0.
    The result is exactly torchvision's target of Mask R-CNN, roi_align(mask, box, size, 1.0, -1,
    aligned=False) on the whole mask: nothing is lost by cropping. No gradient.
    Memory: the boxes of the objects, not objects times image.
    """
    result: Var = MaskTargets(int(size))(masks, places, image_sizes, rois, objects, count)
    return result
