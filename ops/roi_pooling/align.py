"""RoI Align: the mean of bilinear samples in each bin."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from megbrain_py.dtypes import Array, TensorType
from megbrain_py.errors import require
from megbrain_py.graph import Var
from megbrain_py.ops.conv.geometry import pair
from megbrain_py.ops.roi_pooling.pooling import (
    Linear,
    LinearAdjoint,
    LinearPooling,
    pool,
)

Border = Literal["replicate", "zero"]


@dataclass(frozen=True)
class Samples(Linear):
    """Base of RoI Align and its gradient: where the samples lie and which pixels they read."""

    sampling_ratio: int
    aligned: bool
    border: Border

    def check(self, boxes: Sequence[TensorType], shapes: Sequence[Any]) -> None:
        super().check(boxes, shapes)
        require(
            self.border in ("replicate", "zero"),
            f"border must be 'replicate' or 'zero', is {self.border!r}",
        )

    def weights(self, low: float, high: float, scale: float, bins: int, pixels: int) -> Array:
        offset = 0.5 if self.aligned else 0.0
        start, end = low * scale - offset, high * scale - offset
        length = end - start if self.aligned else np.maximum(end - start, 1.0)
        found = np.zeros((bins, pixels))
        if not abs(length) < 1e9:
            return found
        grid = self.sampling_ratio if self.sampling_ratio > 0 else max(math.ceil(length / bins), 0)
        for b in range(bins):
            for i in range(grid):
                at = start + b * length / bins + (i + 0.5) * length / bins / grid
                if not -1.0 <= at <= pixels:
                    continue
                if self.border == "replicate":
                    at = min(max(at, 0.0), pixels - 1)
                left = math.floor(at)
                for pixel, part in ((left, 1 - (at - left)), (left + 1, at - left)):
                    if 0 <= pixel < pixels:
                        found[b, pixel] += part / grid
        return found


@dataclass(frozen=True)
class RoiAlign(LinearPooling, Samples, kernel="roi_align"):
    """Features of every level, rois, count[, level] -> [N * R, C, height, width]."""


@dataclass(frozen=True)
class RoiAlignBackward(LinearAdjoint, Samples, kernel="roi_align_backward"):
    """The gradient of RoiAlign for every feature map."""

    forward = RoiAlign


RoiAlign.adjoint = RoiAlignBackward


def roi_align(
    features: Sequence[Var],
    rois: Var,
    count: Var,
    size: int | tuple[int, int],
    scales: Sequence[float],
    *,
    sampling_ratio: int = 2,
    aligned: bool = False,
    border: Border = "replicate",
    level: Var | None = None,
    canonical_level: int = 4,
    canonical_scale: float = 224.0,
) -> Var:
    """Average of bilinear samples in each bin of each box: [N * R, C, height, width].

    features: one map [N, C, H_l, W_l] a pyramid level, finest first; scales: pixels of each map
    per pixel of the image (1/4, 1/8, ...). rois: float[N, R, 4], boxes x1, y1, x2, y2 in pixels
    of the image; count: int32[N], how many of the R are valid: the others give zeros.
    level: int32[N, R], the index of the map that each box is pooled from; zeros where there is
    no such map. None: by the box's area, as roi_levels says; a single map takes all.
    sampling_ratio: samples a bin and axis; <= 0: as many as the bin has pixels, rounded up.
    aligned: shift boxes by half a pixel and do not widen boxes below one pixel.
    border: what a sample at the map's edge reads beyond it: the edge's pixel again (torchvision)
    or zero (MegDNN). Samples more than a pixel outside give zero. Boxes get no gradient.
    Semantics: torchvision.ops.MultiScaleRoIAlign and roi_align.
    Source: He et al. 2017 (Mask R-CNN); Lin et al. 2017 (FPN).
    """
    op = RoiAlign(
        tuple(float(s) for s in scales), int(canonical_level), float(canonical_scale),
        pair("roi_align", "size", size), int(sampling_ratio), bool(aligned), border,
    )  # fmt: skip
    result: Var = pool(op, features, rois, count, level)
    return result
