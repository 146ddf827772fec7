"""The backbone's first weights: a classifier of scenes with one digit, trained for a minute."""

from __future__ import annotations

from typing import Any

import numpy as np

import megbrain_py as mb
from examples.large_batch.setting import DETECTOR, Study, loader_of
from megbrain_py import functional as F
from megbrain_py import nn, optim
from megbrain_py.dtypes import Array
from megbrain_py.graph import Var
from megbrain_py.models.resnet import resnet
from megbrain_py.nn.serialize import load, save

_BATCH, _RATE = 32, 0.05
_WITHIN = "backbone.body."  # where the detector has the classifier's layers


def backbone_weights(study: Study) -> dict[str, Array]:
    """Weights and running statistics by the detector's names, trained once for all arms and seeds.

    As detectors start from a classifier of ImageNet; frozen batch norms need its statistics.
    """
    path = study.out / "backbone.safetensors"
    if not path.exists():
        state, accuracy = _trained(study)
        print(f"pretraining: held-back accuracy {accuracy:.3f}", flush=True)
        save(path, {_WITHIN + n: a for n, a in state.items() if not n.startswith("fc.")})
        study.once("pretraining", lambda: {"accuracy": accuracy})
    return load(path)


def _trained(study: Study) -> tuple[dict[str, Array], float]:
    """The classifier's state and its accuracy on held-back digits and photographs."""
    train, val = study.single_digits
    net = resnet(DETECTOR.backbone, rng=0, classes=DETECTOR.num_classes)
    optimizer = optim.SGD(optim.decay_groups(net.parameters(), 5e-4))

    def build(images: Var, labels: Var, lr: Var) -> tuple[dict[str, Var], Any]:
        with nn.train_mode() as updates:
            loss = F.cross_entropy(net(images), labels)
        return {"loss": loss}, updates | optimizer.updates(loss, lr)

    step = mb.function(build)
    loader = loader_of(train, min(_BATCH, study.pretrain), shuffle=True)
    steps = max(1, round(study.pretrain_epochs * loader.steps_per_epoch))
    rate = optim.cosine(_RATE, steps)
    for number in range(steps):
        batch = loader.batch(number)
        step(images=batch["images"], labels=_digit(batch), lr=rate(number))
    classify = mb.function(lambda images: {"logits": net(images)})
    right = []
    for number in range(loader_of(val, 1).steps_per_epoch):
        batch = loader_of(val, 1).batch(number)
        right.append(classify(images=batch["images"])["logits"].argmax(1) == _digit(batch))
    return net.state_dict(), float(np.mean(right))


def _digit(batch: Any) -> Array:
    """The class of the only digit, from 0."""
    return np.asarray(batch["labels"][:, 0] - 1, np.int64)
