"""Training steps before they are compiled: what benchmarks and `megbrain scale` look at.

A step builds its model, calls `built`, and describes the rest. Where there are ranks it is one
rank's, of so many images each, with batch norms over all ranks; overlap: as in `data_parallel`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import megbrain_py as mb
from megbrain_py import distributed, nn, optim
from megbrain_py import functional as F
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
    model: nn.Module,
    own: mb.Var,
    statistics: Mapping[mb.Parameter, mb.Var],
    feeds: Mapping[str, Any],
    overlap: bool,
) -> TrainingStep:
    """own: the rank's share of the loss."""
    weights = model.parameters()
    summed = distributed.data_parallel(mb.gradients(own, weights), overlap=overlap)
    sgd = optim.SGD(weights, momentum=MOMENTUM, weight_decay=DECAY)
    updates = {**statistics, **sgd.updates(summed, mb.placeholder("rate", ()))}
    return TrainingStep({"loss": F.all_reduce(own)}, updates, {**feeds, "rate": RATE})


def _classifier(
    built: Built, model: nn.Module, pictures: Any, labels: Any, overlap: bool
) -> TrainingStep:
    built()
    nn.sync_batch_norms(model)
    x = mb.placeholder("x", pictures.shape)
    y = mb.placeholder("y", labels.shape, "int64")
    with nn.train_mode() as statistics:
        total = F.cross_entropy(model(x), y, reduction="sum")
        own = distributed.mean_over_ranks(total, mb.constant(float(len(labels))))
    return _with_sgd(model, own, statistics, {"x": pictures, "y": labels}, overlap)


def resnet50(built: Built, batch: int, size: int, *, overlap: bool = True) -> TrainingStep:
    """ResNet-50 for ImageNet."""
    model = resnet("resnet50", rng=0)
    return _classifier(built, model, *inputs.classification(batch, size), overlap)


def resnet1001(
    built: Built, batch: int, size: int, depth: int = 1001, *, overlap: bool = True
) -> TrainingStep:
    """The pre-activation network for CIFAR-10."""
    classes = 10
    model = PreactivationResNet(depth, classes=classes, rng=0)
    return _classifier(built, model, *inputs.classification(batch, size, classes), overlap)


def detector(
    built: Built, batch: int, size: int, boxes: int, preset: str = "r50_fpn", *,
    overlap: bool = True,
) -> TrainingStep:  # fmt: skip
    """Faster R-CNN."""
    pictures = inputs.detection(batch, size, boxes)
    pictures["image_ids"] += distributed.current().rank * batch
    fed = feeds_of(pictures, 0, 0)
    model = make_model(preset, {}, inputs.CLASSES, seed=0)
    built()
    nn.sync_batch_norms(model)
    given = {name: mb.placeholder(name, a.shape, a.dtype.name) for name, a in fed.items()}
    with nn.train_mode(given["key"]) as statistics:
        first, *others = model.losses(**given).values()
    return _with_sgd(model, sum(others, first), statistics, fed, overlap)


STEPS: Mapping[str, Callable[..., TrainingStep]] = {
    "resnet50": resnet50,
    "resnet1001": resnet1001,
    "detector": detector,
}
