"""Parts a and b: how gradients vary with the batch, and the weights with the linear rule."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np

import megbrain_py as mb
from examples.large_batch.accuracy import phases
from examples.large_batch.setting import LARGE, SMALL, Study, in_batches, joined, new_detector
from megbrain_py import functional as F
from megbrain_py import nn
from megbrain_py.dtypes import Array
from megbrain_py.graph import Var
from megbrain_py.models.faster_rcnn import FasterRCNN
from megbrain_py.training.policy import REFERENCE

PARTS = ("backbone.body", "backbone.fpn", "rpn", "roi_heads")  # of the detector, by names' starts
NORMS = ("running", "batch")  # statistics that gradients are taken with


def run(study: Study) -> None:
    """Both parts, in every phase of a training."""
    for phase in phases(study):
        variances(study, phase)
        walks(study, phase)
        print(f"gradients, {phase}: measured", flush=True)


def gradient_function(net: FasterRCNN, norms: str) -> Any:
    """A compiled function from a batch to the gradient of each weight.

    With running statistics a picture's gradient does not depend on the others'; with those of the
    batch, as in training, it does.
    """

    def build(**inputs: Var) -> dict[str, Var]:
        with nn.train_mode(inputs["key"]) if norms == "batch" else nullcontext():
            losses = net.losses(**inputs)
        weights = net.named_parameters()
        found = mb.gradients(functools.reduce(F.add, losses.values()), list(weights.values()))
        return dict(zip(weights, found, strict=True))

    return mb.function(build)


def parts_of(net: FasterRCNN) -> dict[str, slice]:
    """Where each part's weights lie in a gradient that is joined; they are neighbours."""
    found, start = {}, 0
    for part in PARTS:
        size = sum(p.value.size for n, p in net.named_parameters().items() if n.startswith(part))
        found[part] = slice(start, start + size)
        start += size
    return {"all": slice(0, start), **found}


def by_block(study: Study, gradient: Any, size: int) -> Iterator[Array]:
    """Gradients of batches of a size, block after block: [batches of a block, weights]."""
    rows: list[Array] = []
    for batch in in_batches(study, size):
        rows.append(joined(gradient(**batch)))
        if len(rows) * size == study.block:
            yield np.stack(rows)
            rows = []


def variance(gradients: Array) -> float:
    """Trace of the covariance of rows [n, weights]: unbiased, from these rows alone."""
    centred = gradients - gradients.mean(0, dtype=np.float64).astype(np.float32)
    return float(np.square(centred, dtype=np.float64).sum() / (len(gradients) - 1))


def means_of(rows: Array, size: int) -> Array:
    """Means of `size` neighbouring rows each."""
    return rows.reshape(len(rows) // size, size, -1).mean(1, dtype=np.float64).astype(np.float32)


def variances(study: Study, phase: str) -> dict[str, Any]:
    """Variances by kind of norms, part of the detector, block and size of batch.

    "running": of means of single pictures' gradients; "batch": of gradients of whole batches as
    training takes them. "means": inner products of the blocks' mean gradients, running norms.
    "walk": with frozen weights, variances of the mean of LARGE/SMALL small batches' gradients and
    of the large batch's, batch norms.
    """
    found: dict[str, Any] = study.once(
        f"gradients/{phase}", lambda: _variances(study, phases(study)[phase])
    )
    return found


def _variances(study: Study, weights: Mapping[str, Array]) -> dict[str, Any]:
    net = new_detector(0, weights)
    parts = parts_of(net)
    blocks = study.pictures // study.block
    found: dict[str, Any] = {
        norms: {part: [[0.0] * len(study.batches) for _ in range(blocks)] for part in parts}
        for norms in NORMS
    }

    def note(norms: str, block: int, size: int, rows: Array) -> None:
        for part, where in parts.items():
            at = study.batches.index(size)
            found[norms][part][block][at] = variance(rows[:, where])

    means = []
    for block, rows in enumerate(by_block(study, gradient_function(net, "running"), 1)):
        means.append(rows.mean(0, dtype=np.float64))
        for size in study.batches:
            note("running", block, size, means_of(rows, size))
    large = min(LARGE, study.batches[-1])
    walk: dict[str, list[float]] = {"small": [], "large": []}
    gradient = gradient_function(net, "batch")
    for size in study.batches:
        for block, rows in enumerate(by_block(study, gradient, size)):
            note("batch", block, size, rows)
            if size == SMALL:
                walk["small"].append(variance(means_of(rows, large // SMALL)))
            if size == large:
                walk["large"].append(variance(rows))
    stacked = np.stack(means)
    return {**found, "means": (stacked @ stacked.T).tolist(), "walk": walk}


def walks(study: Study, phase: str) -> dict[str, Any]:
    """Where weights go in LARGE/SMALL small steps, and in one large step on the same pictures.

    Plain gradient descent by the study's rate. Inner products of all displacements, small steps'
    first, in the order of the pictures: [2 n, 2 n].
    """
    found: dict[str, Any] = study.once(
        f"walks/{phase}", lambda: _walks(study, phases(study)[phase])
    )
    return found


def _walks(study: Study, weights: Mapping[str, Array]) -> dict[str, Any]:
    net = new_detector(0, weights)
    trained = net.named_parameters()
    start = {name: p.value.copy() for name, p in trained.items()}
    gradient = gradient_function(net, "batch")
    large = min(LARGE, study.batches[-1])
    rate = study.rate * SMALL / REFERENCE
    small_way, large_way = [], []
    small_batches = in_batches(study, SMALL)
    for batch in in_batches(study, large):
        large_way.append(-rate * large / SMALL * joined(gradient(**batch)))
        for _ in range(large // SMALL):
            for name, g in gradient(**next(small_batches)).items():
                trained[name].set(trained[name].value - np.float32(rate) * g)
        small_way.append(joined({name: p.value - start[name] for name, p in trained.items()}))
        for name, p in trained.items():
            p.set(start[name])
    ways = np.stack(small_way + large_way).astype(np.float64)
    return {"rate": rate, "products": (ways @ ways.T).tolist()}
