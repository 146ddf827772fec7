"""What a Faster R-CNN consists of, and the presets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal

from megbrain_py.models.faster_rcnn.roi_heads import RoIHeadsConfig
from megbrain_py.models.mask import MaskGeneratorConfig, MaskHeadConfig
from megbrain_py.models.roi_features import ContextConfig
from megbrain_py.models.rpn import RPNConfig


@dataclass(frozen=True)
class FasterRCNNConfig:
    """A detector; printing it shows every choice under its key of the command line.

    num_classes: kinds of objects, without the background. backbone: a name of models/resnet.
    norm: "batch" (trained) or "frozen"; norm_eps: what it adds to variances. anchor_sizes: one a
    pyramid level, pixels: four for P2..P5, five with P6. canonical_scale: a box of this side
    (pixels) is pooled from P4. fit_anchors: a training takes both from its data unless they are
    given; otherwise they are as they stand here. context: what boxes see besides themselves.
    mask: "none" finds boxes only, "head" also masks (Mask R-CNN), so does "generator"
    (docs/megdet.md).
    """

    num_classes: int = 80
    backbone: str = "resnet50"
    norm: Literal["batch", "frozen"] = "batch"
    norm_eps: float = 1e-5
    fpn_channels: int = 256
    anchor_sizes: tuple[float, ...] = (32.0, 64.0, 128.0, 256.0, 512.0)
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    canonical_scale: float = 224.0
    fit_anchors: bool = True
    rpn: RPNConfig = field(default_factory=RPNConfig)
    roi: RoIHeadsConfig = field(default_factory=RoIHeadsConfig)
    context: ContextConfig = field(default_factory=ContextConfig)
    mask: Literal["none", "head", "generator"] = "none"
    mask_head: MaskHeadConfig = field(default_factory=MaskHeadConfig)
    mask_generator: MaskGeneratorConfig = field(default_factory=MaskGeneratorConfig)

    def __post_init__(self) -> None:
        if self.num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, is {self.num_classes}")
        if self.norm not in ("batch", "frozen"):
            raise ValueError(f"norm must be 'batch' or 'frozen', is {self.norm!r}")
        if self.mask not in ("none", "head", "generator"):
            raise ValueError(f"mask must be 'none', 'head' or 'generator', is {self.mask!r}")
        if len(self.anchor_sizes) not in (4, 5):
            raise ValueError(
                f"anchor_sizes must have 4 sizes (P2..P5) or 5 (with P6), has {self.anchor_sizes}"
            )

    def __str__(self) -> str:
        return "\n".join(_lines(self, ""))


def _lines(config: Any, within: str) -> Iterator[str]:
    for one in fields(config):
        value = getattr(config, one.name)
        if is_dataclass(value):
            yield from _lines(value, f"{within}{one.name}.")
        else:
            yield f"{within}{one.name} = {value!r}"


# torchvision 0.29.1: fasterrcnn_resnet50_fpn(weights=...), with frozen norms and 91 classes, the
# background among them. Its weights COCO_V1 need norm_eps=0, as it says itself (overwrite_eps).
TORCHVISION = FasterRCNNConfig(
    num_classes=90,
    norm="frozen",
    fit_anchors=False,
    rpn=RPNConfig(class_switch="torchvision"),
    roi=RoIHeadsConfig(class_switch="torchvision"),
)

PRESETS = {
    "r50_fpn": FasterRCNNConfig(),
    # What the MegDet talk added to it, as far as it can be told: docs/megdet.md.
    "megdet": FasterRCNNConfig(
        roi=RoIHeadsConfig(pooling="prroi"),
        context=ContextConfig(levels="neighbours", global_map=True),
        mask="generator",
    ),
    "laptop": FasterRCNNConfig(
        backbone="laptop",
        fpn_channels=64,
        anchor_sizes=(12.0, 24.0, 48.0, 96.0),
        canonical_scale=64.0,
        rpn=RPNConfig(
            pre_nms_train=200,
            pre_nms_test=200,
            post_nms_train=150,
            post_nms_test=100,
            samples=64,
        ),
        roi=RoIHeadsConfig(samples=64, positive=0.5, hidden=256, detections=50),
        mask_head=MaskHeadConfig(convs=2, channels=24),
        mask_generator=MaskGeneratorConfig(
            window=24, grid=14, convs=2, channels=24, pixel_convs=2, skip=24
        ),
    ),
    "torchvision_fasterrcnn_r50_fpn": TORCHVISION,
    "torchvision_maskrcnn_r50_fpn": replace(TORCHVISION, mask="head"),
}
