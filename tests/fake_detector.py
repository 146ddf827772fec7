"""A stand-in for models.faster_rcnn that runs in milliseconds, to test what is around it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from megbrain_py import functional as F
from megbrain_py import nn
from megbrain_py.graph import Var, constant
from megbrain_py.parameter import Parameter


@dataclass(frozen=True)
class RoI:
    """What merging reads."""

    score: float = 0.05
    nms_iou: float = 0.5
    min_size: float = 1e-2
    detections: int = 2


@dataclass(frozen=True)
class Config:
    """The fields that a training sets."""

    num_classes: int = 1
    anchor_sizes: tuple[float, ...] = (8.0, 16.0)
    canonical_scale: float = 64.0
    fit_anchors: bool = True
    width: int = 4
    score: float = 0.9
    roi: RoI = field(default_factory=RoI)


PRESETS = {"laptop": Config()}


class FasterRCNN(nn.Module):
    """Learns the mean of the boxes; always finds one object, in the middle of the picture."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.box = Parameter(nn.init.normal((4,)))
        self.classes = Parameter(np.zeros(config.num_classes, np.float32))

    def losses(self, boxes: Var, **_: Var) -> dict[str, Var]:
        error = (boxes - self.box) * 0.01
        return {
            "loss_classifier": F.sum(self.classes * self.classes) + 0.1,
            "loss_box_reg": F.sum(error * error) / float(boxes.shape[0] * boxes.shape[1]),
        }

    def detect(self, images: Var, image_sizes: Var) -> dict[str, Var]:
        count, _, height, width = images.shape
        box = np.float32([width / 4, height / 4, width * 3 / 4, height * 3 / 4])
        return {
            "boxes": constant(np.tile(box, (count, 2, 1))) + F.sum(images) * 0.0,
            "scores": constant(np.full((count, 2), self.config.score, np.float32)),
            "labels": constant(np.ones((count, 2), np.int32)),
            "count": constant(np.ones(count, np.int32)),
        }

    def scored_boxes(self, images: Var, image_sizes: Var, most: int) -> dict[str, Var]:
        found = self.detect(images, image_sizes)
        return {name: found[name] for name in ("boxes", "scores", "labels")}
