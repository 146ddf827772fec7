"""ResNet-50 training step against torch, in pairs; without torch only ours is timed.

python benchmarks/resnet50_step.py [--batch 16] [--size 224] [--pairs 15]
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable

import numpy as np
from pairs import compare, seconds

import megbrain_py as mb
from megbrain_py import functional as F
from megbrain_py import nn, optim
from megbrain_py.models.resnet import resnet


def ours(batch: int, size: int) -> Callable[[], object]:
    """One SGD step with momentum on fresh pictures."""
    model = resnet("resnet50")
    x = mb.placeholder("x", (batch, 3, size, size))
    y = mb.placeholder("y", (batch,), "int64")
    rate = mb.placeholder("rate", ())
    with nn.train_mode() as statistics:
        loss = F.cross_entropy(model(x), y)
    sgd = optim.SGD(model.parameters(), momentum=0.9, weight_decay=1e-4)
    step = mb.compile({"loss": loss}, updates={**statistics, **sgd.updates(loss, rate)})
    print(f"planned: {step.peak_bytes / 2**20:.0f} MiB of scratch memory")
    pictures, labels = data(batch, size)
    return lambda: step(x=pictures, y=labels, rate=0.01)


def theirs(batch: int, size: int) -> Callable[[], object]:
    """The same step in torch, eager, channels_last."""
    import torch
    import torchvision

    model = torchvision.models.resnet50().to(memory_format=torch.channels_last)
    sgd = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    pictures, labels = data(batch, size)
    x = torch.from_numpy(pictures).contiguous(memory_format=torch.channels_last)
    y = torch.from_numpy(labels)

    def step() -> float:
        sgd.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        sgd.step()
        return float(loss)

    return step


def data(batch: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Random pictures and labels."""
    rng = np.random.default_rng(0)
    pictures = rng.standard_normal((batch, 3, size, size)).astype(np.float32)
    return pictures, rng.integers(0, 1000, batch)


def main() -> None:
    """Print the verdict."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--pairs", type=int, default=15)
    arguments = parser.parse_args()
    mine = ours(arguments.batch, arguments.size)
    if importlib.util.find_spec("torchvision") is None:
        mine()
        times = [seconds(mine) for _ in range(arguments.pairs)]
        print(f"ours {np.median(times):.3f} s a step; torch is not installed")
        return
    print(compare(mine, theirs(arguments.batch, arguments.size), arguments.pairs))


if __name__ == "__main__":
    main()
