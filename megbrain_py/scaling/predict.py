"""Step time, efficiency and hours of an epoch for numbers of devices, from compiled plans."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

from megbrain_py import costs, ranks
from megbrain_py.bench.steps import TrainingStep
from megbrain_py.compiler import planned
from megbrain_py.ops.collective.collective import Collective
from megbrain_py.plan import Plan
from megbrain_py.scaling.network import Cluster
from megbrain_py.scaling.timeline import StepTime, step_time

COCO_IMAGES = 118_287  # of train2017

Build: TypeAlias = Callable[[], TrainingStep]


@dataclass(frozen=True)
class Prediction:
    """Of a model, never measured. batch: images of all devices; efficiency: images a second and
    device against one device alone; epoch_hours: of COCO's training images."""

    devices: int
    batch: int
    step: StepTime
    efficiency: float
    epoch_hours: float

    @property
    def images_per_second(self) -> float:
        """Of all devices."""
        return self.batch / self.step.seconds

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "images_per_second": self.images_per_second}


def predict(
    build: Build, batch: int, devices: Sequence[int], cluster: Cluster, speed: float = 1.0
) -> list[Prediction]:
    """What `build`'s step of `batch` images a device takes on so many devices.

    The step is built and compiled as each of these worlds' rank 0 would, and not run. Instructions
    cost what they cost on this machine's processor (costs.py), divided by `speed`; collectives
    what the cluster says.
    """
    alone = _on(build, 1, cluster, speed)
    found = []
    for count in devices:
        step = alone if count == 1 else _on(build, count, cluster, speed)
        whole = count * batch
        hours = COCO_IMAGES / whole * step.seconds / 3600
        found.append(Prediction(count, whole, step, alone.seconds / step.seconds, hours))
    return found


def _on(build: Build, devices: int, cluster: Cluster, speed: float) -> StepTime:
    plan = plan_of(build, devices)
    slower = cluster.slowed(devices) / speed
    return step_time(plan, [slower * s for s in compute_seconds(plan)], cluster)


def plan_of(build: Build, devices: int) -> Plan:
    """As rank 0 of so many would compile it."""
    with ranks.entered(ranks.World(0, devices)):
        step = build()
        return planned(step.outputs, updates=step.updates)


def compute_seconds(plan: Plan) -> list[float]:
    """Of each instruction on this machine; 0 for collectives and waits."""
    types = [slot.type for slot in plan.slots]
    return [
        0.0
        if step.waits_for is not None or isinstance(step.op, Collective)
        else costs.estimate(step, [types[s] for s in step.inputs], [types[s] for s in step.outputs])
        for step in plan.instructions
    ]
