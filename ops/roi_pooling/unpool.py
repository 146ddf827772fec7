"""Inverse pooling, Precise RoI Pooling's normalised adjoint: a grid spread over pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from megbrain_py.dtypes import Array
from megbrain_py.graph import Var
from megbrain_py.ops.conv.geometry import pair, refuse
from megbrain_py.ops.roi_pooling.pooling import Linear, LinearAdjoint, LinearPooling
from megbrain_py.ops.roi_pooling.precise import bin_edges, integrals


@dataclass(frozen=True)
class Shares(Linear):
    """Base: how a pixel is shared among the bins; the shares of each touched pixel sum to 1."""

    own_maps: ClassVar[bool] = True

    def weights(self, low: float, high: float, scale: float, bins: int, pixels: int) -> Array:
        found = integrals(bin_edges(low, high, scale, bins), pixels)
        total = found.sum(0)
        return found / np.where(total > 0, total, 1.0)


@dataclass(frozen=True)
class PrroiUnpoolBackward(LinearPooling, Shares, kernel="prroi_unpool_backward"):
    """The gradient of PrroiUnpool for the grid: dy, boxes, count -> [N * R, C, *size]."""


@dataclass(frozen=True)
class PrroiUnpool(LinearAdjoint, Shares, kernel="prroi_unpool"):
    """grid, boxes, count -> windows [N * R, C, H, W]; `size` is the grid's."""

    forward = PrroiUnpoolBackward


PrroiUnpoolBackward.adjoint = PrroiUnpool


def prroi_unpool(grid: Var, boxes: Var, count: Var, size: int | tuple[int, int]) -> Var:
    """Spread the bins of each box over the pixels of its window: [N * R, C, H, W].

    grid: [N * R, C, h, w], one a box; boxes: float[N, R, 4] in pixels of the box's own window,
    pixel i at the coordinate i, (x1 - x of the window's first pixel, ...); count: int32[N], how
    many of the R are valid: the others give zeros. size: H, W of a window.
    With prroi_pool's weights V[p, i] in y and V'[q, j] in x, a pixel is
    sum of V[p, i] grid[p, q] V'[q, j] / (sum of V[p, i] over p * sum of V'[q, j] over q), and 0
    where that divisor is 0: constant grids give constant windows. Boxes get no gradient.
    To cut windows out of a map, see roi_pool. Source: this project (the mask generator).
    """
    if grid.rank != 4:
        raise refuse("prroi_unpool", f"grid must be [N * R, C, h, w], is {grid.type}")
    shape = (*grid.shape[:2], *pair("prroi_unpool", "size", size))
    op = PrroiUnpool((1.0,), 4, 224.0, (grid.shape[2], grid.shape[3]), (shape,))
    result: Var = op(grid, boxes, count)
    return result
