"""Precise RoI Pooling: the mean of the interpolated map over each bin, exact, differentiable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from megbrain_py.dtypes import Array, Layout, TensorType
from megbrain_py.errors import require
from megbrain_py.graph import Node, Var
from megbrain_py.ops.conv.geometry import pair
from megbrain_py.ops.roi_pooling.pooling import (
    Linear,
    LinearAdjoint,
    LinearPooling,
    RoiPooling,
    maps_and_boxes,
    pool,
)


def hat(t: Array) -> Array:
    """max(0, 1 - |t|): what a pixel adds to the interpolated map at distance t."""
    return np.maximum(0.0, 1.0 - np.abs(t))


def hat_integral(t: Array) -> Array:
    """The integral of `hat` up to t."""
    t = np.clip(t, -1.0, 1.0)
    return np.where(t < 0, (t + 1) ** 2 / 2, 0.5 + t - t * t / 2)


def bin_edges(low: float, high: float, scale: float, bins: int) -> Array:
    """float64[bins + 1] in pixels of the map; all 0, an empty box, unless high > low."""
    start, length = low * scale, high * scale - low * scale
    if not (length > 0 and np.isfinite(start) and np.isfinite(length)):
        return np.zeros(bins + 1)
    return np.asarray(start + np.arange(bins + 1) * length / bins)


def integrals(edges: Array, pixels: int) -> Array:
    """float64[bins, pixels]: the integral of each pixel's hat over each bin."""
    below = hat_integral(edges[:, None] - np.arange(pixels))
    return np.asarray(below[1:] - below[:-1])


@dataclass(frozen=True)
class Integrals(Linear):
    """Base of Precise RoI Pooling and its gradients: integrals of hats, over the bin's length."""

    def weights(self, low: float, high: float, scale: float, bins: int, pixels: int) -> Array:
        edges = bin_edges(low, high, scale, bins)
        width = (edges[-1] - edges[0]) / bins
        return integrals(edges, pixels) / (width if width > 0 else 1.0)


@dataclass(frozen=True)
class PrroiPool(LinearPooling, Integrals, kernel="prroi_pool"):
    """Features of every level, rois, count[, level] -> [N * R, C, height, width]."""

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        to_features = super().grad(node, *dy)[: len(self.scales)]
        to_rois = PrroiPoolBoxGrad(**self.fields)(dy[0], *node.inputs)
        return [*to_features, to_rois, *([None] * (len(node.inputs) - len(self.scales) - 1))]


@dataclass(frozen=True)
class PrroiPoolBackward(LinearAdjoint, Integrals, kernel="prroi_pool_backward"):
    """The gradient of PrroiPool for every feature map."""

    forward = PrroiPool

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        return RoiPooling.grad(self, node, *dy)  # refuses: it would need one for the boxes


PrroiPool.adjoint = PrroiPoolBackward


@dataclass(frozen=True)
class PrroiPoolBoxGrad(Linear, kernel="prroi_pool_box_grad"):
    """The gradient of PrroiPool for the boxes: dy and its inputs -> [N, R, 4]."""

    def infer(self, *inputs: TensorType) -> TensorType:
        (dy, *features), boxes = self.split(inputs, 1 + len(self.scales))
        self.check(boxes, [t.shape for t in features])
        expected = self.pooled(boxes[0], features[0].shape)
        require(dy.shape == expected, f"dy must have shape {expected}, has {dy.shape}")
        return TensorType(boxes[0].shape, boxes[0].dtype)

    def layouts(self, inputs: Sequence[TensorType]) -> tuple[Sequence[Layout], Sequence[Layout]]:
        return maps_and_boxes(inputs, 1 + len(self.scales)), ["rows"]

    weights = Integrals.weights

    def reference(self, *inputs: Array) -> Array:
        """Line integrals of the map along the bins' edges against the bins' means."""
        (dy, *features), boxes = self.split(inputs, 1 + len(self.scales))
        found = np.zeros((boxes[0].shape[0] * boxes[0].shape[1], 4))
        for row, n, level, box in self.valid(boxes):
            x = features[level][n].astype(np.float64)
            upstream, scale = dy[row].astype(np.float64), self.scales[level]
            with np.errstate(invalid="ignore", over="ignore"):
                in_y = bin_edges(box[1], box[3], scale, self.size[0])
                in_x = bin_edges(box[0], box[2], scale, self.size[1])
            if not (in_y[-1] > in_y[0] and in_x[-1] > in_x[0]):
                continue
            found[row, 0::2] = scale * _axis_gradient(x, upstream, in_y, in_x)
            found[row, 1::2] = scale * _axis_gradient(
                x.swapaxes(1, 2), upstream.swapaxes(1, 2), in_x, in_y
            )
        return found.reshape(boxes[0].shape).astype(boxes[0].dtype)


def _axis_gradient(x: Array, dy: Array, in_y: Array, in_x: Array) -> Array:
    """[2]: how the loss changes with the first and the last of the edges `in_x`."""
    bins = len(in_x) - 1
    height, width = np.diff(in_y)[:, None], np.diff(in_x)
    over_y = integrals(in_y, x.shape[1])
    mean = over_y @ x @ integrals(in_x, x.shape[2]).T / (height * width)
    lines = over_y @ x @ hat(in_x[:, None] - np.arange(x.shape[2])).T  # [C, bins in y, edges]
    area = height * width
    left = (dy * (height * mean - lines[..., :-1]) / area).sum((0, 1))
    right = (dy * (lines[..., 1:] - height * mean) / area).sum((0, 1))
    part = np.arange(bins + 1) / bins  # of the last edge in each edge
    first = (left * (1 - part[:-1]) + right * (1 - part[1:])).sum()
    last = (left * part[:-1] + right * part[1:]).sum()
    return np.array([first, last])


def prroi_pool(
    features: Sequence[Var],
    rois: Var,
    count: Var,
    size: int | tuple[int, int],
    scales: Sequence[float],
    *,
    level: Var | None = None,
    canonical_level: int = 4,
    canonical_scale: float = 224.0,
) -> Var:
    """The mean of the bilinearly interpolated map over each bin: [N * R, C, height, width].

    features, rois, count, scales, level: as in roi_align. Pixel i lies at the coordinate i (there
    is no shift by half a pixel); what lies outside of the map counts as 0, and in the divisor.
    Nothing is sampled or rounded: the integral is exact, and both features and boxes get
    gradients. A box without area, or that is not finite, gives 0 and gets no gradient. The cost
    of a box is bounded by that of one over the whole map. Gradients of gradients are refused.
    Source: Jiang et al. 2018 (IoU-Net); its own code gives the same (vacancy/PreciseRoIPooling).
    """
    op = PrroiPool(
        tuple(float(s) for s in scales), int(canonical_level), float(canonical_scale),
        pair("prroi_pool", "size", size),
    )  # fmt: skip
    result: Var = pool(op, features, rois, count, level)
    return result
