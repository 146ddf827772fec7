"""The mask head of Mask R-CNN: a small map of each class for every pooled box, and its loss."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from megbrain_py import functional as F
from megbrain_py import nn
from megbrain_py.dtypes import DType
from megbrain_py.graph import Var
from megbrain_py.nn.init import kaiming_normal


@dataclass(frozen=True)
class MaskHeadConfig:
    """The defaults are torchvision's: 14x14 pooled, four 3x3 convolutions, masks of 28x28.

    pool: pooled pixels a side; a mask has twice as many. convs, channels: of the convolutions.
    """

    pool: int = 14
    sampling_ratio: int = 2
    convs: int = 4
    channels: int = 256

    def __post_init__(self) -> None:
        for name in ("pool", "convs", "channels"):
            if getattr(self, name) < 1:
                raise ValueError(f"mask_head: {name} must be at least 1, is {getattr(self, name)}")

    @property
    def size(self) -> int:
        """Pixels of a mask a side."""
        return 2 * self.pool


def start_by_outputs(module: nn.Module, rng: np.random.Generator) -> None:
    """torchvision's start of both parts: weights by their outputs (He et al. 2015)."""
    for name, parameter in module.named_parameters().items():
        if name.endswith("weight"):
            parameter.set(kaiming_normal(parameter.shape, fan="fan_out", rng=rng))


class MaskHead(nn.Sequential):
    """Convolutions with ReLU on pooled maps [R, C, p, p]."""

    def __init__(self, inputs: int, config: MaskHeadConfig, rng: np.random.Generator) -> None:
        widths = [inputs] + [config.channels] * config.convs
        super().__init__(
            *(
                nn.Sequential(nn.Conv2d(n, config.channels, 3, padding=1, rng=rng), nn.ReLU())
                for n in widths[:-1]
            )
        )
        for name, parameter in self.named_parameters().items():
            if name.endswith("bias"):
                parameter.set(np.zeros(parameter.shape, np.float32))
        start_by_outputs(self, rng)


class MaskPredictor(nn.Module):
    """Maps [R, C, p, p] -> logits [R, K + 1, 2 p, 2 p]; channel 0 (background) is never used."""

    def __init__(self, inputs: int, hidden: int, classes: int, rng: np.random.Generator) -> None:
        self.conv5_mask = nn.ConvTranspose2d(inputs, hidden, 2, stride=2, rng=rng)
        self.mask_fcn_logits = nn.Conv2d(hidden, classes + 1, 1, rng=rng)
        start_by_outputs(self, rng)

    def forward(self, x: Var) -> Var:
        logits: Var = self.mask_fcn_logits(F.relu(self.conv5_mask(x)))
        return logits


def of_class(logits: Var, labels: Var) -> Var:
    """The map [R, S, S] of each box's own class, from [R, K + 1, S, S] and labels int32[R]."""
    size = logits.shape[2:]
    picked = F.batched_gather(logits, F.expand_dims(labels, 1))
    return F.reshape(picked, (-1, *size))


def mask_loss(logits: Var, labels: Var, target: Var, is_object: Var) -> Var:
    """Mean cross-entropy of the maps of the true classes, over the boxes that hold an object.

    logits [R, K + 1, S, S]; labels int32[R]; target [R, S, S] in 0..1, shares of covered pixels;
    is_object bool[R]. 0 when no box holds one. Semantics: torchvision's maskrcnn_loss.
    """
    weight = F.cast(is_object, DType.float32)
    pixels = float(target.shape[1] * target.shape[2])
    count = F.maximum(nn.over_ranks(F.sum(weight)), 1.0) * pixels
    return F.binary_cross_entropy_with_logits(
        of_class(logits, labels), target, F.reshape(weight, (-1, 1, 1)), count=count
    )
