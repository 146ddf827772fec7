"""How boxes are pooled from a pyramid: one of the operators of ops/roi_pooling and its settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from megbrain_py import functional as F
from megbrain_py.graph import Var

Pooling = Literal["roi_align", "roi_pool", "prroi"]
POOLINGS: tuple[Pooling, ...] = ("roi_align", "roi_pool", "prroi")


@dataclass(frozen=True)
class Pooler:
    """A way of pooling: scales of the levels, finest first; sampling_ratio of RoI Align only."""

    kind: Pooling
    scales: tuple[float, ...]
    canonical_scale: float
    sampling_ratio: int = 2

    def levels(self, rois: Var) -> Var:
        """int32[N, R]: index of the level that each box [N, R, 4] is pooled from."""
        found: Var = F.roi_levels(rois, self.scales, canonical_scale=self.canonical_scale)
        return found

    def __call__(
        self, features: Sequence[Var], rois: Var, count: Var, size: int, level: Var | None = None
    ) -> Var:
        """[N * R, C, size, size] for boxes [N, R, 4], zeros for those beyond the count int32[N].

        level: int32[N, R], another level than the boxes' own; zeros where there is none.
        """
        maps = features[: len(self.scales)]
        if self.kind == "roi_pool":
            return F.roi_pool(
                maps, rois, count, size, self.scales, level=level,
                canonical_scale=self.canonical_scale,
            )  # fmt: skip
        if self.kind == "prroi":
            return F.prroi_pool(
                maps, rois, count, size, self.scales, level=level,
                canonical_scale=self.canonical_scale,
            )  # fmt: skip
        return F.roi_align(
            maps, rois, count, size, self.scales, level=level,
            sampling_ratio=self.sampling_ratio, canonical_scale=self.canonical_scale,
        )  # fmt: skip
