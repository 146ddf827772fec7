"""Faster R-CNN: backbone, pyramid, proposals, second stage; every shape is static."""

from __future__ import annotations

from collections.abc import Sequence

from megbrain_py import functional as F
from megbrain_py import nn
from megbrain_py.errors import GraphError
from megbrain_py.graph import Var
from megbrain_py.models.faster_rcnn.config import FasterRCNNConfig
from megbrain_py.models.faster_rcnn.roi_heads import RoIHeads
from megbrain_py.models.fpn import FPN
from megbrain_py.models.resnet import resnet
from megbrain_py.models.rpn import RPN
from megbrain_py.nn.init import RandomLike, generator

STAGES = 4  # C2..C5


class Backbone(nn.Module):
    """images float32 [N, 3, H, W] -> pyramid levels, finest first."""

    def __init__(self, config: FasterRCNNConfig, rng: RandomLike) -> None:
        self.body = resnet(config.backbone, classes=0, norm=config.norm, rng=rng)
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
        self.roi_heads = RoIHeads(
            config.roi, channels, config.num_classes, strides, config.canonical_scale, rng=rng
        )

    def losses(
        self,
        images: Var,
        image_sizes: Var,
        boxes: Var,
        labels: Var,
        box_count: Var,
        key: Var,
    ) -> dict[str, Var]:
        """The four losses as scalars; their sum is what is trained.

        boxes float32[N, G, 4], labels int32[N, G] (1..K): the first box_count int32[N] rows are
        true boxes. key int64[N]: decides which anchors and proposals are looked at.
        """
        levels: Sequence[Var] = self.backbone(images)
        found = self.rpn.candidates(levels, _size(images))
        proposals = self.rpn.proposals(found, image_sizes, training=True)
        drawn = self.roi_heads.draw(proposals, boxes, labels, box_count, key)
        return {
            **self.roi_heads.losses(levels, drawn),
            **self.rpn.losses(found, boxes, box_count, key),
        }

    def detect(self, images: Var, image_sizes: Var) -> dict[str, Var]:
        """`boxes` float32[N, D, 4] in pixels of the padded images, best first; `scores` [N, D];
        `labels` int32[N, D]; the first `count` int32[N] rows are valid, the others hold zeros."""
        levels: Sequence[Var] = self.backbone(images)
        found = self.rpn.candidates(levels, _size(images))
        proposals = self.rpn.proposals(found, image_sizes, training=False)
        return self.roi_heads.detect(levels, proposals, image_sizes)

    def scored_boxes(self, images: Var, image_sizes: Var, most: int) -> dict[str, Var]:
        """What the second stage says before NMS, for merging with other views and models.

        `boxes` float32[N, M, 4] as `detect` gives them, `scores` [N, M] in falling order, -1 where
        there is none, `labels` int32[N, M]; M: `most`, or all that there are.
        """
        levels: Sequence[Var] = self.backbone(images)
        found = self.rpn.candidates(levels, _size(images))
        proposals = self.rpn.proposals(found, image_sizes, training=False)
        predicted = self.roi_heads.predict(levels, proposals.boxes, proposals.count)
        boxes, scores, labels = self.roi_heads.scored(*predicted, proposals, image_sizes)
        best, index = F.top_k(scores, min(most, scores.shape[1]))
        return {
            "boxes": F.batched_gather(boxes, index),
            "scores": best,
            "labels": F.batched_gather(labels, index),
        }


def _size(images: Var) -> tuple[int, int]:
    return images.shape[2], images.shape[3]
