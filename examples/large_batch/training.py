"""One training of the detector on logical devices, by any of the study's ways."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import megbrain_py as mb
from examples.large_batch.setting import (
    LARGE,
    SMALL,
    SharedBatches,
    Study,
    feeds,
    loader_of,
    new_detector,
)
from megbrain_py import distributed, nn, optim
from megbrain_py import functional as F
from megbrain_py.dtypes import Array, DType
from megbrain_py.graph import Var, nodes_of
from megbrain_py.models.faster_rcnn import FasterRCNN
from megbrain_py.ops.sample.sample import Sample
from megbrain_py.training.config import OptimizerConfig, TrainConfig
from megbrain_py.training.policy import learning_rates

Arrays = dict[str, Array]
EARLY = 1 / 8  # of the training


@dataclass(frozen=True)
class Arm:
    """A way to train.

    bn_size: pictures that share batch norm's moments; 0: frozen norms. rate: of the study's.
    """

    name: str
    batch: int
    bn_size: int
    warmup: bool = True
    rate: float = 1.0


SYNC = Arm(f"b{LARGE}_bn{LARGE}", LARGE, LARGE)
ARMS = (
    SYNC,
    Arm(f"b{SMALL}_bn{SMALL}", SMALL, SMALL),
    Arm(f"b{SMALL}_frozen", SMALL, 0),
    Arm(f"b{LARGE}_bn2", LARGE, 2),
    Arm(f"b{LARGE}_bn8", LARGE, 8),
    Arm(f"b{LARGE}_frozen", LARGE, 0),
    Arm(f"b{LARGE}_frozen_cold", LARGE, 0, warmup=False),
)
TWICE = tuple(replace(arm, name=f"{arm.name}_x2", rate=2.0) for arm in ARMS)
SWEEP = tuple(Arm(f"b{LARGE}_bn{size}", LARGE, size) for size in (4, 16))


class GroupedNorm(nn.Module):
    """A batch norm that takes each `size` neighbouring pictures of a device apart.

    The state is that of the norm which it replaces; the first pictures change the running
    statistics, as the first device's do.
    """

    def __init__(self, norm: nn.BatchNorm2d, size: int) -> None:
        self.weight, self.bias = norm.weight, norm.bias
        self.running_mean, self.running_var = norm.running_mean, norm.running_var
        self.first, self.size = norm, size

    def forward(self, x: Var) -> Var:
        rest = [
            F.batch_norm(
                x[start : start + self.size], self.weight, self.bias, self.running_mean,
                self.running_var, training=True, eps=self.first.eps,
            )[0]
            for start in range(self.size, x.shape[0], self.size)
        ]  # fmt: skip
        return F.concat([self.first(x[: self.size]), *rest], 0)


def prepare_norms(net: FasterRCNN, bn_size: int, each: int) -> None:
    """Frozen batch norms, or moments over `bn_size` pictures where a device holds `each`."""
    if bn_size >= each:
        nn.sync_batch_norms(net, distributed.sharing_images(bn_size, each))
    for parent in list(net.modules()):
        for name, norm in list(vars(parent).items()):
            if not isinstance(norm, nn.BatchNorm2d):
                continue
            if bn_size == 0:
                norm.freeze()
            elif bn_size < each:
                setattr(parent, name, GroupedNorm(norm, bn_size))
    for name, parameter in net.named_state().items():
        parameter.rename(name)  # from the name within `parent`


def counts_of_samples(losses: Mapping[str, Var]) -> dict[str, Var]:
    """Positives and all that the RPN (first) and the second stage drew, int32[N] each."""
    found = [node for node in nodes_of(losses.values()) if isinstance(node.op, Sample)]
    rpn, roi = sorted(found, key=lambda node: node.op.salt)  # type: ignore[attr-defined]
    return {
        f"{part}_{what}": node.outputs[i]
        for part, node in (("rpn", rpn), ("roi", roi))
        for i, what in ((1, "positives"), (2, "drawn"))
    }


def rates(study: Study, arm: Arm, steps: int) -> optim.Schedule:
    """The linear rule, MegDet's drops, and its warm-up: an epoch from the small batch's rate."""
    chosen = OptimizerConfig(
        rate=arm.rate * study.rate, schedule="normal", warmup_pictures=SMALL,
        warmup_steps=round(steps / study.epochs) if arm.warmup else 0,
    )  # fmt: skip
    return learning_rates(TrainConfig(batch_size=arm.batch, optimizer=chosen), steps)


class Training:
    """The training as one rank runs it."""

    def __init__(
        self, study: Study, arm: Arm, seed: int, backbone: Arrays, batches: SharedBatches
    ) -> None:
        self.study, self.arm, self.seed, self.batches = study, arm, seed, batches
        world = distributed.current()
        rank, each = world.rank, arm.batch // world.size
        self.rows = slice(rank * each, (rank + 1) * each)
        self.net = new_detector(seed, backbone)
        prepare_norms(self.net, arm.bn_size, each)
        self.optimizer = optim.SGD(optim.decay_groups(self.net.parameters(), 1e-4))
        self.step = mb.function(self._build)

    def _build(self, lr: Var, **inputs: Var) -> tuple[dict[str, Var], dict[Any, Var]]:
        with nn.train_mode(inputs["key"]) as updates:
            losses = self.net.losses(**inputs)
        weights = self.net.parameters()
        gradients = mb.gradients(functools.reduce(F.add, losses.values()), weights)
        summed = dict(zip(weights, distributed.data_parallel(gradients), strict=True))
        counts = {n: F.cast(F.sum(v), DType.float32) for n, v in counts_of_samples(losses).items()}
        told = losses | counts
        names = list(told)
        vector = F.all_reduce(F.concat([F.reshape(told[n], (1,)) for n in names], 0))
        outputs = {n: F.reshape(vector[i : i + 1], ()) for i, n in enumerate(names)}
        return outputs, {**updates, **self.optimizer.updates(summed, lr)}

    def run(self) -> dict[str, Any]:
        """Losses and counts of each step, and the weights in each phase; stops at a NaN."""
        steps_per_epoch = self.study.train // self.arm.batch
        steps = round(self.study.epochs * steps_per_epoch)
        rate = rates(self.study, self.arm, steps)
        log: list[dict[str, float]] = []
        phases: dict[str, Arrays] = {"init": self.net.state_dict()}
        for number in range(steps):
            fed = feeds(self.batches(number), self.rows, self.seed, number)
            told = self.step(lr=np.float32(rate(number)), **fed)
            log.append({name: float(value) for name, value in told.items()})
            if not all(map(math.isfinite, log[-1].values())):
                break
            if number + 1 == max(1, round(EARLY * steps)):
                phases["early"] = self.net.state_dict()
        phases["late"] = self.net.state_dict()
        return {"log": log, "steps": steps, "phases": phases}


def train(study: Study, arm: Arm, seed: int, backbone: Arrays, devices: int) -> dict[str, Any]:
    """What rank 0 has after the training (see Training.run), and its seconds.

    devices: among which the batch is shared out; the result is the same but for rounding.
    """
    batches = SharedBatches(loader_of(study.data[0], arm.batch, seed=seed, shuffle=True))
    started = time.perf_counter()
    found = distributed.run(
        lambda: Training(study, arm, seed, backbone, batches).run(), devices, threads=1
    )[0]
    return {**found, "seconds": time.perf_counter() - started}
