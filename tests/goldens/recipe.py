"""Made numbers for golden tests: the oracle and our models build the same weights and images.

No file of weights is needed: everything comes from raw bits of PCG64, seeded by the CRC-32 of a
name, through exactly rounded additions and multiplications. No normal distribution, no sums, no
library functions whose last bit may differ: the numbers are bit-equal on every machine. Numpy only.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

# Gains by the end of the parameter's name; others: 1 in the backbone, 0.5 in the pyramid (whose
# levels add up), else sqrt(2).
# The detector's heads are scaled so that proposals differ from anchors and some classes get clear
# scores, far from saturation.
_GAINS = {
    "rpn.head.cls_logits.weight": 0.7,
    "rpn.head.bbox_pred.weight": 0.2,
    "roi_heads.box_predictor.cls_score.weight": 0.9,
    "roi_heads.box_predictor.bbox_pred.weight": 1.0,
}
_PYRAMID_PARTS = ("inner_blocks.", "layer_blocks.")
_PLAIN_PARTS = ("layer1.", "layer2.", "layer3.", "layer4.")
_PLAIN_ENDS = ("conv1.weight", "fc.weight")
BIAS = 0.05
LAST_NORM = 0.25
# Batch norms shift their channels to either side, so that few inputs of a ReLU lie near its kink:
# one that rounding pushes across changes a gradient far more than rounding itself does.
NORM_SHIFT = 1.5
LAST_NORM_SHIFT = 0.5


def uniform(name: str, shape: Sequence[int]) -> FloatArray:
    """float32[shape] in [-1, 1), multiples of 2^-23, that depend on `name` only.

    A longer array of the same name begins with the shorter one.
    """
    bits = np.random.PCG64(zlib.crc32(name.encode())).random_raw(math.prod(shape))
    numbers: FloatArray = (bits >> np.uint64(40)).astype(np.float32) * np.float32(
        2.0**-23
    ) - np.float32(1)
    return numbers.reshape(tuple(shape))


def _scaled(name: str, shape: Sequence[int], scale: float) -> FloatArray:
    scaled: FloatArray = uniform(name, shape) * np.float32(scale)
    return scaled


def _is_last_norm(stem: str, names: Mapping[str, Sequence[int]]) -> bool:
    """Whether the batch norm `stem` ends the main path of a residual block."""
    block, _, last = stem.rpartition(".")
    return last == "bn3" or (last == "bn2" and f"{block}.bn3.weight" not in names)


def _norm(name: str, shape: Sequence[int], last: bool) -> FloatArray:
    """The weight or bias of a batch norm."""
    numbers = uniform(name, shape)
    if name.endswith(".weight"):
        scale = np.float32(LAST_NORM if last else 1.0)
        signs = np.ones_like(numbers)
    else:
        scale = np.float32(LAST_NORM_SHIFT if last else NORM_SHIFT)
        signs = np.where(numbers < 0, np.float32(-1), np.float32(1))
    made: FloatArray = signs * (np.float32(1) + numbers * np.float32(0.1)) * scale
    return made


def _matrix(name: str, shape: Sequence[int]) -> FloatArray:
    gain = math.sqrt(2.0)
    if name.endswith(_PLAIN_ENDS) or any(part in name for part in _PLAIN_PARTS):
        gain = 1.0
    if any(part in name for part in _PYRAMID_PARTS):
        gain = 0.5
    for end, special in _GAINS.items():
        if name.endswith(end):
            gain = special
    fan_in = math.prod(shape[1:])
    return _scaled(name, shape, gain * math.sqrt(3.0 / fan_in))  # U(-a, a) has variance a^2 / 3


def recipe_weights(shapes: Mapping[str, Sequence[int]]) -> dict[str, FloatArray]:
    """Weights for every name in `shapes` (of a state dict), each from its own name and shape.

    - rank 4 or 2 (convolution, linear): uniform with variance gain^2 / fan_in;
    - batch norm: `weight` within 10 % of 1 (of 0.25 for the last norm of a residual block), `bias`
      within 10 % of -1.5 or 1.5 (of -0.5 or 0.5 for the last), `running_mean` within 0.1,
      `running_var` between 0.75 and 1.25;
    - any other `*.bias`: within 0.05.

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
        elif f"{(stem := name.rpartition('.')[0])}.running_mean" in shapes:
            weights[name] = _norm(name, shape, _is_last_norm(stem, shapes))
        elif name.endswith(".bias"):
            weights[name] = _scaled(name, shape, BIAS)
        else:
            raise ValueError(f"no recipe for {name} of shape {tuple(shape)}")
    return weights


def recipe_image(name: str, height: int, width: int) -> FloatArray:
    """float32[3, height, width] in [0, 1]: smooth background, eight plain boxes and fine noise."""
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
        y, x = int(float(place[0]) * height * 0.8), int(float(place[1]) * width * 0.8)
        h, w = 2 + int(float(place[2]) * height * 0.4), 2 + int(float(place[3]) * width * 0.4)
        image[:, y : y + h, x : x + w] = colour[:, None, None]
    image += uniform(f"{name}/noise", image.shape) * np.float32(0.05)
    clipped: FloatArray = np.clip(image, np.float32(0), one)
    return clipped


def sample_indices(name: str, size: int, count: int) -> NDArray[np.int64]:
    """`min(size, count)` flat indices into an array of `size` entries, fixed by `name`.

    All of them in order if the array is no larger than `count`; otherwise they may repeat.
    """
    if size <= count:
        return np.arange(size, dtype=np.int64)
    bits = np.random.PCG64(zlib.crc32(f"{name}/sample".encode())).random_raw(count)
    indices: NDArray[np.int64] = ((bits >> np.uint64(32)) % np.uint64(size)).astype(np.int64)
    return indices


def sample(name: str, array: NDArray[np.generic], count: int) -> NDArray[np.generic]:
    """The entries of `array` (row-major) at `sample_indices(name, array.size, count)`."""
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat[sample_indices(name, flat.size, count)]


def summary(name: str, array: NDArray[np.generic], count: int) -> dict[str, NDArray[np.generic]]:
    """What a golden file stores of `array` under the key `name` (see README.md, "summary")."""
    wide = np.asarray(array, np.float64)
    largest = float(np.abs(wide).max()) if wide.size else 0.0
    norm = float(np.sqrt(np.square(wide).sum()))
    return {
        f"{name}/stats": np.array([largest, norm], np.float64),
        f"{name}/samples": sample(name, np.asarray(array), count),
    }
