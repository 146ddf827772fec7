"""Which algorithm computes a convolution: direct (oneDNN) or Winograd's F(4x4, 3x3).

The choice is a formula of the shapes, so the same convolution always gets the same kernel and the
same bits. Its constants were measured (docs/performance.md, "Winograd"); `algorithm="direct"` and
`algorithm="winograd"` overrule it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from megbrain_py.dtypes import Shape, TensorType
from megbrain_py.errors import require
from megbrain_py.ops.conv.geometry import Padding, Pair

ALGORITHMS = ("auto", "direct", "winograd")

TILE = 4  # outputs of a tile along an axis
PLANES = 36  # products of a tile, for each pair of channels
BLOCK = 16  # channels are computed in multiples of this

PANEL = 64  # input channels that the matrix product takes at a time

MARGIN = 1.25  # Winograd must promise to be this many times as fast


@dataclass(frozen=True)
class Costs:
    """What Winograd's algorithm pays, in units of one multiplication of the direct kernel.

    Fitted to 33 shapes, so they hold what the direct kernel loses, too: it is slower in the weight
    gradient than in the convolution.
    """

    product: float  # one multiplication of a plane
    transform: float  # one number of a transformed tile
    weight: float  # one number of the transformed weights or of their gradient


CONVOLUTION = Costs(product=1.5, transform=9.0, weight=7.5)  # and the data gradient
WEIGHT_GRADIENT = Costs(product=1.1, transform=24.0, weight=3.0)


def fits_winograd(
    kernel: Shape, stride: Pair, padding: Padding, dilation: Pair, groups: int
) -> bool:
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


def winograd_gain(costs: Costs, images: int, inputs: int, outputs: int, size: Pair) -> float:
    """Time of the direct kernel / time of Winograd's, estimated.

    size: (height, width) of what is tiled: y for the convolution and its weight gradient, dx for
    the data gradient.
    """
    tiles = images * math.prod(math.ceil(n / TILE) for n in size)
    if tiles == 0:
        return 0.0
    wide = [math.ceil(n / BLOCK) * BLOCK for n in (inputs, outputs)]
    winograd = PLANES * (
        (costs.product * tiles + costs.weight) * math.prod(wide)
        + costs.transform * tiles * sum(wide)
    )
    return 9 * images * math.prod(size) * inputs * outputs / winograd


def choose_winograd(images: TensorType, w: Shape, tiled: Shape, costs: Costs) -> bool:
    """For a convolution that fits: is Winograd's kernel taken? tiled: the shape that is tiled."""
    can = images.dtype.value == "float32" and images.layout == "channels_last"
    gain = winograd_gain(costs, tiled[0], w[1], w[0], (tiled[2], tiled[3]))
    return can and gain > MARGIN


def choose_gemm(images: TensorType, w: Shape, groups: int) -> bool:
    """For a weight gradient that Winograd's kernel does not compute: is it our matrix product?

    It is where it was faster than oneDNN's kernel: the channels must be many, since each pixel is
    gathered once for each tap, and nearly fill the panels that it multiplies.
    """
    outputs, inputs, *taps = w
    can = images.dtype.value == "float32" and images.layout == "channels_last" and groups == 1
    full = inputs >= 0.9 * math.ceil(inputs / PANEL) * PANEL
    wide = max(inputs, outputs) >= 256 if math.prod(taps) == 1 else inputs >= 128
    return can and full and wide and outputs >= 128
