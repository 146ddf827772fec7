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


def squared_errors(means: Array, squares: Array, block: int, sizes: Sequence[int]) -> Array:
    """[2, blocks, sizes]: mean squares of the errors of batches' means and variances.

    Of the mean in units of the variance, of the variance relative to it, over the channels; against
    the moments of all these pictures. A factor undoes what drawing without replacement takes off.
    """
    centre = means.mean(0)
    spread = squares.mean(0) - centre**2
    used = spread > _LEAST
    blocks = len(means) // block
    found = np.empty((2, blocks, len(sizes)))
    for i, size in enumerate(sizes):
        m = means.reshape(blocks, block // size, size, -1).mean(2)[..., used]
        v = squares.reshape(blocks, block // size, size, -1).mean(2)[..., used] - m**2
        found[0, :, i] = ((m - centre[used]) ** 2 / spread[used]).mean((1, 2))
        found[1, :, i] = ((v / spread[used] - 1) ** 2).mean((1, 2))
        found[:, :, i] /= 1 - size / len(means)
    return found


def _errors(study: Study, net: FasterRCNN) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, (pixels, means, squares) in moments_of_pictures(study, net).items():
        both = squared_errors(means, squares, study.block, study.batches)
        found[name] = {"pixels": pixels, "slopes": {}}
        for kind, blocks in zip(("mean", "var"), both, strict=True):

            def curve(index: Array, blocks: Array = blocks) -> Array:
                errors = np.sqrt(blocks[index].mean(0))
                return np.append(errors, slope(study.batches, errors))

            *errors, tilt = bootstrap(len(blocks), curve, study.resamples)
            found[name][kind] = [asdict(one) for one in errors]
            found[name]["slopes"][kind] = asdict(tilt)
    return found
