"""Where the time of a Faster R-CNN training step goes, kernel by kernel.

python benchmarks/detector_step.py [--batch 2] [--size 512] [--steps 3]
"""

from __future__ import annotations

import argparse
from collections import defaultdict

import numpy as np

import megbrain_py as mb
from megbrain_py import nn, optim, random
from megbrain_py.dtypes import Array
from megbrain_py.models.faster_rcnn import PRESETS, FasterRCNN

TRUE_BOXES = 8  # of each picture
# What other rooms answer for; the rest are the detector's small operators.
LARGE = {
    "convolution": ("conv2d", "channel_sum"),
    "matrix products": ("matmul", "linear"),
    "batch norm": (
        "channel_moments",
        "channel_normalise",
        "channel_scale",
        "channel_affine",
        "channel_relu",
    ),
    "elementwise": ("add", "sub", "mul", "div", "neg", "square", "relu", "fused"),
}


def part_of(kernel: str) -> str:
    """The part of LARGE that a kernel belongs to, by the beginning of its name, or "small"."""
    return next((part for part, names in LARGE.items() if kernel.startswith(names)), "small")


def data(batch: int, size: int) -> dict[str, Array]:
    """Noise with boxes of 32 to 256 pixels."""
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, size / 2, (batch, TRUE_BOXES, 2))
    sides = rng.uniform(32, size / 2, (batch, TRUE_BOXES, 2))
    return {
        "images": rng.standard_normal((batch, 3, size, size), np.float32),
        "image_sizes": np.full((batch, 2), size, np.int32),
        "boxes": np.concatenate([corner, corner + sides], -1).astype(np.float32),
        "labels": rng.integers(1, 81, (batch, TRUE_BOXES)).astype(np.int32),
        "box_count": np.full(batch, TRUE_BOXES, np.int32),
        "key": random.keys(0, 0, np.arange(batch)),
    }


def main() -> None:
    """Print seconds and shares."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--steps", type=int, default=3)
    arguments = parser.parse_args()
    model = FasterRCNN(PRESETS["r50_fpn"], rng=0)
    feeds = data(arguments.batch, arguments.size)
    inputs = {name: mb.placeholder(name, a.shape, a.dtype.name) for name, a in feeds.items()}
    with nn.train_mode(inputs["key"]) as statistics:
        losses = model.losses(**inputs)
    total = sum(losses.values(), start=mb.constant(np.float32(0)))
    sgd = optim.SGD(model.parameters(), momentum=0.9, weight_decay=1e-4)
    step = mb.compile({"loss": total}, updates={**statistics, **sgd.updates(total, 0.001)})

    runs: list[dict[str, float]] = []
    for _ in range(1 + arguments.steps):
        step(profile=True, **feeds)
        spent: dict[str, float] = defaultdict(float)
        for row in step.profile(last=1).rows:
            spent[row.kernel] += row.seconds
        runs.append(spent)
    median = {k: float(np.median([run[k] for run in runs[1:]])) for k in runs[0]}
    whole = sum(median.values())
    print(f"{whole:.3f} s a step")
    for part in (*LARGE, "small"):
        seconds = sum(s for k, s in median.items() if part_of(k) == part)
        print(f"{part:20} {seconds * 1e3:9.2f} ms {seconds / whole:7.2%}")
    print("the small ones:")
    for kernel, seconds in sorted(median.items(), key=lambda item: -item[1]):
        if part_of(kernel) == "small" and seconds > 2e-5:
            print(f"  {kernel:24} {seconds * 1e3:9.3f} ms {seconds / whole:7.2%}")


if __name__ == "__main__":
    main()
