"""Pre-activation residual networks of 32 x 32 images, up to a thousand layers deep.

He et al. 2016, "Identity mappings in deep residual networks".
"""

from __future__ import annotations

import numpy as np

from megbrain_py import functional as F
from megbrain_py import nn
from megbrain_py.graph import Var
from megbrain_py.models.resnet.resnet import conv
from megbrain_py.nn.init import RandomLike, generator

WIDTHS = (16, 32, 64)  # inside the blocks of each stage
EXPANSION = 4
LAYERS_OF_A_BLOCK = 3


class PreactivationBlock(nn.Module):
    """Norm and ReLU before each of 1x1 (with the stride), 3x3, 1x1; x itself is added, unchanged.

    Where shapes differ the shortcut is a 1x1 convolution of the first norm and ReLU.
    """

    def __init__(self, inputs: int, width: int, stride: int, rng: np.random.Generator) -> None:
        outputs = EXPANSION * width
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = conv(inputs, width, 1, stride, rng)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = conv(width, width, 3, 1, rng)
        self.bn3 = nn.BatchNorm2d(width)
        self.conv3 = conv(width, outputs, 1, 1, rng)
        same = stride == 1 and inputs == outputs
        self.shortcut = None if same else conv(inputs, outputs, 1, stride, rng)

    def forward(self, x: Var) -> Var:
        y = F.relu(self.bn1(x))
        shortcut = x if self.shortcut is None else self.shortcut(y)
        y = F.relu(self.bn2(self.conv1(y)))
        y = F.relu(self.bn3(self.conv2(y)))
        result: Var = self.conv3(y) + shortcut
        return result


class PreactivationResNet(nn.Module):
    """images float32 `[N, 3, H, W]` -> logits `[N, classes]`; depth: layers, 9 n + 2 (164, 1001).

    Raises ValueError for another depth.
    """

    def __init__(self, depth: int, *, classes: int = 10, rng: RandomLike = None) -> None:
        count, rest = divmod(depth - 2, LAYERS_OF_A_BLOCK * len(WIDTHS))
        if count < 1 or rest:
            raise ValueError(
                f"PreactivationResNet: depth {depth} is not 9 n + 2, such as 11, 164 or 1001"
            )
        rng = generator(rng)
        inputs = WIDTHS[0]
        self.conv1 = conv(3, inputs, 3, 1, rng)
        blocks: list[nn.Module] = []
        for stage, width in enumerate(WIDTHS):
            for index in range(count):
                stride = 2 if stage > 0 and index == 0 else 1
                blocks.append(PreactivationBlock(inputs, width, stride, rng))
                inputs = EXPANSION * width
        self.blocks = nn.Sequential(*blocks)
        self.bn = nn.BatchNorm2d(inputs)
        self.fc = nn.Linear(inputs, classes, rng=rng)

    def forward(self, x: Var) -> Var:
        y = F.global_avg_pool2d(F.relu(self.bn(self.blocks(self.conv1(x)))))
        logits: Var = self.fc(F.reshape(y, y.shape[:2]))
        return logits
