"""Which level of a feature pyramid a box is pooled from."""

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
class Pyramid(Operator):
    """Base: maps of these scales, and the box that belongs to level `canonical_level`."""

    scales: tuple[float, ...]
    canonical_level: int
    canonical_scale: float

    def check_pyramid(self) -> None:
        """Refuse scales that are none."""
        require(
            all(0 < s < math.inf for s in self.scales),
            f"scales must be positive, are {self.scales}",
        )
        require(
            0 < self.canonical_scale < math.inf,
            f"canonical_scale must be positive, is {self.canonical_scale}",
        )

    def level_of(self, box: Array) -> int:
        """Index of the feature map that a box is pooled from (Lin et al. 2017, equation 1)."""
        last = len(self.scales) - 1
        area = (float(box[2]) - float(box[0])) * (float(box[3]) - float(box[1]))
        if last == 0 or not area > 0:
            return 0
        lowest = round(-math.log2(self.scales[0]))
        level = self.canonical_level + math.log2(math.sqrt(area) / self.canonical_scale)
        return int(np.clip(np.floor(level + 1e-6) - lowest, 0, last))


@dataclass(frozen=True)
class RoiLevels(Pyramid, kernel="roi_levels"):
    """rois [..., 4] -> int32[...]"""

    def infer(self, rois: TensorType) -> TensorType:
        self.check_pyramid()
        require(len(self.scales) >= 1, "at least one scale is needed")
        require(
            rois.rank >= 1 and rois.shape[-1] == 4 and rois.dtype.is_float,
            f"rois must be float [..., 4], is {rois}",
        )
        return TensorType(rois.shape[:-1], DType.int32)

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        return [None]

    def reference(self, rois: Array) -> Array:
        found = [self.level_of(box) for box in rois.reshape(-1, 4)]
        return np.array(found, np.int32).reshape(rois.shape[:-1])


def roi_levels(
    rois: Var,
    scales: Sequence[float],
    *,
    canonical_level: int = 4,
    canonical_scale: float = 224.0,
) -> Var:
    """The level that each box x1, y1, x2, y2 is pooled from: float[..., 4] -> int32[...].

    scales: pixels of each map per pixel of the image, finest first. The level's name is
    floor(canonical_level + log2(sqrt(area) / canonical_scale) + 1e-6), where levels are named by
    -log2(scale); what is given is its index in `scales`, clamped. A box without area belongs to
    the first. Add to it for the levels beside: operators that take `level` give zeros for a
    level that does not exist. Source: Lin et al. 2017 (FPN), equation 1.
    """
    op = RoiLevels(tuple(float(s) for s in scales), int(canonical_level), float(canonical_scale))
    result: Var = op(rois)
    return result
