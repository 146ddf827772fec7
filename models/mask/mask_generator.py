"""Mask generator: pixels -> grid -> pixels, so that a mask is said of pixels, not of a warped box.

A reconstruction (docs/megdet.md): the talk names pooling, convolutions, inverse pooling and
convolutions, in this order, and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from megbrain_py import functional as F
from megbrain_py import nn
from megbrain_py.dtypes import DType
from megbrain_py.graph import Var, constant
from megbrain_py.models.mask.mask_head import MaskHead, MaskHeadConfig, of_class, start_by_outputs
from megbrain_py.nn.init import kaiming_normal


@dataclass(frozen=True)
class MaskGeneratorConfig:
    """window: pixels a side of the plane on which a box's mask is said, at the finest level where
    the box fits. grid: bins a side that its pixels are pooled into; convs, channels: of the 3x3
    convolutions on the grid; pixel_convs: on the pixels. skip: channels of the raw pixels beside
    the grid's, 0: none. margin: pixels around a box that are learnt too, as interpolation inside
    of the box reads up to one; 0: only pixels whose middle lies in the box.
    """

    window: int = 32
    grid: int = 14
    convs: int = 4
    channels: int = 256
    pixel_convs: int = 2
    skip: int = 64
    margin: float = 1.0

    def __post_init__(self) -> None:
        for name in ("grid", "convs", "channels", "pixel_convs"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"mask_generator: {name} must be at least 1, is {getattr(self, name)}"
                )
        if self.window < 4:
            raise ValueError(f"mask_generator: window must be at least 4, is {self.window}")
        if min(self.skip, self.margin) < 0:
            raise ValueError(
                f"mask_generator: skip and margin must not be negative, are {self.skip}, "
                f"{self.margin}"
            )


@dataclass(frozen=True)
class Windows:
    """Where boxes [N, R, 4] are said: level int32[N, R]; stride float32[N, R], image pixels a
    pixel; corner float32[N, R, 2], x and y of the first pixel on its level, whole numbers; inside
    float32[N, R, 4], the boxes in pixels of their windows."""

    level: Var
    stride: Var
    corner: Var
    inside: Var

    def in_image(self) -> Var:
        """float32[N, R, 3]: x and y of the first pixel's middle in image pixels, and the stride."""
        stride = F.expand_dims(self.stride, 2)
        return F.concat([self.corner * stride, stride], 2)

    def boxes(self, size: int) -> Var:
        """float32[N, R, 4]: the windows' areas in the image; pixel i covers i -+ 0.5."""
        stride = F.expand_dims(self.stride, 2)
        return F.concat([self.corner - 0.5, self.corner + (size - 0.5)], 2) * stride

    def pixels(self, size: int) -> Var:
        """float32[N, R, 4]: first and last pixel on their levels, in image pixels."""
        stride = F.expand_dims(self.stride, 2)
        return F.concat([self.corner, self.corner + (size - 1.0)], 2) * stride

    def near(self, size: int, margin: float) -> Var:
        """bool[N * R, size, size]: pixels whose middle is at most `margin` from the box."""
        at = constant(np.arange(size, dtype=np.float32))

        def axis(low: int) -> Var:
            first, last = self.inside[:, :, low : low + 1], self.inside[:, :, low + 2 : low + 3]
            return F.logical_and(
                F.greater_equal(at, first - margin), F.less_equal(at, last + margin)
            )

        x, y = (F.reshape(axis(low), (-1, size)) for low in (0, 1))
        return F.logical_and(F.expand_dims(y, 2), F.expand_dims(x, 1))


class MaskGenerator(nn.Module):
    """Logits of each class on the pixels of windows; features P2.. with their scales."""

    def __init__(
        self,
        config: MaskGeneratorConfig,
        inputs: int,
        classes: int,
        scales: Sequence[float],
        rng: np.random.Generator,
    ) -> None:
        self.config = config
        self.scales = tuple(scales)
        head = MaskHeadConfig(config.grid, convs=config.convs, channels=config.channels)
        self.on_grid = MaskHead(inputs, head, rng)
        if config.skip:
            self.raw = nn.Conv2d(inputs, config.skip, 1, rng=rng)
            start_by_outputs(self.raw, rng)
        pixels = MaskHeadConfig(config.window, convs=config.pixel_convs, channels=config.channels)
        self.on_pixels = MaskHead(config.channels + config.skip, pixels, rng)
        self.logits = nn.Conv2d(config.channels, classes + 1, 1, rng=rng)
        self.logits.weight.set(kaiming_normal(self.logits.weight.shape, fan="fan_out", rng=rng))

    def windows(self, rois: Var) -> Windows:
        """The finest level whose window holds each box and a pixel around it, and the place there.

        Where none does, the coarsest: then only the middle of the box is in the window.
        """
        size = self.config.window
        sides = rois[:, :, 2:4] - rois[:, :, 0:2]
        longest = F.max(sides, 2)
        fits = [longest * scale <= float(size - 2) for scale in self.scales[:-1]]
        level = constant(np.zeros(rois.shape[:2], np.int32))
        for one in fits:  # a coarser level holds what a finer one does
            level = level + F.cast(F.logical_not(one), DType.int32)
        strides = constant(np.array([1 / scale for scale in self.scales], np.float32))
        stride = F.gather(strides, level)
        on_level = rois / F.expand_dims(stride, 2)
        middle = (on_level[:, :, 0:2] + on_level[:, :, 2:4]) * 0.5
        corner = F.round(middle - (size - 1) / 2)
        inside = on_level - F.concat([corner, corner], 2)
        return Windows(level, stride, corner, inside)

    def forward(self, features: Sequence[Var], rois: Var, count: Var, windows: Windows) -> Var:
        """[N * R, K + 1, W, W] for boxes [N, R, 4] in their windows."""
        c, maps = self.config, features[: len(self.scales)]
        pooled = F.prroi_pool(maps, rois, count, c.grid, self.scales, level=windows.level)
        spread = F.prroi_unpool(self.on_grid(pooled), windows.inside, count, c.window)
        if c.skip:
            place = windows.pixels(c.window)
            raw = F.roi_pool(
                maps, place, count, c.window, self.scales, "avg", level=windows.level
            )  # whole pixels: this copies them
            spread = F.concat([spread, self.raw(raw)], 1)
        logits: Var = self.logits(self.on_pixels(spread))
        return logits


def generator_loss(logits: Var, labels: Var, target: Var, near: Var, is_object: Var) -> Var:
    """Mean cross-entropy over the pixels near their box, of the true classes' planes.

    logits [R, K + 1, W, W]; labels int32[R]; target [R, W, W], shares of covered pixels; near
    bool[R, W, W]; is_object bool[R].
    """
    used = F.logical_and(near, F.reshape(is_object, (-1, 1, 1)))
    weight = F.cast(used, DType.float32)
    count = F.maximum(nn.over_ranks(F.sum(weight)), 1.0)
    return F.binary_cross_entropy_with_logits(of_class(logits, labels), target, weight, count=count)
