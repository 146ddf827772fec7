"""Feature pyramid: every level gets the meaning of the coarse maps and the detail of its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from megbrain_py import functional as F
from megbrain_py import nn
from megbrain_py.graph import Var
from megbrain_py.nn.init import RandomLike, generator, kaiming_uniform


def _conv(inputs: int, outputs: int, kernel: int, rng: np.random.Generator) -> nn.Sequential:
    """A convolution as torchvision names and initialises it: `0.weight`, `0.bias`."""
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, rng=rng)
    conv.weight.set(kaiming_uniform(conv.weight.shape, slope=1.0, rng=rng))
    assert conv.bias is not None
    conv.bias.set(np.zeros(outputs, np.float32))
    return nn.Sequential(conv)


class FPN(nn.Module):
    """Backbone stages C2..C5 (finest first) -> P2..P5, and P6 when `extra_level`.

    1x1 laterals, nearest top-down sum, 3x3 outputs, no activation; P6 is every second pixel of P5.
    Source: Lin et al. 2017, section 3; names and details as in torchvision.
    """

    def __init__(
        self,
        inputs: Sequence[int],
        channels: int = 256,
        *,
        extra_level: bool = True,
        rng: RandomLike = None,
    ) -> None:
        rng = generator(rng)
        self.inner_blocks = nn.ModuleList([_conv(n, channels, 1, rng) for n in inputs])
        self.layer_blocks = nn.ModuleList([_conv(channels, channels, 3, rng) for _ in inputs])
        self.extra_level = extra_level

    def forward(self, stages: Sequence[Var]) -> list[Var]:
        laterals = [block(x) for block, x in zip(self.inner_blocks, stages, strict=True)]
        merged = [laterals[-1]]
        for lateral in reversed(laterals[:-1]):
            above = F.resize(merged[0], lateral.shape[2:], mode="nearest")
            merged.insert(0, lateral + above)
        levels = [block(x) for block, x in zip(self.layer_blocks, merged, strict=True)]
        if self.extra_level:
            levels.append(F.max_pool2d(levels[-1], 1, stride=2))
        return levels
