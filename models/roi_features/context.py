"""Context extractor: a box also sees the levels beside its own, and the whole image.

A reconstruction (docs/megdet.md): the talk's slides show three levels and a 14x14 map, no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from megbrain_py import functional as F
from megbrain_py import nn
from megbrain_py.graph import Var, constant
from megbrain_py.models.roi_features.pooler import Pooler

ENLARGED = 2.0  # sides of the part of the global map that a box sees, in sides of the box


@dataclass(frozen=True)
class ContextConfig:
    """levels: which levels a box is pooled from: its "same" one, its "neighbours" too, or "all".
    fuse: the other levels' maps are put together by their "sum" or "max".
    global_map: also a map of map_size x map_size of the whole image, from the coarsest level.
    """

    levels: Literal["same", "neighbours", "all"] = "same"
    fuse: Literal["sum", "max"] = "sum"
    global_map: bool = False
    map_size: int = 14

    def __post_init__(self) -> None:
        if self.map_size < 1:
            raise ValueError(f"context: map_size must be at least 1, is {self.map_size}")

    @property
    def is_on(self) -> bool:
        """Whether boxes see more than their own level."""
        return self.levels != "same" or self.global_map


@dataclass(frozen=True)
class Around:
    """What is computed once an image: the global map [N, C, m, m]; image_sizes int32[N, 2]."""

    map: Var
    image_sizes: Var


def _mixer(channels: int, start: str) -> nn.Conv2d:
    """A 1x1 convolution that starts as the identity, or as 0."""
    mixer = nn.Conv2d(channels, channels, 1, bias=False, rng=0)
    eye = np.eye(channels, dtype=np.float32)[:, :, None, None]
    mixer.weight.set(eye if start == "identity" else np.zeros_like(eye))
    return mixer


class ContextExtractor(nn.Module):
    """Pooled maps of boxes with their context added; at the start it adds nothing, exactly.

    Its weights come from a seed of their own: the rest of a detector starts as without it.
    """

    def __init__(self, config: ContextConfig, channels: int, levels: int) -> None:
        self.config = config
        self.own = _mixer(channels, "identity")
        others = {"same": 0, "neighbours": 2, "all": levels}[config.levels]
        self.others = nn.ModuleList([_mixer(channels, "zero") for _ in range(others)])
        if config.global_map:
            self.map_conv = nn.Conv2d(channels, channels, 3, padding=1, rng=0)
            self.from_map = _mixer(channels, "zero")

    def around(self, pooler: Pooler, features: Sequence[Var], image_sizes: Var) -> Around | None:
        """The global map: the coarsest level pooled over the whole image, then a convolution."""
        if not self.config.global_map:
            return None
        images = image_sizes.shape[0]
        size = F.cast(image_sizes, "float32")
        ends = F.concat([size[:, 1:2], size[:, 0:1]], 1)
        whole = F.reshape(F.concat([ends * 0.0, ends], 1), (images, 1, 4))
        coarsest = len(pooler.scales) - 1
        level = constant(np.full((images, 1), coarsest, np.int32))
        one = constant(np.ones(images, np.int32))
        pooled = pooler(features, whole, one, self.config.map_size, level)
        return Around(F.relu(self.map_conv(pooled)), image_sizes)

    def forward(
        self,
        pooler: Pooler,
        features: Sequence[Var],
        rois: Var,
        count: Var,
        size: int,
        around: Around | None,
    ) -> Var:
        """[N * R, C, size, size]; arguments as the pooler's."""
        found = self.own(pooler(features, rois, count, size))
        others = [
            mixer(pooler(features, rois, count, size, level))
            for mixer, level in zip(self.others, self._other_levels(pooler, rois), strict=True)
        ]
        if others and self.config.fuse == "max":
            found = found + _all_of(F.maximum, others)
        elif others:
            found = found + _all_of(F.add, others)
        if around is not None:
            found = found + self.from_map(self._from_map(around, rois, count, size))
        result: Var = found
        return result

    def _other_levels(self, pooler: Pooler, rois: Var) -> list[Var]:
        if self.config.levels == "all":
            every = range(len(pooler.scales))
            return [constant(np.full(rois.shape[:2], n, np.int32)) for n in every]
        if self.config.levels == "same":
            return []
        own = pooler.levels(rois)
        return [own + constant(np.int32(step)) for step in (-1, 1)]

    def _from_map(self, around: Around, rois: Var, count: Var, size: int) -> Var:
        """The global map in boxes of `ENLARGED` sides."""
        images = rois.shape[0]
        middle = (rois[:, :, 0:2] + rois[:, :, 2:4]) * 0.5
        half = (rois[:, :, 2:4] - rois[:, :, 0:2]) * (0.5 * ENLARGED)
        boxes = F.concat([middle - half, middle + half], 2)
        sides = F.cast(around.image_sizes, "float32")
        sides = F.concat([sides[:, 1:2], sides[:, 0:1]] * 2, 1)
        # Pixel i of the map stands for the i-th part of the image: its middle is i + 0.5 parts in.
        boxes = boxes * (float(self.config.map_size) / F.reshape(sides, (images, 1, 4))) - 0.5
        return F.prroi_pool([around.map], boxes, count, size, [1.0])


def _all_of(combine: object, parts: Sequence[Var]) -> Var:
    whole = parts[0]
    for part in parts[1:]:
        whole = combine(whole, part)  # type: ignore[operator]
    return whole
