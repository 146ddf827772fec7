"""models/resnet/preactivation.py in torch, for its side of the comparisons (torch_peer.py)."""

from __future__ import annotations

import importlib
from typing import Any

nn: Any = importlib.import_module("torch.nn")


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> Any:
    """Without bias."""
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)


class PreactivationBlock(nn.Module):  # type: ignore[misc]
    """Norm and ReLU before each of 1x1 (with the stride), 3x3, 1x1."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = conv(inputs, width, 1, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = conv(width, width, 3)
        self.bn3 = nn.BatchNorm2d(width)
        self.conv3 = conv(width, outputs, 1)
        same = stride == 1 and inputs == outputs
        self.shortcut = None if same else conv(inputs, outputs, 1, stride)

    def forward(self, x: Any) -> Any:
        y = self.bn1(x).relu_()
        shortcut = x if self.shortcut is None else self.shortcut(y)
        y = self.bn2(self.conv1(y)).relu_()
        y = self.bn3(self.conv2(y)).relu_()
        return self.conv3(y) + shortcut


class PreactivationResNet(nn.Module):  # type: ignore[misc]
    """`through(blocks, x)` runs the blocks; it may be replaced."""

    def __init__(self, depth: int, classes: int) -> None:
        super().__init__()
        self.conv1 = conv(3, 16, 3)
        blocks, inputs = [], 16
        for stage, width in enumerate((16, 32, 64)):
            for index in range((depth - 2) // 9):
                blocks.append(PreactivationBlock(inputs, width, 2 if stage and not index else 1))
                inputs = 4 * width
        self.blocks = nn.Sequential(*blocks)
        self.bn = nn.BatchNorm2d(inputs)
        self.fc = nn.Linear(inputs, classes)
        self.through: Any = lambda blocks, x: blocks(x)

    def forward(self, x: Any) -> Any:
        y = self.through(self.blocks, self.conv1(x))
        return self.fc(self.bn(y).relu_().mean((2, 3)))
