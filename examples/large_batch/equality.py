"""Part d: a training step on k devices against one device with the whole batch."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import numpy as np

import megbrain_py as mb
from examples.large_batch.accuracy import phases
from examples.large_batch.setting import LARGE, SMALL, Study, in_batches, new_detector
from megbrain_py import distributed, nn
from megbrain_py import functional as F
from megbrain_py.dtypes import Array
from megbrain_py.op_testing import relative_error

Arrays = dict[str, Array]


def run(study: Study) -> None:
    """Measure and print."""
    for name, found in differences(study).items():
        print(f"equality, {name}: {', '.join(f'{k} {v:.1e}' for k, v in found.items())}")


def step(
    weights: Mapping[str, Array], batch: Arrays, shards: Sequence[int], *, sync: bool = True
) -> Arrays:
    """Losses, gradients and running statistics of a step, rank 0's; `shards`: rows of each rank."""

    def program() -> Arrays:
        rank = distributed.current().rank
        first = sum(shards[:rank])
        own = {n: array[first : first + shards[rank]] for n, array in batch.items()}
        net = new_detector(0, weights)
        if sync:
            nn.sync_batch_norms(net)
        inputs = {n: mb.placeholder(n, array.shape, array.dtype) for n, array in own.items()}
        with nn.train_mode(inputs["key"]) as statistics:
            losses = net.losses(**inputs)
        trained = net.named_parameters()
        total = functools.reduce(F.add, losses.values())
        summed = distributed.data_parallel(mb.gradients(total, list(trained.values())))
        outputs = {f"loss {n}": F.all_reduce(loss) for n, loss in losses.items()}
        outputs |= {f"gradient {n}": g for n, g in zip(trained, summed, strict=True)}
        outputs |= {f"statistic {p.name}": new for p, new in statistics.items()}
        return mb.compile(outputs)(**own)

    return distributed.run(program, len(shards), threads=1)[0]


def compared(found: Arrays, expected: Arrays) -> dict[str, float]:
    """The largest relative difference, max|a - b| / max|b|, of each kind of value."""
    return {
        kind: max(relative_error(found[n], a) for n, a in expected.items() if n.startswith(kind))
        for kind in ("loss", "gradient", "statistic")
    }


def ways(large: int) -> dict[str, list[int]]:
    """How a batch is shared out."""
    uneven = [large // 2 - 1, 1, large // 4, large // 4]
    return {
        f"2 x {large // 2}": [large // 2] * 2,
        f"4 x {large // 4}": [large // 4] * 4,
        f"{large // SMALL} x {SMALL}": [SMALL] * (large // SMALL),
        " + ".join(map(str, uneven)): uneven,
    }


def differences(study: Study) -> dict[str, dict[str, float]]:
    """Against one device: other orders of the pictures, more devices, and norms that stay local."""
    found: dict[str, dict[str, float]] = study.once("equality", lambda: _differences(study))
    return found


def _differences(study: Study) -> dict[str, dict[str, float]]:
    weights = phases(study)["late"]
    large = min(LARGE, study.batches[-1])
    batch = next(in_batches(study, large))
    whole = step(weights, batch, [large])
    order = np.random.default_rng(0).permutation(large)
    permuted = step(weights, {n: array[order] for n, array in batch.items()}, [large])
    found = {"another order of the pictures": compared(permuted, whole)}
    for name, shards in ways(large).items():
        found[name] = compared(step(weights, batch, shards), whole)
    local = step(weights, batch, [SMALL] * (large // SMALL), sync=False)
    found[f"{large // SMALL} x {SMALL}, local norms"] = compared(local, whole)
    return found
