"""Part e: what share of the sampled anchors and boxes holds an object, by size of batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

import megbrain_py as mb
from examples.large_batch.accuracy import phases
from examples.large_batch.intervals import Interval, bootstrap, slope
from examples.large_batch.setting import Study, in_batches, new_detector
from examples.large_batch.training import counts_of_samples
from megbrain_py.dtypes import Array
from megbrain_py.graph import Var

PARTS = ("rpn", "roi")  # anchors of the proposal network, boxes of the second stage


def run(study: Study) -> None:
    """In every phase of a training."""
    for phase in phases(study):
        counts(study, phase)
        print(f"balance, {phase}: measured", flush=True)


def counts(study: Study, phase: str) -> dict[str, list[int]]:
    """Of each picture: positives and all that were drawn, anchors (rpn) and boxes (roi)."""
    found: dict[str, list[int]] = study.once(f"balance/{phase}", lambda: _counts(study, phase))
    return found


def _counts(study: Study, phase: str) -> dict[str, list[int]]:
    net = new_detector(0, phases(study)[phase])

    def build(**inputs: Var) -> dict[str, Var]:
        return counts_of_samples(net.losses(**inputs))

    function = mb.function(build)
    batches = [function(**batch) for batch in in_batches(study, study.block)]
    return {n: np.concatenate([b[n] for b in batches]).tolist() for n in batches[0]}


def ratios(positives: Array, drawn: Array, size: int) -> Array:
    """The positive ratio of each batch of `size` neighbours."""
    batches = len(positives) // size

    def total(one: Array) -> Array:
        return np.asarray(one[: batches * size].reshape(batches, size).sum(1))

    return np.asarray(total(positives) / np.maximum(total(drawn), 1))


@dataclass(frozen=True)
class Balance:
    """By size of batch: the mean positive ratio, its standard deviation over the mean, its 5 %
    quantile; and the slope of the second on log-log paper, in the order of the files and in others:
    the mean of random ones and the bounds of 95 % of them."""

    mean: list[Interval]
    spread: list[Interval]
    low: list[Interval]
    slope: Interval
    shuffled: Interval


def statistics(study: Study, phase: str, part: str) -> Balance:
    """Intervals by bootstrap over blocks of pictures."""
    found = counts(study, phase)
    positives, drawn = (np.array(found[f"{part}_{what}"]) for what in ("positives", "drawn"))

    every = [
        ratios(positives, drawn, size).reshape(-1, study.block // size) for size in study.batches
    ]

    def of(index: Array) -> Array:
        return _figures([found[index].reshape(-1) for found in every], study.batches)

    def tilt_in(order: Array) -> float:
        each = [ratios(positives[order], drawn[order], size) for size in study.batches]
        return float(_figures(each, study.batches)[-1])

    n = len(study.batches)
    *figures, tilt = bootstrap(len(every[0]), of, study.resamples)
    rng = np.random.default_rng(0)
    tilts = [tilt_in(rng.permutation(len(drawn))) for _ in range(study.resamples // 4)]
    shuffled = Interval(float(np.mean(tilts)), *np.quantile(tilts, [0.025, 0.975]).tolist())
    return Balance(figures[:n], figures[n : 2 * n], figures[2 * n :], tilt, shuffled)


def _figures(each: Sequence[Array], sizes: Sequence[int]) -> Array:
    """Of batches' ratios by size: means, spreads, quantiles, and the slope of the spreads."""
    spread = [r.std(ddof=1) / r.mean() for r in each]
    low = [np.quantile(r, 0.05) for r in each]
    return np.array([r.mean() for r in each] + spread + low + [slope(sizes, spread)])
