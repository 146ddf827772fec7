"""What the tests run on many ranks: each program builds a graph, runs it, returns its arrays.

`python tests/rank_programs.py FILE NAME ARGUMENTS` runs one as a rank of MPI and pickles what all
ranks return.
"""

from __future__ import annotations

import json
import pickle
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

import megbrain_py as mb
from megbrain_py import distributed, engine, nn, optim, random
from megbrain_py import functional as F
from megbrain_py.dtypes import Array
from megbrain_py.models.faster_rcnn import FasterRCNN, FasterRCNNConfig, RoIHeadsConfig
from megbrain_py.models.resnet import resnet
from megbrain_py.models.rpn import RPNConfig
from megbrain_py.op_testing import integers, normal
from megbrain_py.plan import Plan

Arrays = dict[str, Array]


def own_part(shards: Sequence[int]) -> slice:
    """This rank's rows of the global batch."""
    rank = distributed.current().rank
    begin = sum(shards[:rank])
    return slice(begin, begin + shards[rank])


def batch_norm(
    shards: Sequence[int], two_pass: bool = False, colors: Sequence[int] | None = None
) -> Arrays:
    """y, gradients and new running values of a batch norm over all ranks, or over groups."""
    mine = own_part(shards)
    shape = (sum(shards), 5, 6, 4)
    x, dy = normal(*shape, scale=3, shift=50)[mine], normal(*shape, seed=1)[mine]
    group = distributed.everyone() if colors is None else distributed.Group(tuple(colors))
    vx, vdy = mb.placeholder("x", x.shape), mb.placeholder("dy", dy.shape)
    gamma, beta = mb.Parameter(np.linspace(0.5, 2, 5)), mb.Parameter(np.linspace(-1, 1, 5))
    running = mb.Parameter(np.full(5, 2.0)), mb.Parameter(np.full(5, 3.0))
    y, mean, var = F.batch_norm(
        vx, gamma, beta, *running, training=True, group=group, two_pass=two_pass
    )
    gradients = mb.gradients(F.sum(y * vdy), [vx, gamma, beta])
    dgamma, dbeta = distributed.data_parallel(gradients[1:])
    outputs = {"y": y, "dx": gradients[0], "dgamma": dgamma, "dbeta": dbeta}
    return mb.compile({**outputs, "mean": mean, "var": var})(x=x, dy=dy)


def _convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Flatten(), nn.Linear(16 * 16, 10),
    )  # fmt: skip


NETS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "convolutions": (_convolutions, 16),
    "resnet18": (lambda: resnet("resnet18", classes=10, widths=(16, 32, 48, 64), stem="none"), 16),
}


def train(
    name: str, steps: int, shards: Sequence[int], seed: int = 0, permuted: bool = False
) -> Arrays:
    """Losses, gradients and values after some steps of SGD on one global batch."""
    build, size = NETS[name]
    mine, rows = own_part(shards), sum(shards)
    order = np.random.default_rng(1).permutation(rows) if permuted else np.arange(rows)
    images = normal(rows, 3, size, size, seed=seed)[order][mine]
    labels = integers(rows, seed=seed)[order][mine]
    nn.init.seed(7)
    net = build()
    nn.sync_batch_norms(net)
    x, label = mb.placeholder("x", images.shape), mb.placeholder("label", labels.shape, "int64")
    with nn.train_mode() as updates:
        total = F.cross_entropy(net(x), label, reduction="sum")
    loss = distributed.mean_over_ranks(total, mb.constant(float(len(labels))))
    weights = net.named_parameters()
    gradients = mb.gradients(loss, list(weights.values()))
    summed = distributed.data_parallel(gradients, bucket_bytes=1 << 16)
    updates |= optim.SGD(list(weights.values())).updates(summed, 0.05)
    outputs = {"loss": F.all_reduce(loss)}
    outputs |= {f"d_{n}": g for n, g in zip(weights, summed, strict=True)}
    step = mb.compile(outputs, updates=updates)
    found = [step(x=images, label=labels) for _ in range(steps)]
    losses = np.array([one["loss"] for one in found])
    return {**found[0], "loss": losses, **{f"p_{n}": v for n, v in net.state_dict().items()}}


DETECTOR = FasterRCNNConfig(
    num_classes=5, backbone="laptop", fpn_channels=16, anchor_sizes=(12.0, 24.0, 48.0, 96.0),
    canonical_scale=64.0, rpn=RPNConfig(40, 40, 30, 20, samples=32),
    roi=RoIHeadsConfig(samples=16, positive=0.5, hidden=24, pool=3, detections=12),
)  # fmt: skip


def _pictures(count: int, seed: int) -> Arrays:
    """Pictures of 64 x 96 with one to three boxes each."""
    rng = np.random.default_rng(seed)
    corner, side = rng.uniform(0, 40, (count, 3, 2)), rng.uniform(10, 24, (count, 3, 2))
    return {
        "images": normal(count, 3, 64, 96, seed=seed),
        "image_sizes": np.tile(np.array([64, 96], np.int32), (count, 1)),
        "boxes": np.concatenate([corner, corner + side], 2).astype(np.float32),
        "labels": rng.integers(1, 6, (count, 3)).astype(np.int32),
        "box_count": rng.integers(1, 4, count).astype(np.int32),
        "key": random.keys(0, 0, np.arange(count)),
    }


def detector(shards: Sequence[int], seed: int = 0, permuted: bool = False) -> Arrays:
    """Losses, over all ranks, and their gradients of a training step of a Faster R-CNN."""
    rows = sum(shards)
    order = np.random.default_rng(1).permutation(rows) if permuted else np.arange(rows)
    batch = {n: a[order][own_part(shards)] for n, a in _pictures(rows, seed).items()}
    net = FasterRCNN(DETECTOR, rng=0)
    nn.sync_batch_norms(net)
    inputs = {n: mb.placeholder(n, a.shape, a.dtype) for n, a in batch.items()}
    with nn.train_mode(inputs["key"]):
        losses = net.losses(**inputs)
    weights = net.named_parameters()
    gradients = mb.gradients(sum(losses.values(), mb.constant(0.0)), list(weights.values()))
    summed = distributed.data_parallel(gradients)
    outputs = {n: F.all_reduce(loss) for n, loss in losses.items()}
    outputs |= {f"d_{n}": g for n, g in zip(weights, summed, strict=True)}
    return mb.compile(outputs)(**batch)


def other_graphs(what: str) -> None:
    """Rank 1 runs another program than the others, or none."""
    world = distributed.current()
    x = mb.placeholder("x", (4,))
    if world.rank == 1 and what == "missing":
        return
    if world.rank == 1 and what == "sleep":
        time.sleep(8)
    if world.rank == 1 and what == "exception":
        raise ValueError("rank 1 fails")
    odd = world.rank == 1
    if what == "reduction":
        y = F.all_reduce(x, "max" if odd else "sum")
    elif what == "group":
        y = F.all_reduce(x, group=distributed.Group(tuple(range(world.size))) if odd else None)
    elif what == "count":
        y = F.all_reduce(F.all_reduce(x)) if odd else F.all_reduce(x)
    else:
        y = F.all_reduce(x)
    mb.compile({"y": y})(x=np.zeros(4, np.float32))


class Before:
    """An observer that calls `act` with the title of each instruction before it runs."""

    def __init__(self, plan: Plan, act: Callable[[str], None]) -> None:
        self.plan, self.act = plan, act

    def before(self, index: int) -> None:
        self.act(self.plan.title(self.plan.instructions[index]))

    def after(self, index: int) -> None: ...


def overlapped(act: Callable[[str], None]) -> Array:
    """The sum of exp(0) over all ranks; beside it tanh(0), which needs no other rank."""
    group = distributed.everyone()
    x = mb.placeholder("x", (5,))
    (total,) = F.all_reduce_together([F.exp(x)], group, overlap=True)
    function = mb.compile({"total": total, "beside": F.tanh(x)})
    out = {name: np.empty(5, np.float32) for name in ("total", "beside")}
    observer = Before(function.plan, act)
    function._executable.run({"x": np.zeros(5, np.float32)}, out, observer=observer)
    return out["total"]


def overlap_without_rank_1() -> None:
    """Rank 1 does not come to the start of what the others wait for."""

    def act(kernel: str) -> None:
        if distributed.current().rank == 1 and kernel == "all_reduce_later":
            time.sleep(8)

    overlapped(act)


def train_until_cut(file: str) -> None:
    """Steps until the link between the ranks is cut, for which rank 0 asks after a while. Each rank
    leaves its error in a file: what rank 1 prints would have to cross the link."""
    world = distributed.current()
    try:
        for step in range(10_000):
            train("convolutions", 1, [2] * world.size)
            if step == 3 and world.rank == 0:
                Path(file).touch()
    except mb.EngineError as error:
        Path(f"{file}.error{world.rank}").write_text(str(error))
        raise


def threads() -> int:
    """How many this rank's kernels have."""
    return engine.num_threads()


PROGRAMS: dict[str, Callable[..., object]] = {
    "batch_norm": batch_norm,
    "train": train,
    "other_graphs": other_graphs,
    "overlap_without_rank_1": overlap_without_rank_1,
    "threads": threads,
    "train_until_cut": train_until_cut,
}


def main(file: str, name: str, arguments: str) -> None:
    """One rank of MPI."""
    distributed.init("mpi")
    found = distributed.all_gather_objects(PROGRAMS[name](*json.loads(arguments)))
    if distributed.current().rank == 0:
        Path(file).write_bytes(pickle.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
