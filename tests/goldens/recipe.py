"""Made numbers for golden tests: the oracle and our models build the same weights and images from these
functions, so that no file of weights is needed (numpy only, bit-equal on every machine).

Everything comes from raw bits of PCG64, seeded by the CRC-32 of a name, through exactly rounded additions
and multiplications: no normal distribution, no sums, no library functions whose last bit may differ.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

# Gains of layers that no ReLU follows, by the end of the parameter's name (others: sqrt(2), for ReLU).
# The detector's heads are scaled so that proposals differ from anchors and some classes get clear scores.
_GAINS = {
    "rpn.head.cls_logits.weight": 1.0,
    "rpn.head.bbox_pred.weight": 0.15,
    "roi_heads.box_predictor.cls_score.weight": 1.0,
    "roi_heads.box_predictor.bbox_pred.weight": 0.7,
}
_PLAIN_PARTS = (
    "fpn.inner_blocks.",
    "fpn.layer_blocks.",
)  # linear layers inside the pyramid: gain 1
BIAS = 0.05
LAST_BN = 0.25


def uniform(name: str, shape: Sequence[int]) -> FloatArray:
    """float32[shape] in [-1, 1), multiples of 2^-23, that depend on `name` only.

    A longer array of the same name begins with the shorter one.
    """
    bits = np.random.PCG64(zlib.crc32(name.encode())).random_raw(math.prod(shape))
    numbers = (bits >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-23) - np.float32(1)
    return numbers.reshape(tuple(shape)).astype(np.float32, copy=False)


def _scaled(name: str, shape: Sequence[int], scale: float) -> FloatArray:
    return uniform(name, shape) * np.float32(scale)


def _is_last_norm(name: str, names: Mapping[str, Sequence[int]]) -> bool:
    """Whether `name` is the weight of the batch norm that ends a residual block's main path."""
    stem, _, last = name.rpartition("bn3.weight")
    if stem and not last:
        return True
    stem, _, last = name.rpartition("bn2.weight")
    return bool(stem) and not last and f"{stem}bn3.weight" not in names


def _matrix(name: str, shape: Sequence[int]) -> FloatArray:
    gain = math.sqrt(2.0)
    if any(part in name for part in _PLAIN_PARTS) or name == "fc.weight":
        gain = 1.0
    for end, special in _GAINS.items():
        if name.endswith(end):
            gain = special
    fan_in = math.prod(shape[1:])
    return _scaled(name, shape, gain * math.sqrt(3.0 / fan_in))  # U(-a, a) has variance a^2 / 3


def recipe_weights(shapes: Mapping[str, Sequence[int]]) -> dict[str, FloatArray]:
    """Weights for every name in `shapes` (a state dict's names and shapes), each from its name alone.

    - rank 4 or 2 (convolution, linear): uniform with variance gain^2 / fan_in;
    - rank 1 `*.weight` (batch norm): within 10 % of 1, of 0.25 for the last norm of a residual block;
    - `*.bias`: within 0.05; `*.running_mean`: within 0.1; `*.running_var`: between 0.75 and 1.25.

    `*.num_batches_tracked` has no counterpart here and is left out.
    Raises ValueError for a name that follows none of these forms.
    """
    weights: dict[str, FloatArray] = {}
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            continue
        if len(shape) in (2, 4):
            weights[name] = _matrix(name, shape)
        elif name.endswith(".running_mean"):
            weights[name] = _scaled(name, shape, 0.1)
        elif name.endswith(".running_var"):
            weights[name] = np.float32(1) + _scaled(name, shape, 0.25)
        elif name.endswith(".bias"):
            weights[name] = _scaled(name, shape, BIAS)
        elif name.endswith(".weight") and len(shape) == 1:
            near_one = np.float32(1) + _scaled(name, shape, 0.1)
            scale = LAST_BN if _is_last_norm(name, shapes) else 1.0
            weights[name] = near_one * np.float32(scale)
        else:
            raise ValueError(f"no recipe for {name} of shape {tuple(shape)}")
    return weights


def recipe_image(name: str, height: int, width: int) -> FloatArray:
    """float32[3, height, width] in [0, 1]: a smooth background, eight plain boxes and fine noise."""
    image = np.empty((3, height, width), np.float32)
    corners = uniform(f"{name}/corners", (3, 2, 2)) * np.float32(0.2) + np.float32(0.5)
    down = (np.arange(height, dtype=np.float32) / np.float32(max(height - 1, 1)))[None, :, None]
    right = (np.arange(width, dtype=np.float32) / np.float32(max(width - 1, 1)))[None, None, :]
    one = np.float32(1)
    top = corners[:, 0, :1, None] * (one - right) + corners[:, 0, 1:, None] * right
    bottom = corners[:, 1, :1, None] * (one - right) + corners[:, 1, 1:, None] * right
    image[:] = top * (one - down) + bottom * down
    places = uniform(f"{name}/places", (8, 4)) * np.float32(0.5) + np.float32(0.5)
    colours = uniform(f"{name}/colours", (8, 3)) * np.float32(0.4) + np.float32(0.5)
    for place, colour in zip(places, colours, strict=True):
        y, x = int(place[0] * height * 0.8), int(place[1] * width * 0.8)
        h, w = 2 + int(place[2] * height * 0.4), 2 + int(place[3] * width * 0.4)
        image[:, y : y + h, x : x + w] = colour[:, None, None]
    image += uniform(f"{name}/noise", image.shape) * np.float32(0.05)
    return np.clip(image, np.float32(0), one)


def sample_indices(name: str, size: int, count: int) -> NDArray[np.int64]:
    """`min(size, count)` flat indices into an array of `size` entries, fixed by `name`.

    All of them in order if the array is no larger than `count`; otherwise they may repeat.
    """
    if size <= count:
        return np.arange(size, dtype=np.int64)
    bits = np.random.PCG64(zlib.crc32(f"{name}/sample".encode())).random_raw(count)
    return ((bits >> np.uint64(32)) % np.uint64(size)).astype(np.int64)


def sample(name: str, array: NDArray[np.generic], count: int) -> NDArray[np.generic]:
    """The entries of `array` (row-major) at `sample_indices(name, array.size, count)`."""
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat[sample_indices(name, flat.size, count)]
