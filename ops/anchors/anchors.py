"""Anchors: boxes of fixed sizes and shapes at every pixel of a feature map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from megbrain_py.dtypes import Array, DType, TensorType
from megbrain_py.errors import require
from megbrain_py.graph import Operator, Var


@dataclass(frozen=True)
class Anchors(Operator, kernel="anchors"):
    """`cells` (A boxes around the origin, flat) moved to every pixel: [H * W * A, 4]."""

    cells: tuple[float, ...]
    grid: tuple[int, int]  # H, W of the feature map
    stride: tuple[int, int]  # pixels of the image, vertical and horizontal

    def infer(self) -> TensorType:
        require(len(self.cells) % 4 == 0, f"cells must hold boxes, have {len(self.cells)} numbers")
        require(min(self.grid) >= 0, f"the grid must not be negative, is {self.grid}")
        require(min(self.stride) >= 1, f"the stride must be at least 1, is {self.stride}")
        rows = self.grid[0] * self.grid[1] * len(self.cells) // 4
        return TensorType((rows, 4), DType.float32)

    def reference(self) -> Array:
        y, x = np.meshgrid(*(np.arange(n) * s for n, s in zip(self.grid, self.stride, strict=True)),
                           indexing="ij")  # fmt: skip
        shifts = np.stack([x, y, x, y], -1).reshape(-1, 1, 4).astype(np.float32)
        cells = np.array(self.cells, np.float32).reshape(1, -1, 4)
        return (shifts + cells).reshape(-1, 4)


def cell_anchors(sizes: Sequence[float], ratios: Sequence[float]) -> Array:
    """float32[len(ratios) * len(sizes), 4]: boxes around the origin, ratios outer, sizes inner.

    A box of size s (pixels) and ratio r has height s * sqrt(r) and width s / sqrt(r); its corners
    are rounded, half to even.
    """
    high = np.sqrt(np.asarray(ratios, np.float32))
    wide = np.float32(1) / high
    size = np.asarray(sizes, np.float32)
    h, w = (high[:, None] * size).reshape(-1), (wide[:, None] * size).reshape(-1)
    cells: Array = np.round(np.stack([-w, -h, w, h], 1) / np.float32(2))
    return cells


def anchors(
    grid: tuple[int, int],
    image: tuple[int, int],
    sizes: Sequence[float],
    ratios: Sequence[float] = (0.5, 1.0, 2.0),
) -> Var:
    """Anchors of one pyramid level, x1, y1, x2, y2 in pixels of the image: float32[H * W * A, 4].

    grid: (H, W) of the feature map; image: (height, width) of the padded images; the stride is
    image // grid, and the first anchor is centred on the corner (0, 0). sizes: pixels; ratios:
    height / width; A = len(sizes) * len(ratios), ratios outer. Rows run over y, x, anchor.
    Semantics: torchvision's AnchorGenerator.
    """
    stride = image[0] // max(grid[0], 1), image[1] // max(grid[1], 1)
    cells = tuple(float(v) for v in cell_anchors(sizes, ratios).reshape(-1))
    result: Var = Anchors(cells, (int(grid[0]), int(grid[1])), stride)()
    return result
