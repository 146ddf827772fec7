"""Residual networks (He et al. 2016), with torchvision's names and its stride on the 3x3 (v1.5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from megbrain_py import functional as F
from megbrain_py import nn
from megbrain_py.graph import Var
from megbrain_py.models.resnet.config import CONFIGS, ResNetConfig
from megbrain_py.nn.init import RandomLike, generator, kaiming_normal


def conv(
    inputs: int, outputs: int, kernel: int, stride: int, rng: np.random.Generator
) -> nn.Conv2d:
    """Without bias (a norm follows), He's initialisation by fan_out, "same" padding."""
    layer = nn.Conv2d(
        inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False, rng=rng
    )
    layer.weight.set(kaiming_normal(layer.weight.shape, fan="fan_out", rng=rng))
    return layer


def _norm(config: ResNetConfig, channels: int) -> nn.Module:
    if config.norm == "frozen":
        return nn.FrozenBatchNorm2d(channels, eps=config.norm_eps)
    return nn.BatchNorm2d(channels, eps=config.norm_eps)


def _last_norm(config: ResNetConfig, channels: int) -> nn.Module:
    """The norm before a block's sum."""
    norm = _norm(config, channels)
    if config.zero_init_last and isinstance(norm, nn.BatchNorm2d):
        norm.weight.set(np.zeros(channels, np.float32))
    return norm


class _Block(nn.Module):
    """Base: relu(path(x) + shortcut(x)); the shortcut is a 1x1 where shapes differ."""

    downsample: nn.Sequential | None

    def path(self, x: Var) -> Var:
        """The layers beside the shortcut."""
        raise TypeError(f"{type(self).__name__}: a block needs its own path()")

    def forward(self, x: Var) -> Var:
        shortcut = x if self.downsample is None else self.downsample(x)
        return F.relu(self.path(x) + shortcut)


def _shortcut(
    config: ResNetConfig, inputs: int, outputs: int, stride: int, rng: np.random.Generator
) -> nn.Sequential | None:
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(conv(inputs, outputs, 1, stride, rng), _norm(config, outputs))


class BasicBlock(_Block):
    """Two 3x3 convolutions."""

    def __init__(
        self, config: ResNetConfig, inputs: int, width: int, stride: int, rng: np.random.Generator
    ) -> None:
        self.conv1 = conv(inputs, width, 3, stride, rng)
        self.bn1 = _norm(config, width)
        self.conv2 = conv(width, width, 3, 1, rng)
        self.bn2 = _last_norm(config, width)
        self.downsample = _shortcut(config, inputs, width, stride, rng)

    def path(self, x: Var) -> Var:
        y = F.relu(self.bn1(self.conv1(x)))
        result: Var = self.bn2(self.conv2(y))
        return result


class Bottleneck(_Block):
    """1x1, 3x3 (with the stride), 1x1 to four times the width."""

    def __init__(
        self, config: ResNetConfig, inputs: int, width: int, stride: int, rng: np.random.Generator
    ) -> None:
        outputs = width * config.expansion
        self.conv1 = conv(inputs, width, 1, 1, rng)
        self.bn1 = _norm(config, width)
        self.conv2 = conv(width, width, 3, stride, rng)
        self.bn2 = _norm(config, width)
        self.conv3 = conv(width, outputs, 1, 1, rng)
        self.bn3 = _last_norm(config, outputs)
        self.downsample = _shortcut(config, inputs, outputs, stride, rng)

    def path(self, x: Var) -> Var:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        result: Var = self.bn3(self.conv3(y))
        return result


class ResNet(nn.Module):
    """images float32 `[N, 3, H, W]` -> logits `[N, classes]`, or the stages without a classifier.

    `channels` and `strides` say, by stage name ("C2", "C3", ...), what `stages` gives.
    """

    def __init__(self, config: ResNetConfig, *, rng: RandomLike = None) -> None:
        rng = generator(rng)
        self.config = config
        kernel = 7 if config.stem == "large" else 3
        reduction = 1 if config.stem == "none" else 2
        self.conv1 = conv(3, config.stem_width, kernel, reduction, rng)
        self.bn1 = _norm(config, config.stem_width)
        self.channels: dict[str, int] = {}
        self.strides: dict[str, int] = {}
        inputs, stride = config.stem_width, 1 if config.stem == "none" else 4
        block = Bottleneck if config.block == "bottleneck" else BasicBlock
        for stage, (depth, width) in enumerate(zip(config.depths, config.widths, strict=True)):
            blocks: list[nn.Module] = []
            for index in range(depth):
                step = 2 if stage > 0 and index == 0 else 1
                stride *= step
                blocks.append(block(config, inputs, width, step, rng))
                inputs = width * config.expansion
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
            self.channels[f"C{stage + 2}"] = inputs
            self.strides[f"C{stage + 2}"] = stride
        self.fc = nn.Linear(inputs, config.classes, rng=rng) if config.classes else None

    def stem(self, x: Var) -> Var:
        """The layers before the first stage."""
        y = F.relu(self.bn1(self.conv1(x)))
        return y if self.config.stem == "none" else F.max_pool2d(y, 3, stride=2, padding=1)

    def stages(self, x: Var) -> dict[str, Var]:
        """The output of each stage: {"C2": ..., "C3": ..., ...}, of strides 4, 8, 16, 32."""
        y = self.stem(x)
        found: dict[str, Var] = {}
        for stage in range(len(self.config.depths)):
            y = getattr(self, f"layer{stage + 1}")(y)
            found[f"C{stage + 2}"] = y
        return found

    def forward(self, x: Var) -> Any:
        found = self.stages(x)
        if self.fc is None:
            return found
        last = F.global_avg_pool2d(list(found.values())[-1])
        return self.fc(F.reshape(last, last.shape[:2]))

    def freeze_at(self, parts: int) -> None:
        """Freeze the first `parts` parts: 1 the stem, 2 also layer1, and so on.

        Their batch norms use the running statistics from then on. Nothing of them needs a gradient,
        so none is computed: backward passes end at the first part that learns.
        """
        names = ["conv1", "bn1"] if parts > 0 else []
        names += [f"layer{stage + 1}" for stage in range(min(parts - 1, len(self.config.depths)))]
        for name in names:
            getattr(self, name).freeze()


def resnet(name: str, *, rng: RandomLike = None, **changes: Any) -> ResNet:
    """A network by its name in CONFIGS, with fields of the configuration changed.

    `resnet("resnet50", classes=0, norm="frozen")` is the usual detector's backbone.
    Raises ValueError for an unknown name.
    """
    configs: Mapping[str, ResNetConfig] = CONFIGS
    if name not in configs:
        raise ValueError(f"resnet: {name!r} is not known; known: {', '.join(configs)}")
    return ResNet(replace(configs[name], **changes), rng=rng)
