"""Training steps of one rank among many: what `megbrain scale` and the benchmarks look at."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from megbrain_py import distributed, nn, optim, random
from megbrain_py import functional as F
from megbrain_py.autodiff import gradients
from megbrain_py.bench import inputs
from megbrain_py.dtypes import Array, tensor_type
from megbrain_py.graph import Var, constant, placeholder
from megbrain_py.models.faster_rcnn import PRESETS, FasterRCNN
from megbrain_py.models.resnet import resnet
from megbrain_py.parameter import Parameter
from megbrain_py.ranks import current

_BOXES = 8  # true ones of each picture
_WITHOUT_MASKS = [name for name, config in PRESETS.items() if config.mask == "none"]


@dataclass(frozen=True)
class Step:
    """Outputs and updates as `compile` takes them, and a batch to feed."""

    outputs: Mapping[str, Var]
    updates: Mapping[Parameter, Var]
    feeds: Mapping[str, Array]


def resnet50(batch: int, size: int, *, overlap: bool = True) -> Step:
    """SGD with momentum on ResNet-50, batch norms over all ranks."""
    net = resnet("resnet50", rng=0)
    pictures, labels = inputs.classification(batch, size)

    def loss(x: Var, y: Var) -> Var:
        total = F.cross_entropy(net(x), y, reduction="sum")
        return distributed.mean_over_ranks(total, constant(float(batch)))

    return _training(net, {"x": pictures, "y": labels}, loss, overlap)


def detector(batch: int, size: int, preset: str = "r50_fpn", *, overlap: bool = True) -> Step:
    """SGD with momentum on Faster R-CNN, batch norms over all ranks."""
    net = FasterRCNN(PRESETS[preset], rng=0)
    fed = inputs.detection(batch, size, _BOXES)
    first = current().rank * batch
    fed["key"] = random.keys(0, 0, fed.pop("image_ids") + first)

    def loss(**batch: Var) -> Var:
        return sum(net.losses(**batch).values(), constant(0.0))

    return _training(net, fed, loss, overlap)


STEPS: Mapping[str, Callable[..., Step]] = {
    "resnet50": resnet50,
    **{preset: functools.partial(detector, preset=preset) for preset in _WITHOUT_MASKS},
}


def _training(
    net: nn.Module, feeds: Mapping[str, Array], loss: Callable[..., Var], overlap: bool
) -> Step:
    if current().size > 1:
        nn.sync_batch_norms(net)
    fed = {name: placeholder(name, tensor_type(a.shape, a.dtype)) for name, a in feeds.items()}
    with nn.train_mode(fed.get("key")) as updates:
        own = loss(**fed)
    weights = net.parameters()
    summed = distributed.data_parallel(gradients(own, weights), overlap=overlap)
    rates = optim.SGD(weights, momentum=0.9, weight_decay=1e-4).updates(summed, 0.001)
    return Step({"loss": F.all_reduce(own)}, {**updates, **rates}, feeds)
