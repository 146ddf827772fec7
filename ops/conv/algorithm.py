"""Which algorithm computes a convolution: direct (oneDNN) or Winograd's F(4x4, 3x3).

The choice is a formula of the shapes, so the same convolution always gets the same kernel and the
same bits. Its constants were measured (docs/performance.md, "Winograd"); `algorithm="direct"` and
`algorithm="winograd"` overrule it.
"""

from __future__ import annotations

import math

from megbrain_py.dtypes import Shape, TensorType
from megbrain_py.errors import require
from megbrain_py.ops.conv.geometry import Padding, Pair

ALGORITHMS = ("auto", "direct", "winograd")

TILE = 4  # outputs of a tile along an axis
PLANES = 36  # products of a tile, for each pair of channels
BLOCK = 16  # channels are computed in multiples of this

# Costs in units of one multiplication of the direct kernel.
PRODUCT = 1.1  # one multiplication of a plane
TRANSFORM = 25.0  # one number of a transformed tile, made and read, or read and made into outputs
WEIGHT = 30.0  # one number of the transformed weights or of their gradient
MARGIN = 1.1  # Winograd must promise to be this many times as fast


def fits_winograd(kernel: Shape, stride: Pair, padding: Padding, dilation: Pair, groups: int) -> bool:
    """Is the algorithm made for this geometry? kernel: (kh, kw)."""
    ones = (1, 1)
    return kernel == (3, 3) and stride == dilation == ones and groups == 1 and max(padding) <= 2


def require_algorithm(algorithm: str, fits: bool) -> None:
    """Refuse unknown names, and winograd where it does not fit."""
    known = ", ".join(ALGORITHMS)
    require(algorithm in ALGORITHMS, f"algorithm must be one of {known}, is {algorithm!r}")
    require(
        algorithm != "winograd" or fits,
        "algorithm winograd is for 3x3 kernels with stride 1, dilation 1, paddings up to 2 and "
        "one group",
    )


def winograd_gain(images: int, inputs: int, outputs: int, size: Pair) -> float:
    """Time of the direct kernel / time of Winograd's, estimated.

    size: (height, width) of what is tiled: y for the convolution and its weight gradient, dx for
    the data gradient.
    """
    pixels = images * size[0] * size[1]
    tiles = images * math.prod(math.ceil(n / TILE) for n in size)
    wide = [math.ceil(n / BLOCK) * BLOCK for n in (inputs, outputs)]
    if tiles == 0:
        return 0.0
    transforms = TRANSFORM * tiles * sum(wide) + WEIGHT * math.prod(wide)
    winograd = PLANES * (PRODUCT * tiles * math.prod(wide) + transforms)
    return 9 * pixels * inputs * outputs / winograd


def choose_winograd(images: TensorType, inputs: int, outputs: int, tiled: Shape) -> bool:
    """For a convolution that fits: is Winograd's kernel taken? tiled: the shape that is tiled."""
    can = images.dtype.value == "float32" and images.layout == "channels_last"
    return can and winograd_gain(tiled[0], inputs, outputs, (tiled[2], tiled[3])) > MARGIN
