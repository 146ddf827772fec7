"""The second stage with masks: of a mask head in each box, or of a generator on its pixels."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from megbrain_py import functional as F
from megbrain_py.graph import Var
from megbrain_py.models.faster_rcnn.roi_heads import Drawn, RoIHeads, RoIHeadsConfig
from megbrain_py.models.mask import (
    MaskGenerator,
    MaskGeneratorConfig,
    MaskHead,
    MaskHeadConfig,
    MaskPredictor,
    generator_loss,
    mask_loss,
    of_class,
)
from megbrain_py.models.roi_features import Around, ContextConfig, Pooler
from megbrain_py.models.rpn.rpn import first_rows
from megbrain_py.nn.init import RandomLike, generator

Config = TypeVar("Config", MaskHeadConfig, MaskGeneratorConfig)


@dataclass(frozen=True)
class TrueMasks:
    """The objects' masks as the loader gives them (ops/mask_targets): uint8[N, P] and their places
    int32[N, G, 5]; image_sizes int32[N, 2]."""

    pixels: Var
    places: Var
    image_sizes: Var


@dataclass(frozen=True)
class Positives:
    """The drawn boxes that may hold an object: [N, R, 4], their label and object int32[N, R], how
    many do int32[N]."""

    rois: Var
    labels: Var
    objects: Var
    count: Var

    @property
    def flat_labels(self) -> Var:
        """int32[N * R]"""
        labels: Var = F.reshape(self.labels, (-1,))
        return labels

    @property
    def is_object(self) -> Var:
        """bool[N * R]"""
        valid: Var = F.reshape(first_rows(self.rois.shape[1], self.count), (-1,))
        return valid


class MaskedRoIHeads(RoIHeads, Generic[Config]):
    """RoIHeads that also find masks; only boxes with an object are looked at in training."""

    def __init__(
        self,
        config: RoIHeadsConfig,
        channels: int,
        classes: int,
        strides: Sequence[int],
        canonical_scale: float,
        mask: Config,
        *,
        context: ContextConfig | None = None,
        rng: RandomLike = None,
    ) -> None:
        rng = generator(rng)
        super().__init__(
            config, channels, classes, strides, canonical_scale, context=context, rng=rng
        )
        self.mask: Config = mask
        self._add_masks(channels, rng)

    @abstractmethod
    def _add_masks(self, channels: int, rng: np.random.Generator) -> None:
        """The layers that find masks on maps of so many channels."""

    def positives(self, drawn: Drawn) -> Positives:
        """The rows that may hold an object: they come first."""
        most = self.most_positive(drawn)
        return Positives(
            drawn.rois[:, :most], drawn.labels[:, :most], drawn.objects[:, :most], drawn.positives
        )

    @abstractmethod
    def mask_loss(
        self,
        features: Sequence[Var],
        drawn: Drawn,
        masks: TrueMasks,
        around: Around | None = None,
    ) -> Var:
        """The loss of the masks of drawn boxes."""

    @abstractmethod
    def masks(
        self,
        features: Sequence[Var],
        boxes: Var,
        labels: Var,
        count: Var,
        around: Around | None = None,
    ) -> dict[str, Var]:
        """`masks` float32[N, D, S, S] in 0..1 of boxes [N, D, 4] and the classes int32[N, D] found
        in them; zeros beyond the count."""

    def _own(self, logits: Var, labels: Var, count: Var) -> Var:
        """Probabilities of the labels' maps, zeros beyond the count."""
        images, rows = labels.shape
        own: Var = of_class(logits, F.reshape(labels, (-1,)))
        found = F.reshape(F.sigmoid(own), (images, rows, *own.shape[1:]))
        valid = F.reshape(first_rows(rows, count), (images, rows, 1, 1))
        return F.where(valid, found, 0.0)


def _targets(masks: TrueMasks, boxes: Var, found: Positives, size: int) -> Var:
    target: Var = F.mask_targets(
        masks.pixels, masks.places, masks.image_sizes, boxes, found.objects, found.count, size
    )
    return target


class MaskHeads(MaskedRoIHeads[MaskHeadConfig]):
    """The mask head of Mask R-CNN; names are torchvision's."""

    def _add_masks(self, channels: int, rng: np.random.Generator) -> None:
        mask, boxes = self.mask, self.pooler
        self.mask_pooler = Pooler(
            self.config.pooling, boxes.scales, boxes.canonical_scale, mask.sampling_ratio
        )
        self.mask_head = MaskHead(channels, mask, rng)
        self.mask_predictor = MaskPredictor(mask.channels, mask.channels, self.classes, rng)

    def mask_loss(
        self,
        features: Sequence[Var],
        drawn: Drawn,
        masks: TrueMasks,
        around: Around | None = None,
    ) -> Var:
        found = self.positives(drawn)
        logits = self.mask_logits(features, found.rois, found.count, around)
        target = _targets(masks, found.rois, found, self.mask.size)
        return mask_loss(logits, found.flat_labels, target, found.is_object)

    def mask_logits(
        self, features: Sequence[Var], rois: Var, count: Var, around: Around | None = None
    ) -> Var:
        """[N * R, K + 1, S, S] for boxes [N, R, 4]."""
        pooled = self.pooled(features, rois, count, around, self.mask.pool, self.mask_pooler)
        logits: Var = self.mask_predictor(self.mask_head(pooled))
        return logits

    def masks(
        self,
        features: Sequence[Var],
        boxes: Var,
        labels: Var,
        count: Var,
        around: Around | None = None,
    ) -> dict[str, Var]:
        """S x S pixels fill each box."""
        logits = self.mask_logits(features, boxes, count, around)
        return {"masks": self._own(logits, labels, count)}


class GeneratorHeads(MaskedRoIHeads[MaskGeneratorConfig]):
    """The mask generator: masks on windows of pyramid pixels."""

    def _add_masks(self, channels: int, rng: np.random.Generator) -> None:
        scales = self.pooler.scales
        self.mask_generator = MaskGenerator(self.mask, channels, self.classes, scales, rng)

    def mask_loss(
        self,
        features: Sequence[Var],
        drawn: Drawn,
        masks: TrueMasks,
        around: Around | None = None,
    ) -> Var:
        found, size = self.positives(drawn), self.mask.window
        windows = self.mask_generator.windows(found.rois)
        logits = self.mask_generator(features, found.rois, found.count, windows)
        target = _targets(masks, windows.boxes(size), found, size)
        near = windows.near(size, self.mask.margin)
        return generator_loss(logits, found.flat_labels, target, near, found.is_object)

    def masks(
        self,
        features: Sequence[Var],
        boxes: Var,
        labels: Var,
        count: Var,
        around: Around | None = None,
    ) -> dict[str, Var]:
        """`masks` are said of W x W pixels of the pyramid: `mask_windows` float32[N, D, 3] has x
        and y of the first one's middle and the distance of two, in pixels of the image."""
        windows = self.mask_generator.windows(boxes)
        logits = self.mask_generator(features, boxes, count, windows)
        return {"masks": self._own(logits, labels, count), "mask_windows": windows.in_image()}
