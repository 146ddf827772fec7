"""What a residual network consists of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ResNetConfig:
    """A residual network in up to four stages; stage i has `depths[i]` blocks.

    stem: "large" is 7x7/2 and a 3x3/2 maximum pool (stride 4), "small" is 3x3/2 and the pool,
    "none" a 3x3 at full resolution, for images of about 32 pixels.
    widths: channels inside each stage; a bottleneck gives four times as many.
    classes: outputs of the classifier; 0 for a backbone without one.
    norm: "batch", or "frozen": an affine map by fixed statistics, also in training.
    zero_init_last: the last norm of each block starts at 0, so that blocks start as identities
    (Goyal et al. 2017).
    """

    block: Literal["basic", "bottleneck"] = "bottleneck"
    depths: tuple[int, ...] = (3, 4, 6, 3)
    widths: tuple[int, ...] = (64, 128, 256, 512)
    stem: Literal["large", "small", "none"] = "large"
    stem_width: int = 64
    classes: int = 1000
    norm: Literal["batch", "frozen"] = "batch"
    norm_eps: float = 1e-5
    zero_init_last: bool = False

    def __post_init__(self) -> None:
        if not 1 <= len(self.depths) <= 4 or len(self.depths) != len(self.widths):
            raise ValueError(
                f"ResNetConfig: depths {self.depths} and widths {self.widths} must both have "
                "one number for each of 1 to 4 stages"
            )

    @property
    def expansion(self) -> int:
        """Channels that a block gives, per channel inside it."""
        return 4 if self.block == "bottleneck" else 1


CONFIGS = {
    "resnet18": ResNetConfig("basic", (2, 2, 2, 2)),
    "resnet34": ResNetConfig("basic", (3, 4, 6, 3)),
    "resnet50": ResNetConfig("bottleneck", (3, 4, 6, 3)),
    "resnet101": ResNetConfig("bottleneck", (3, 4, 23, 3)),
    "cifar20": ResNetConfig("basic", (3, 3, 3), (16, 32, 64), "none", 16, 10),
    "laptop": ResNetConfig("basic", (1, 1, 1, 1), (32, 64, 128, 256), "small", 32),
    "tiny": ResNetConfig("basic", (1, 1, 1, 1), (16, 32, 64, 128), "small", 16),
}
