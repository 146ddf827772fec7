"""Faster and Mask R-CNN: backbone, pyramid, proposals, second stage; every shape is static."""

from __future__ import annotations

from collections.abc import Sequence

from megbrain_py import functional as F
from megbrain_py import nn
from megbrain_py.errors import GraphError
from megbrain_py.graph import Var
from megbrain_py.models.faster_rcnn.config import FasterRCNNConfig
from megbrain_py.models.faster_rcnn.mask_heads import (
    GeneratorHeads,
    MaskedRoIHeads,
    MaskHeads,
    TrueMasks,
)
from megbrain_py.models.faster_rcnn.roi_heads import RoIHeads
from megbrain_py.models.fpn import FPN
from megbrain_py.models.resnet import resnet
from megbrain_py.models.rpn import RPN
from megbrain_py.nn.init import RandomLike, generator

STAGES = 4  # C2..C5


class Backbone(nn.Module):
    """images float32 [N, 3, H, W] -> pyramid levels, finest first."""

    def __init__(self, config: FasterRCNNConfig, rng: RandomLike) -> None:
        self.body = resnet(
            config.backbone, classes=0, norm=config.norm, norm_eps=config.norm_eps, rng=rng
        )
        channels = list(self.body.channels.values())
        if len(channels) != STAGES:
            raise ValueError(
                f"backbone {config.backbone!r} has the stages {', '.join(self.body.channels)}; "
                "the pyramid needs C2..C5"
            )
        has_extra = len(config.anchor_sizes) > len(channels)
        self.fpn = FPN(channels, config.fpn_channels, extra_level=has_extra, rng=rng)

    def forward(self, images: Var) -> list[Var]:
        stride = list(self.body.strides.values())[-1]
        if images.rank != 4 or images.shape[2] % stride or images.shape[3] % stride:
            raise GraphError(
                f"FasterRCNN: images must be [N, 3, H, W] with H and W multiples of {stride} "
                f"(pad right and bottom), have shape {images.shape}"
            )
        levels: list[Var] = self.fpn(list(self.body.stages(images).values()))
        return levels


class FasterRCNN(nn.Module):
    """A two-stage detector; names of its state are torchvision's.

    Inputs of all methods: images float32[N, 3, H, W], normalised and padded right and bottom;
    image_sizes int32[N, 2], (height, width) before padding. Boxes are x1, y1, x2, y2 in pixels.
    """

    def __init__(self, config: FasterRCNNConfig, *, rng: RandomLike = None) -> None:
        rng = generator(rng)
        self.config = config
        self.backbone = Backbone(config, rng)
        strides = list(self.backbone.body.strides.values())
        channels = config.fpn_channels
        self.rpn = RPN(config.rpn, channels, config.anchor_sizes, config.anchor_ratios, rng=rng)
        self.roi_heads = _roi_heads(config, strides, rng)

    @property
    def has_masks(self) -> bool:
        """Whether `losses` wants true masks and `detect` gives masks."""
        return isinstance(self.roi_heads, MaskedRoIHeads)

    def losses(
        self,
        images: Var,
        image_sizes: Var,
        boxes: Var,
        labels: Var,
        box_count: Var,
        key: Var,
        masks: Var | None = None,
        mask_places: Var | None = None,
    ) -> dict[str, Var]:
        """The losses as scalars, four, and `loss_mask` of a mask head; their sum is trained.

        boxes float32[N, G, 4], labels int32[N, G] (1..K): the first box_count int32[N] rows are
        true boxes. key int64[N]: decides which anchors and proposals are looked at. masks
        uint8[N, P], mask_places int32[N, G, 5]: the true masks, see F.mask_targets.
        """
        levels: Sequence[Var] = self.backbone(images)
        found = self.rpn.candidates(levels, _size(images))
        proposals = self.rpn.proposals(found, image_sizes, training=True)
        drawn = self.roi_heads.draw(proposals, boxes, labels, box_count, key)
        around = self.roi_heads.around(levels, image_sizes)
        losses = self.roi_heads.losses(levels, drawn, around)
        if isinstance(self.roi_heads, MaskedRoIHeads):
            if masks is None or mask_places is None:
                raise GraphError("FasterRCNN: a mask head is trained with masks and mask_places")
            truth = TrueMasks(masks, mask_places, image_sizes)
            losses["loss_mask"] = self.roi_heads.mask_loss(levels, drawn, truth, around)
        return {**losses, **self.rpn.losses(found, boxes, box_count, key)}

    def detect(self, images: Var, image_sizes: Var) -> dict[str, Var]:
        """`boxes` float32[N, D, 4] in pixels of the padded images, best first; `scores` [N, D];
        `labels` int32[N, D]; the first `count` int32[N] rows are valid, the others hold zeros.
        With masks, `masks` float32[N, D, S, S]: how sure it is of pixels of each box, or of those
        that `mask_windows` [N, D, 3] says (GeneratorHeads)."""
        levels: Sequence[Var] = self.backbone(images)
        found = self.rpn.candidates(levels, _size(images))
        proposals = self.rpn.proposals(found, image_sizes, training=False)
        around = self.roi_heads.around(levels, image_sizes)
        detections = self.roi_heads.detect(levels, proposals, image_sizes, around)
        if isinstance(self.roi_heads, MaskedRoIHeads):
            boxes, labels, count = (detections[name] for name in ("boxes", "labels", "count"))
            detections |= self.roi_heads.masks(levels, boxes, labels, count, around)
        return detections

    def scored_boxes(self, images: Var, image_sizes: Var, most: int) -> dict[str, Var]:
        """What the second stage says before NMS, for merging with other views and models.

        `boxes` float32[N, M, 4] as `detect` gives them, `scores` [N, M] in falling order, -1 where
        there is none, `labels` int32[N, M]; M: `most`, or all that there are.
        """
        levels: Sequence[Var] = self.backbone(images)
        found = self.rpn.candidates(levels, _size(images))
        proposals = self.rpn.proposals(found, image_sizes, training=False)
        around = self.roi_heads.around(levels, image_sizes)
        predicted = self.roi_heads.predict(levels, proposals.boxes, proposals.count, around)
        boxes, scores, labels = self.roi_heads.scored(*predicted, proposals, image_sizes)
        best, index = F.top_k(scores, min(most, scores.shape[1]))
        return {
            "boxes": F.batched_gather(boxes, index),
            "scores": best,
            "labels": F.batched_gather(labels, index),
        }

    def masks_of(
        self, images: Var, image_sizes: Var, boxes: Var, labels: Var, count: Var
    ) -> dict[str, Var]:
        """`masks` (and `mask_windows`) as `detect` gives them, of boxes that were found elsewhere.

        boxes float32[N, D, 4] in pixels of the padded images, labels int32[N, D]; the first
        count int32[N] rows are valid. GraphError without a mask head.
        """
        if not isinstance(self.roi_heads, MaskedRoIHeads):
            raise GraphError("FasterRCNN: finds no masks: its configuration says mask='none'")
        levels: Sequence[Var] = self.backbone(images)
        around = self.roi_heads.around(levels, image_sizes)
        return dict(self.roi_heads.masks(levels, boxes, labels, count, around))


def _roi_heads(config: FasterRCNNConfig, strides: Sequence[int], rng: RandomLike) -> RoIHeads:
    common = (
        config.roi, config.fpn_channels, config.num_classes, strides, config.canonical_scale,
    )  # fmt: skip
    if config.mask == "head":
        return MaskHeads(*common, config.mask_head, context=config.context, rng=rng)
    if config.mask == "generator":
        return GeneratorHeads(*common, config.mask_generator, context=config.context, rng=rng)
    return RoIHeads(*common, context=config.context, rng=rng)


def _size(images: Var) -> tuple[int, int]:
    return images.shape[2], images.shape[3]
