"""Part c: how far a batch's moments are from those of all pictures, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

import megbrain_py as mb
from examples.large_batch.accuracy import phases
from examples.large_batch.intervals import bootstrap, slope
from examples.large_batch.setting import Study, in_batches, new_detector
from megbrain_py import functional as F
from megbrain_py.dtypes import Array
from megbrain_py.graph import Var, nodes_of
from megbrain_py.models.faster_rcnn import FasterRCNN
from megbrain_py.ops.batch_norm.batch_norm import Normalise
from megbrain_py.parameter import Parameter

_LEAST = 1e-12  # variance of a channel that is compared


def run(study: Study) -> None:
    """In every phase of a training."""
    for phase in phases(study):
        errors(study, phase)
        print(f"moments, {phase}: measured", flush=True)


def errors(study: Study, phase: str) -> dict[str, Any]:
    """By norm: pixels of its map; relative errors "mean", "var" by size of batch; their slopes.

    The norms before it use running statistics, so that pictures do not depend on each other.
    """
    found: dict[str, Any] = study.once(
        f"moments/{phase}", lambda: _errors(study, new_detector(0, phases(study)[phase]))
    )
    return found


def norm_inputs(net: FasterRCNN, images: Var) -> dict[str, Var]:
    """What each batch norm of the backbone takes, by the norm's name: read off the graph."""
    nodes = nodes_of(net.backbone(images))
    found = {}
    for node in nodes:
        if isinstance(node.op, Normalise):
            x, _, _, gamma, _ = node.inputs
            assert isinstance(gamma, Parameter)
            found[gamma.name.removesuffix(".weight")] = x
    return found


def moments_of_pictures(study: Study, net: FasterRCNN) -> dict[str, tuple[int, Array, Array]]:
    """By norm: pixels, and of each picture and channel the mean and the mean square."""

    def build(images: Var) -> dict[str, Var]:
        outputs = {}
        for name, x in norm_inputs(net, images).items():
            outputs[f"{name} mean"] = F.mean(x, (2, 3))
            outputs[f"{name} square"] = F.mean(F.square(x), (2, 3))
        return outputs

    function = mb.function(build)
    batches = [function(images=b["images"]) for b in in_batches(study, study.block)]
    every = {n: np.concatenate([b[n] for b in batches]).astype(np.float64) for n in batches[0]}
    probe = mb.placeholder("images", next(in_batches(study, 1))["images"].shape)
    return {
        name: (x.shape[2] * x.shape[3], every[f"{name} mean"], every[f"{name} square"])
        for name, x in norm_inputs(net, probe).items()
    }


def relative_errors(means: Array, squares: Array, sizes: Sequence[int]) -> Array:
    """[2, sizes]: root mean square errors of batches' means and variances, over the channels.

    Of the mean in units of the standard deviation, of the variance relative to it; against the
    moments of these pictures. Batches are neighbours, drawn without replacement: the factor
    undoes what that takes off the error of a mean.
    """
    centre = means.mean(0)
    spread = squares.mean(0) - centre**2
    used = spread > _LEAST
    found = np.empty((2, len(sizes)))
    for i, size in enumerate(sizes):
        batches = len(means) // size
        m = means[: batches * size].reshape(batches, size, -1).mean(1)
        v = squares[: batches * size].reshape(batches, size, -1).mean(1) - m**2
        all_drawn = np.sqrt(1 / (1 - size / len(means)))
        found[0, i] = np.sqrt(np.mean(((m - centre) ** 2 / np.maximum(spread, _LEAST))[:, used]))
        found[1, i] = np.sqrt(np.mean((v / np.maximum(spread, _LEAST) - 1)[:, used] ** 2))
        found[:, i] *= all_drawn
    return found


def _errors(study: Study, net: FasterRCNN) -> dict[str, Any]:
    found = {}
    for name, (pixels, means, squares) in moments_of_pictures(study, net).items():

        def curves(index: Array, m: Array = means, s: Array = squares) -> Array:
            both = relative_errors(m[index], s[index], study.batches)
            slopes = [slope(study.batches, one) for one in both]
            return np.concatenate([both.reshape(-1), slopes])

        figures = bootstrap(len(means), curves, max(study.resamples // 8, 50))
        n = len(study.batches)
        found[name] = {
            "pixels": pixels,
            "mean": [asdict(one) for one in figures[:n]],
            "var": [asdict(one) for one in figures[n : 2 * n]],
            "slopes": {"mean": asdict(figures[-2]), "var": asdict(figures[-1])},
        }
    return found
