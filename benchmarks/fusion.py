"""Training steps with fusion against the same steps without, in pairs, and the time by kernel.

python benchmarks/fusion.py [resnet50 | detector] [--pairs 15]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

import megbrain_py as mb
from megbrain_py import functional as F
from megbrain_py import nn, optim, passes
from megbrain_py.bench.pairs import compare, seconds
from megbrain_py.models.faster_rcnn import PRESETS, FasterRCNN
from megbrain_py.models.resnet import resnet

PLAIN = tuple(p for p in passes.PIPELINE if p not in (passes.fuse, passes.chain))
Feeds = dict[str, Any]


def resnet50(pipeline: tuple[passes.Pass, ...]) -> tuple[mb.Function, Feeds]:
    """ResNet-50, batch 16, 224 x 224."""
    model = resnet("resnet50", rng=0)
    rng = np.random.default_rng(0)
    feeds = {
        "x": rng.standard_normal((16, 3, 224, 224)).astype(np.float32),
        "y": rng.integers(0, 1000, 16),
    }
    x, y = mb.placeholder("x", (16, 3, 224, 224)), mb.placeholder("y", (16,), "int64")
    with nn.train_mode() as statistics:
        loss = F.cross_entropy(model(x), y)
    return _step(model, loss, statistics, pipeline), feeds


def detector(pipeline: tuple[passes.Pass, ...]) -> tuple[mb.Function, Feeds]:
    """Faster R-CNN R50-FPN with frozen norms, batch 2, 512 x 512, 8 boxes a picture."""
    model = FasterRCNN(replace(PRESETS["r50_fpn"], norm="frozen"), rng=0)
    rng = np.random.default_rng(0)
    corner, side = rng.uniform(0, 350, (2, 8, 2)), rng.uniform(30, 150, (2, 8, 2))
    feeds = {
        "images": rng.standard_normal((2, 3, 512, 512)).astype(np.float32),
        "image_sizes": np.full((2, 2), 512, np.int32),
        "boxes": np.concatenate([corner, corner + side], -1).astype(np.float32),
        "labels": rng.integers(1, 80, (2, 8)).astype(np.int32),
        "box_count": np.full(2, 8, np.int32),
        "key": np.arange(2),
    }
    inputs = {name: mb.placeholder(name, a.shape, a.dtype.name) for name, a in feeds.items()}
    with nn.train_mode(inputs["key"]) as statistics:
        first, *others = model.losses(**inputs).values()
    return _step(model, sum(others, first), statistics, pipeline), feeds


def _step(
    model: nn.Module, loss: mb.Var, statistics: Any, pipeline: tuple[passes.Pass, ...]
) -> mb.Function:
    sgd = optim.SGD(model.parameters(), momentum=0.9, weight_decay=1e-4)
    updates = {**statistics, **sgd.updates(loss, 1e-4)}
    return mb.compile({"loss": loss}, updates=updates, pipeline=pipeline)


def by_kernel(step: mb.Function, feeds: Feeds, runs: int = 4) -> dict[str, float]:
    """Milliseconds of each kernel in a step, medians of several runs of each instruction."""
    for _ in range(runs):
        step(profile=True, **feeds)
    return {row.kernel: 1e3 * row.seconds for row in step.profile(last=runs).by_kernel()}


def compared(
    description: str | None, other: str, pipeline: tuple[passes.Pass, ...]
) -> Iterator[tuple[mb.Function, mb.Function, Feeds]]:
    """The steps that the command line names, by the usual passes and by others, and their feeds;
    verdict and memory are printed."""
    builds = {"resnet50": resnet50, "detector": detector}
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("step", nargs="?", choices=list(builds), help="default: both")
    parser.add_argument("--pairs", type=int, default=15)
    arguments = parser.parse_args()
    for name in [arguments.step] if arguments.step else builds:
        (ours, feeds), (theirs, _) = builds[name](passes.PIPELINE), builds[name](pipeline)
        sides = [partial(seconds, partial(step, **feeds)) for step in (ours, theirs)]
        print(name, compare(*sides, arguments.pairs))
        print(f"  peak {ours.peak_bytes / 2**20:.0f} MiB, {other} {theirs.peak_bytes / 2**20:.0f}")
        yield ours, theirs, feeds


def main() -> None:
    """Print verdicts and tables."""
    for fused, plain, feeds in compared(__doc__, "plain", PLAIN):
        a, b = by_kernel(fused, feeds), by_kernel(plain, feeds)
        for kernel in sorted({*a, *b}, key=lambda k: -max(a.get(k, 0), b.get(k, 0))):
            if max(a.get(kernel, 0), b.get(kernel, 0)) > 1:
                print(f"  {kernel:28} {a.get(kernel, 0):8.1f} ms, {b.get(kernel, 0):8.1f} plain")


if __name__ == "__main__":
    main()
