"""`megbrain bench conv`: 3x3 convolutions by the direct kernel and by Winograd's, in pairs."""

from __future__ import annotations

from typing import Any

import numpy as np

import megbrain_py as mb
from megbrain_py import functional as F
from megbrain_py.bench.pairs import Verdict, verdict
from megbrain_py.compiler import Function

# (images, channels in and out, side): every 3x3 convolution with stride 1 of ResNet-50 at 224
# pixels, batch 16, and of Faster R-CNN R50-FPN at 512 pixels, batch 2.
RESNET50 = [(16, 64, 56), (16, 128, 28), (16, 256, 14), (16, 512, 7)]
BACKBONE = [(2, 64, 128), (2, 128, 64), (2, 256, 32), (2, 512, 16)]
PYRAMID = [(2, 256, 128), (2, 256, 64), (2, 256, 16), (2, 256, 8)]
SHAPES = [*RESNET50, *BACKBONE, *PYRAMID]
PASSES = {
    "forward": "conv2d",
    "data gradient": "conv2d_backward_data",
    "weight gradient": "conv2d_backward_weights",
}


def bench_conv(pairs: int = 15) -> None:
    """Print for each shape and pass both times, their ratio and what "auto" takes."""
    print(f"{'shape':<16} {'pass':<16} {'direct ms':>9} {'winograd':>9} {'gain':>5}  95 %")
    for images, channels, side in SHAPES:
        for name, found, taken in compare_algorithms(images, channels, side, pairs):
            times = f"{1e3 * found.theirs:9.2f} {1e3 * found.ours:9.2f} {1 / found.ratio:5.2f}"
            interval = f"[{1 / found.high:.2f}, {1 / found.low:.2f}]"
            shape = f"{channels} @ {side}, {images}"
            print(f"{shape:<16} {name:<16} {times}  {interval}  auto: {taken}", flush=True)


def compare_algorithms(
    images: int, channels: int, side: int, pairs: int
) -> list[tuple[str, Verdict, str]]:
    """Of each pass: its name, Winograd's time against the direct one, the kernel of "auto"."""
    shape = (images, channels, side, side)
    winograd, direct, auto = (_step(shape, name) for name in ("winograd", "direct", "auto"))
    rng = np.random.default_rng(0)
    times = np.empty((pairs + 1, 2, len(PASSES)))  # the first pair warms up
    for pair in times:
        feeds = {name: rng.standard_normal(shape, np.float32) for name in ("x", "dy")}
        for one in rng.permutation(2):
            pair[one] = _seconds((winograd, direct)[one], feeds)
    taken = [kernel for _, kernel in _passes(auto)]
    ours, theirs = times[1:, 0], times[1:, 1]
    return [(n, verdict(ours[:, i], theirs[:, i]), taken[i]) for i, n in enumerate(PASSES)]


def _step(shape: tuple[int, int, int, int], algorithm: str) -> Function:
    """A convolution with its gradients; nothing large is fetched."""
    channels = shape[1]
    x, dy = (mb.placeholder(name, shape) for name in ("x", "dy"))
    w = mb.Parameter(np.random.default_rng(1).standard_normal((channels, channels, 3, 3)))
    y = F.conv2d(x, w, padding=1, algorithm=algorithm)
    dx, dw = mb.gradients(F.sum(F.mul(y, dy)), [x, w])
    return mb.compile({"y": F.max(y), "dx": F.max(dx), "dw": F.max(dw)})


def _passes(function: Function) -> list[tuple[int, str]]:
    """The instruction of each pass: its number and its kernel."""
    kernels = [step.kernel for step in function.plan.instructions]
    plain = [kernel.removesuffix("_winograd") for kernel in kernels]
    return [(plain.index(PASSES[name]), kernels[plain.index(PASSES[name])]) for name in PASSES]


def _seconds(function: Function, feeds: dict[str, Any]) -> list[float]:
    """The time of each pass in one run."""
    function(profile=True, **feeds)
    rows = function.profile(last=1).rows
    return [rows[number].seconds for number, _ in _passes(function)]
