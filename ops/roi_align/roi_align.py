"""RoI Align over all levels of a feature pyramid in one call, and its gradient."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from megbrain_py.dtypes import Array, DType, Layout, Shape, TensorType
from megbrain_py.errors import require
from megbrain_py.graph import Node, Operator, Var, constant

Taps: TypeAlias = list[tuple[int, float]]  # (pixel, weight) along one axis


@dataclass(frozen=True)
class RoiPooling(Operator):
    """Base of RoI Align and its gradient: which pixels a bin reads, with which weights."""

    size: tuple[int, int]
    sampling_ratio: int
    aligned: bool
    scales: tuple[float, ...]
    canonical_level: int
    canonical_scale: float

    def check(self, rois: TensorType, count: TensorType, shapes: Sequence[Shape]) -> None:
        """Refuse what does not fit; `shapes` are those of the feature maps."""
        require(min(self.size) >= 1, f"the output must be at least 1x1, is {self.size}")
        require(len(shapes) >= 1, "at least one feature map is needed")
        require(
            len(self.scales) == len(shapes),
            f"{len(shapes)} feature maps, {len(self.scales)} scales",
        )
        require(min(self.scales) > 0, f"scales must be positive, are {self.scales}")
        require(all(len(s) == 4 for s in shapes), "feature maps must be [N, C, H, W]")
        first = shapes[0][:2]
        require(
            all(s[:2] == first and min(s[2:]) >= 1 for s in shapes),
            f"feature maps must share N and C and have pixels, are {', '.join(map(str, shapes))}",
        )
        require(
            rois.rank == 3 and rois.shape[0] == first[0] and rois.shape[2] == 4,
            f"rois must be [{first[0]}, R, 4], is {rois}",
        )
        require(rois.dtype.is_float, f"rois must be a float tensor, is {rois.dtype}")
        require(
            count.shape == (first[0],) and count.dtype == DType.int32,
            f"count must be int32[{first[0]}], is {count}",
        )

    def level_of(self, box: Array) -> int:
        """Index of the feature map that a box is pooled from (Lin et al. 2017, equation 1)."""
        levels = len(self.scales)
        area = float((box[2] - box[0]) * (box[3] - box[1]))
        if levels == 1 or not area > 0:
            return 0
        lowest = round(-math.log2(self.scales[0]))
        level = self.canonical_level + math.log2(math.sqrt(area) / self.canonical_scale)
        return min(max(math.floor(level + 1e-6) - lowest, 0), levels - 1)

    def taps(self, low: float, high: float, scale: float, bins: int, pixels: int) -> list[Taps]:
        """For each bin of one axis the pixels it reads: bilinear samples, averaged."""
        offset = 0.5 if self.aligned else 0.0
        start, end = low * scale - offset, high * scale - offset
        length = end - start if self.aligned else max(end - start, 1.0)
        grid = self.sampling_ratio if self.sampling_ratio > 0 else max(math.ceil(length / bins), 0)
        found: list[Taps] = []
        for b in range(bins):
            taps: Taps = []
            for i in range(grid):
                at = start + b * length / bins + (i + 0.5) * length / bins / grid
                if not -1.0 <= at <= pixels:
                    continue
                at = min(max(at, 0.0), pixels - 1)
                left = min(int(at), pixels - 1)
                right = min(left + 1, pixels - 1)
                taps += [(left, (1 - (at - left)) / grid), (right, (at - left) / grid)]
            found.append(taps)
        return found

    def bins(
        self, rois: Array, count: Array, shapes: Sequence[Shape]
    ) -> Iterator[tuple[int, int, int, int, int, Taps, Taps]]:
        """(image, row, level, p, q, taps in y, taps in x) of every bin of the valid rois."""
        for n in range(rois.shape[0]):
            for r in range(min(int(count[n]), rois.shape[1])):
                box = rois[n, r]
                level = self.level_of(box)
                scale, (height, width) = self.scales[level], shapes[level][2:]
                rows = self.taps(box[1], box[3], scale, self.size[0], height)
                columns = self.taps(box[0], box[2], scale, self.size[1], width)
                for p, in_y in enumerate(rows):
                    for q, in_x in enumerate(columns):
                        yield n, r, level, p, q, in_y, in_x


@dataclass(frozen=True)
class RoiAlign(RoiPooling, kernel="roi_align"):
    """Features of every level, rois and their count -> [N * R, C, height, width]."""

    def infer(self, *inputs: TensorType) -> TensorType:
        require(len(inputs) >= 3, f"takes feature maps, rois and count, found {len(inputs)} inputs")
        *features, rois, count = inputs
        self.check(rois, count, [t.shape for t in features])
        dtype = features[0].dtype
        require(
            dtype.is_float and all(t.dtype == dtype for t in (*features, rois)),
            "feature maps and rois must have one float type",
        )
        return TensorType((rois.shape[0] * rois.shape[1], features[0].shape[1], *self.size), dtype)

    def layouts(self, inputs: Sequence[TensorType]) -> tuple[Sequence[Layout], Sequence[Layout]]:
        features: list[Layout] = ["channels_last"] * (len(inputs) - 2)
        return [*features, "rows", "rows"], ["channels_last"]

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        *features, rois, count = node.inputs
        shapes = tuple(v.shape for v in features)
        made = self.backward(shapes)(dy[0], rois, count)
        return [*(made if isinstance(made, tuple) else [made]), None, None]

    def backward(self, shapes: tuple[Shape, ...]) -> RoiAlignBackward:
        """The adjoint of this operator for features of these shapes."""
        return RoiAlignBackward(
            self.size, self.sampling_ratio, self.aligned, self.scales, self.canonical_level,
            self.canonical_scale, shapes,
        )  # fmt: skip

    def reference(self, *inputs: Array) -> Array:
        *features, rois, count = inputs
        images, rows = rois.shape[:2]
        y = np.zeros((images, rows, features[0].shape[1], *self.size), features[0].dtype)
        for n, r, level, p, q, in_y, in_x in self.bins(rois, count, [f.shape for f in features]):
            for i, wi in in_y:
                for j, wj in in_x:
                    y[n, r, :, p, q] += wi * wj * features[level][n, :, i, j]
        return y.reshape(images * rows, *y.shape[2:])


@dataclass(frozen=True)
class RoiAlignBackward(RoiPooling, kernel="roi_align_backward"):
    """The gradient of RoiAlign for every feature map: dy, rois and count -> one map a level."""

    shapes: tuple[Shape, ...]

    def attrs(self) -> dict[str, Any]:
        values = super().attrs()
        del values["shapes"]  # the kernel sees its outputs
        return values

    def infer(self, dy: TensorType, rois: TensorType, count: TensorType) -> list[TensorType]:
        self.check(rois, count, self.shapes)
        expected = (rois.shape[0] * rois.shape[1], self.shapes[0][1], *self.size)
        require(dy.shape == expected, f"dy must have shape {expected}, has {dy.shape}")
        require(dy.dtype.is_float, f"dy must be a float tensor, is {dy.dtype}")
        return [TensorType(shape, dy.dtype) for shape in self.shapes]

    def layouts(self, inputs: Sequence[TensorType]) -> tuple[Sequence[Layout], Sequence[Layout]]:
        return ["channels_last", "rows", "rows"], ["channels_last"] * len(self.shapes)

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        _, rois, count = node.inputs
        outputs = zip(node.outputs, dy, strict=True)
        maps = [constant(np.zeros(v.shape, v.dtype.numpy)) if d is None else d for v, d in outputs]
        forward = RoiAlign(
            self.size, self.sampling_ratio, self.aligned, self.scales, self.canonical_level,
            self.canonical_scale,
        )  # fmt: skip
        return [forward(*maps, rois, count), None, None]

    def reference(self, dy: Array, rois: Array, count: Array) -> list[Array]:
        images, rows = rois.shape[:2]
        dy = dy.reshape(images, rows, *dy.shape[1:])
        maps = [np.zeros(shape, dy.dtype) for shape in self.shapes]
        for n, r, level, p, q, in_y, in_x in self.bins(rois, count, self.shapes):
            for i, wi in in_y:
                for j, wj in in_x:
                    maps[level][n, :, i, j] += wi * wj * dy[n, r, :, p, q]
        return maps


def roi_align(
    features: Sequence[Var],
    rois: Var,
    count: Var,
    size: int | tuple[int, int],
    scales: Sequence[float],
    *,
    sampling_ratio: int = 2,
    aligned: bool = False,
    canonical_level: int = 4,
    canonical_scale: float = 224.0,
) -> Var:
    """Average of bilinear samples in each bin of each box: [N * R, C, height, width].

    features: one map [N, C, H_l, W_l] a pyramid level, finest first; scales: pixels of each map
    per pixel of the image (1/4, 1/8, ...). rois: float[N, R, 4], boxes x1, y1, x2, y2 in pixels
    of the image; count: int32[N], how many of the R are valid: the others give zeros.
    A box is pooled from level floor(canonical_level + log2(sqrt(area) / canonical_scale) + 1e-6),
    where levels are named by -log2(scale), clamped to the given ones; a single map takes all.
    sampling_ratio: samples a bin and axis; <= 0: as many as the bin has pixels, rounded up.
    aligned: shift boxes by half a pixel and do not widen boxes below one pixel.
    Boxes get no gradient. Semantics: torchvision.ops.MultiScaleRoIAlign and roi_align.
    Source: He et al. 2017 (Mask R-CNN); Lin et al. 2017 (FPN).
    """
    sizes = (size, size) if isinstance(size, (int, np.integer)) else (int(size[0]), int(size[1]))
    op = RoiAlign(
        sizes, int(sampling_ratio), bool(aligned), tuple(float(s) for s in scales),
        int(canonical_level), float(canonical_scale),
    )  # fmt: skip
    result: Var = op(*features, rois, count)
    return result
