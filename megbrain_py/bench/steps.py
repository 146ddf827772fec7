"""Training steps before they are compiled: what benchmarks compile in one way or another.

A step builds its model, calls `built`, and describes the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import megbrain_py as mb
from megbrain_py import functional as F
from megbrain_py import nn, optim
from megbrain_py.bench import inputs
from megbrain_py.models.resnet import PreactivationResNet, resnet
from megbrain_py.training.detector import make_model
from megbrain_py.training.step import feeds_of

Built: TypeAlias = Callable[[], object]

MOMENTUM, DECAY, RATE = 0.9, 1e-4, 0.001


@dataclass(frozen=True)
class TrainingStep:
    """What to compile and to feed."""

    outputs: Mapping[str, mb.Var]
    updates: Mapping[mb.Parameter, mb.Var]
    feeds: Mapping[str, Any]

    def compile(self, **options: Any) -> mb.Function:
        """By `mb.compile`, with its options."""
        return mb.compile(self.outputs, updates=self.updates, **options)


def _with_sgd(
    model: nn.Module, loss: mb.Var, statistics: Mapping[mb.Parameter, mb.Var], feeds: Any
) -> TrainingStep:
    sgd = optim.SGD(model.parameters(), momentum=MOMENTUM, weight_decay=DECAY)
    updates = {**statistics, **sgd.updates(loss, mb.placeholder("rate", ()))}
    return TrainingStep({"loss": loss}, updates, {**feeds, "rate": RATE})


def _classifier(built: Built, model: nn.Module, pictures: Any, labels: Any) -> TrainingStep:
    built()
    x = mb.placeholder("x", pictures.shape)
    y = mb.placeholder("y", labels.shape, "int64")
    with nn.train_mode() as statistics:
        loss = F.cross_entropy(model(x), y)
    return _with_sgd(model, loss, statistics, {"x": pictures, "y": labels})


def resnet50(built: Built, batch: int, size: int) -> TrainingStep:
    """ResNet-50 for ImageNet."""
    return _classifier(built, resnet("resnet50", rng=0), *inputs.classification(batch, size))


def resnet1001(built: Built, batch: int, size: int, depth: int = 1001) -> TrainingStep:
    """The pre-activation network for CIFAR-10."""
    classes = 10
    model = PreactivationResNet(depth, classes=classes, rng=0)
    return _classifier(built, model, *inputs.classification(batch, size, classes))


def detector(
    built: Built, batch: int, size: int, boxes: int, preset: str = "r50_fpn"
) -> TrainingStep:
    """Faster R-CNN."""
    fed = feeds_of(inputs.detection(batch, size, boxes), 0, 0)
    model = make_model(preset, {}, inputs.CLASSES, seed=0)
    built()
    given = {name: mb.placeholder(name, a.shape, a.dtype.name) for name, a in fed.items()}
    with nn.train_mode(given["key"]) as statistics:
        first, *others = model.losses(**given).values()
    return _with_sgd(model, sum(others, first), statistics, fed)


STEPS: Mapping[str, Callable[..., TrainingStep]] = {
    "resnet50": resnet50,
    "resnet1001": resnet1001,
    "detector": detector,
}
