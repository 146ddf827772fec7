"""RoI pooling over whole pixels: the largest of each bin, or their mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, cast

import numpy as np

from megbrain_py.dtypes import Array, DType, Layout, Shape, TensorType
from megbrain_py.errors import require
from megbrain_py.graph import Node, Var
from megbrain_py.ops.conv.geometry import pair, refuse
from megbrain_py.ops.roi_pooling.pooling import (
    Linear,
    LinearAdjoint,
    LinearPooling,
    RoiPooling,
    maps_and_boxes,
    pool,
)

Mean = Literal["avg", "deck_avg"]
Mode = Literal["max", "avg", "deck_avg"]


def rounded_bins(
    low: float, high: float, scale: float, bins: int, pixels: int
) -> list[tuple[int, int]]:
    """Pixels [first, last) of each bin: the box's edges are rounded to pixels, then the bins' are.

    In float32 whatever the element type, as in torchvision: products near whole numbers decide.
    """
    f32 = np.float32
    start, end = (float(_round(f32(v) * f32(scale))) for v in (low, high))
    length = max(end - start + 1, 1.0)
    if not (abs(start) < 1e9 and length < 1e9):
        return [(0, 0)] * bins
    step = f32(length) / f32(bins)
    edges = [
        (start + math.floor(f32(b) * step), start + math.ceil(f32(b + 1) * step))
        for b in range(bins)
    ]
    return [(int(np.clip(a, 0, pixels)), int(np.clip(b, 0, pixels))) for a, b in edges]


def _round(value: np.floating[Any]) -> Any:
    """To whole numbers, halves away from zero: C's round."""
    return np.copysign(np.floor(np.abs(np.float64(value)) + 0.5), value)


def covered_bins(
    low: float, high: float, scale: float, bins: int, pixels: int
) -> list[tuple[int, int]]:
    """Pixels [first, last) from floor(left edge) to ceil(right edge) of each bin, both included."""
    start, length = low * scale, high * scale - low * scale
    if not (abs(start) < 1e9 and 0 <= length < 1e9):
        return [(0, 0)] * bins
    edges = [start + b * length / bins for b in range(bins + 1)]
    return [
        (int(np.clip(math.floor(a), 0, pixels)), int(np.clip(math.ceil(b) + 1, 0, pixels)))
        for a, b in pairwise(edges)
    ]


@dataclass(frozen=True)
class Averages(Linear):
    """Base of average RoI pooling and its gradient."""

    mode: Mean

    def weights(self, low: float, high: float, scale: float, bins: int, pixels: int) -> Array:
        ranges = rounded_bins if self.mode == "avg" else covered_bins
        found = np.zeros((bins, pixels))
        for b, (first, last) in enumerate(ranges(low, high, scale, bins, pixels)):
            found[b, first:last] = 1 / max(last - first, 1)
        return found


@dataclass(frozen=True)
class RoiAvgPool(LinearPooling, Averages, kernel="roi_avg_pool"):
    """Features of every level, rois, count[, level] -> [N * R, C, height, width]."""


@dataclass(frozen=True)
class RoiAvgPoolBackward(LinearAdjoint, Averages, kernel="roi_avg_pool_backward"):
    """The gradient of RoiAvgPool for every feature map."""

    forward = RoiAvgPool


RoiAvgPool.adjoint = RoiAvgPoolBackward


@dataclass(frozen=True)
class RoiMaxPool(RoiPooling, kernel="roi_max_pool"):
    """As RoiAvgPool, and a second output int32: the winner's place y * W + x, or -1."""

    def infer(self, *inputs: TensorType) -> Sequence[TensorType]:
        features, boxes = self.split(inputs, len(self.scales))
        self.check(boxes, [t.shape for t in features])
        dtype = features[0].dtype
        require(
            dtype.is_float and all(t.dtype == dtype for t in (*features, boxes[0])),
            "feature maps and rois must have one float type",
        )
        shape = self.pooled(boxes[0], features[0].shape)
        return TensorType(shape, dtype), TensorType(shape, DType.int32)

    def layouts(self, inputs: Sequence[TensorType]) -> tuple[Sequence[Layout], Sequence[Layout]]:
        return maps_and_boxes(inputs, len(self.scales)), ["channels_last"] * 2

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        features, boxes = self.split(node.inputs, len(self.scales))
        op = RoiMaxPoolBackward(**self.fields, shapes=tuple(v.shape for v in features))
        made = op(dy[0], node.outputs[1], *boxes)
        return [*(made if isinstance(made, tuple) else [made]), *([None] * len(boxes))]

    def reference(self, *inputs: Array) -> Sequence[Array]:
        features, boxes = self.split(inputs, len(self.scales))
        y = np.zeros(self.pooled(boxes[0], features[0].shape), features[0].dtype)
        index = np.full(y.shape, -1, np.int32)
        for row, n, level, box in self.valid(boxes):
            (height, width), scale = features[level].shape[2:], self.scales[level]
            in_y = rounded_bins(box[1], box[3], scale, self.size[0], height)
            in_x = rounded_bins(box[0], box[2], scale, self.size[1], width)
            for p, (top, bottom) in enumerate(in_y):
                for q, (left, right) in enumerate(in_x):
                    if bottom <= top or right <= left:
                        continue
                    window = features[level][n, :, top:bottom, left:right]
                    flat = np.where(np.isnan(window), -np.inf, window).reshape(len(window), -1)
                    best, lowest = flat.max(1), np.finfo(np.float32).min
                    at_y, at_x = np.divmod(flat.argmax(1), right - left)
                    won = best > lowest
                    y[row, :, p, q] = np.where(won, best, lowest)
                    index[row, :, p, q] = np.where(won, (top + at_y) * width + left + at_x, -1)
        return y, index


@dataclass(frozen=True)
class RoiMaxPoolBackward(RoiPooling, kernel="roi_max_pool_backward"):
    """dy, the winners' places, rois, count[, level] -> maps; each dy goes to the winner."""

    shapes: tuple[Shape, ...]

    def infer(self, *inputs: TensorType) -> list[TensorType]:
        (dy, index), boxes = self.split(inputs, 2)
        self.check(boxes, self.shapes)
        expected = self.pooled(boxes[0], self.shapes[0])
        require(dy.shape == expected, f"dy must have shape {expected}, has {dy.shape}")
        require(dy.dtype.is_float, f"dy must be a float tensor, is {dy.dtype}")
        require(
            index.shape == expected and index.dtype == DType.int32,
            f"index must be int32 of shape {expected}, is {index}",
        )
        return [TensorType(shape, dy.dtype) for shape in self.shapes]

    def layouts(self, inputs: Sequence[TensorType]) -> tuple[Sequence[Layout], Sequence[Layout]]:
        return maps_and_boxes(inputs, 2), ["channels_last"] * len(self.shapes)

    def reference(self, *inputs: Array) -> list[Array]:
        (dy, index), boxes = self.split(inputs, 2)
        maps = [np.zeros(shape, dy.dtype) for shape in self.shapes]
        for row, n, level, _ in self.valid(boxes):
            flat = maps[level][n].reshape(self.shapes[level][1], -1)
            for c, p, q in np.argwhere(index[row] >= 0):
                flat[c, index[row, c, p, q]] += dy[row, c, p, q]
        return maps


def roi_pool(
    features: Sequence[Var],
    rois: Var,
    count: Var,
    size: int | tuple[int, int],
    scales: Sequence[float],
    mode: Mode = "max",
    *,
    level: Var | None = None,
    canonical_level: int = 4,
    canonical_scale: float = 224.0,
) -> Var:
    """The largest pixel of each bin of each box, or their mean: [N * R, C, height, width].

    features, rois, count, scales, level: as in roi_align. Bins without a pixel give 0.
    mode: "max" and "avg" round a box's corners to pixels, halves away from zero, the last pixel
    included, and bins outwards; the map's end cuts them. NaN never wins, the gradient goes to
    the first of equal values, and a bin without a value above float32's lowest gives that
    (torchvision.ops.roi_pool; MegDNN's ROIPooling has both modes).
    "deck_avg": the mean of the pixels floor(x1) .. ceil(x2) of each bin, which is what the MegDet
    talk calls RoI Pooling; that the map's end cuts it, in the divisor too, is our reading.
    Boxes get no gradient. With cut windows it is exact: boxes with whole corners x, y,
    x + W - 1, y + H - 1 in pixels of the map and `size` (H, W) copy these pixels.
    Source: Girshick 2015 (Fast R-CNN).
    """
    if mode not in ("max", "avg", "deck_avg"):
        raise refuse("roi_pool", f"mode must be 'max', 'avg' or 'deck_avg', is {mode!r}")
    common = (
        tuple(float(s) for s in scales), int(canonical_level), float(canonical_scale),
        pair("roi_pool", "size", size),
    )  # fmt: skip
    if mode == "max":
        return cast("Var", pool(RoiMaxPool(*common), features, rois, count, level)[0])
    return cast("Var", pool(RoiAvgPool(*common, mode), features, rois, count, level))
