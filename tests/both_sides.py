# mypy: ignore-errors
"""What both sides of side_by_side.py are made of: the two models, pictures and truth, the table."""

from __future__ import annotations

from dataclasses import replace

import golden_detector as ours_side  # first: it adds the goldens' folder to the path
import numpy as np
import torch
from golden_detector import BAR, error
from make_faster_rcnn import GT_BOXES, GT_LABELS, SIZES
from recipe import recipe_image, recipe_weights
from torchvision.models import resnet50
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.ops import FrozenBatchNorm2d

import megbrain_py as mb
from megbrain_py.models import faster_rcnn


class Table:
    """The rows as they come, and whether all held."""

    def __init__(self) -> None:
        self.held = True

    def row(self, stage: str, value: float, bar: float) -> None:
        self.held &= value <= bar
        print(f"| {stage:<34} | {value:8.1e} | {bar:7.0e} |{'' if value <= bar else ' TOO FAR'}")

    def worst(self, stage: str, pairs, bar: float = BAR) -> None:
        """The largest relative error of pairs (ours, torchvision's)."""
        self.row(stage, max(error(a, b.detach().numpy()) for a, b in pairs), bar)


def config_of(args, counts) -> faster_rcnn.FasterRCNNConfig:
    preset = faster_rcnn.PRESETS[f"torchvision_{args.model}_r50_fpn"]
    preset = replace(preset, norm_eps=args.eps)
    if not counts:
        return preset
    rpn = replace(ours_side.CONFIG.rpn, class_switch="torchvision")
    roi = replace(ours_side.CONFIG.roi, class_switch="torchvision")
    return replace(preset, num_classes=ours_side.CONFIG.num_classes, rpn=rpn, roi=roi)


def build(args, config, options):
    """(torchvision's model, ours), both with the recipe's weights; torchvision's norms frozen."""

    def norm(channels):
        return FrozenBatchNorm2d(channels, eps=args.eps)

    body = _resnet_fpn_extractor(resnet50(weights=None, norm_layer=norm), 5)
    kind = MaskRCNN if config.mask == "head" else FasterRCNN
    theirs = kind(body, num_classes=config.num_classes + 1, **options)
    shapes = {name: tuple(value.shape) for name, value in theirs.state_dict().items()}
    weights = recipe_weights(shapes)
    for name in shapes:  # variances so small that it shows whether eps is added to them
        stem, _, last = name.rpartition(".")
        if last == "running_var":
            weights[name] *= np.float32(1e-4)
            weights[f"{stem}.weight"] *= np.float32(1e-2)
    theirs.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    ours = faster_rcnn.FasterRCNN(config, rng=0)
    ours.load_state_dict(weights)
    return theirs, ours


def pictures(seed: int) -> list[torch.Tensor]:
    return [torch.from_numpy(recipe_image(f"detector/{seed}/{i}", *s)) for i, s in enumerate(SIZES)]


def true_masks(image: int) -> torch.Tensor:
    """uint8 masks in the true boxes: ellipses."""
    y, x = np.mgrid[: SIZES[image][0], : SIZES[image][1]]
    found = []
    for x0, y0, x1, y1 in GT_BOXES[image]:
        inside = ((x - (x0 + x1) / 2) / (x1 - x0)) ** 2 + ((y - (y0 + y1) / 2) / (y1 - y0)) ** 2
        found.append(inside < 0.25)
    return torch.from_numpy(np.array(found, np.uint8))


def truth(masks: bool) -> list[dict[str, torch.Tensor]]:
    found = [
        {"boxes": torch.tensor(boxes), "labels": torch.tensor(labels)}
        for boxes, labels in zip(GT_BOXES, GT_LABELS, strict=True)
    ]
    if masks:
        for image, target in enumerate(found):
            target["masks"] = true_masks(image)
    return found


def compiled(build_outputs, feeds):
    """Run a graph built of placeholders for these arrays."""

    def plain(value):
        return np.ascontiguousarray(value, np.float32 if value.dtype == np.float64 else None)

    given = {name: plain(value) for name, value in feeds.items()}
    x = {name: mb.placeholder(name, v.shape, v.dtype.name) for name, v in given.items()}
    return mb.compile(build_outputs(x))(**given)
