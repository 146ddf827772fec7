"""From what was measured to figures with intervals: gradients, the linear rule, accuracy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from examples.large_batch.accuracy import finished
from examples.large_batch.gradients import variances, walks
from examples.large_batch.intervals import Interval, bootstrap, slope, student
from examples.large_batch.setting import LARGE, SMALL, Study
from examples.large_batch.training import Arm
from megbrain_py.dtypes import Array


@dataclass(frozen=True)
class GradientVariance:
    """relative: V(b) / V(1) by size of batch; slope on log-log paper."""

    relative: list[Interval]
    slope: Interval


def gradient_variance(
    study: Study, phase: str, norms: str, part: str = "all"
) -> GradientVariance:  # fmt: skip
    """Of batches' gradients; intervals by bootstrap over blocks of pictures."""
    blocks = np.array(variances(study, phase)[norms][part])

    def curve(index: Array) -> Array:
        found = blocks[index].mean(0)
        return np.append(found / found[0], slope(study.batches, found))

    *relative, tilt = bootstrap(len(blocks), curve, study.resamples)
    return GradientVariance(relative, tilt)


def noise_scale(study: Study, phase: str) -> Interval:
    """tr(S) / |G|^2 in pictures: S the covariance of pictures' gradients, G their mean.

    The batch at which noise and signal are equal. Source: McCandlish et al. 2018, "simple" scale.
    """
    found = variances(study, phase)
    trace, products = np.array(found["running"]["all"])[:, 0], np.array(found["means"])

    def scale(index: Array) -> Array:
        return np.array([trace[index].mean() / between(products, index)])

    return bootstrap(len(trace), scale, study.resamples)[0]


def between(products: Array, index: Array) -> float:
    """The squared norm of a mean without the noise's share: products of different units only.

    NaN where all units are one.
    """
    found = products[np.ix_(index, index)][index[:, None] != index[None]]
    return float(found.mean()) if found.size else np.nan


def frozen_ratio(study: Study, phase: str, norms: str) -> Interval:
    """Variance of k small steps at rate r over that of a large one at k r, weights frozen.

    running norms: small steps' variances add up, from V(b) of their own; batch norms: of the real
    sums of small batches' gradients.
    """
    found, steps = variances(study, phase), large(study) // SMALL
    if norms == "batch":
        small, big = (np.array(found["walk"][kind]) for kind in ("small", "large"))
    else:
        blocks = np.array(found["running"]["all"])
        small = blocks[:, study.batches.index(SMALL)] / steps
        big = blocks[:, study.batches.index(large(study))]

    def ratio(index: Array) -> Array:
        return np.array([small[index].sum() / big[index].sum()])

    return bootstrap(len(small), ratio, study.resamples)[0]


def large(study: Study) -> int:
    """The large batch, as far as the study's blocks hold it twice."""
    return min(LARGE, study.batches[-1])


@dataclass(frozen=True)
class Walk:
    """Small steps against the large one: the variances' ratio; of the mean displacements the
    relative distance, the ratio of lengths and the cosine."""

    ratio: Interval
    distance: Interval
    length: Interval
    cosine: Interval


def real_walk(study: Study, phase: str) -> Walk:
    """Intervals by bootstrap over the large batches; means without the noise's share."""
    products = np.array(walks(study, phase)["products"])
    n = len(products) // 2
    ss, ll, sl = products[:n, :n], products[n:, n:], products[:n, n:]
    apart = ss + ll - sl - sl.T
    first, second = np.arange(n).reshape(-1, 2).T  # the large batches of each block

    def ratio(blocks: Array) -> Array:
        a, b = first[blocks], second[blocks]
        small, big = (np.sum(p[a, a] + p[b, b] - 2 * p[a, b]) for p in (ss, ll))
        return np.array([small / big])

    def means(index: Array) -> Array:
        small, big, distance = (max(between(p, index), 0.0) for p in (ss, ll, apart))
        if not small * big > 0:  # lost in the noise
            return np.full(3, np.nan)
        distance = np.sqrt(distance / big)
        return np.array([distance, np.sqrt(small / big), between(sl, index) / np.sqrt(small * big)])

    return Walk(*bootstrap(n // 2, ratio, study.resamples), *bootstrap(n, means, study.resamples))


def accuracies(study: Study, arm: Arm, figure: str) -> dict[int, float]:
    """By seed, of the trainings that are there and converged."""
    return {int(f["seed"]): float(f[figure]) for f in finished(study, arm) if f["converged"]}


def difference(study: Study, arm: Arm, other: Arm, figure: str) -> Interval | None:
    """Mean of arm - other, seed by seed; None where no seed has both."""
    a, b = accuracies(study, arm, figure), accuracies(study, other, figure)
    common = sorted(a.keys() & b.keys())
    return student([a[seed] - b[seed] for seed in common]) if common else None
