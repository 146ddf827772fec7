"""A verdict on speed: interleaved pairs in one run, the median of their ratios, its interval."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Verdict:
    """Seconds of each side (medians) and the ratio ours / theirs with its 95 % interval."""

    ours: float
    theirs: float
    ratio: float
    low: float
    high: float

    def __str__(self) -> str:
        return (
            f"ours {self.ours:.4g} s, theirs {self.theirs:.4g} s, "
            f"ratio {self.ratio:.3f} [{self.low:.3f}, {self.high:.3f}]"
        )


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(
    ours: Callable[[], object], theirs: Callable[[], object], pairs: int = 15, warmup: int = 2
) -> Verdict:
    """Time both sides in turn, each pair in random order; the bootstrap is over pairs."""
    for _ in range(warmup):
        ours()
        theirs()
    rng = np.random.default_rng(0)
    times = np.empty((pairs, 2))
    for pair in times:
        for side in rng.permutation(2):
            pair[side] = seconds((ours, theirs)[side])
    ratios = times[:, 0] / times[:, 1]
    resampled = np.median(rng.choice(ratios, (2000, pairs)), axis=1)
    low, high = np.quantile(resampled, [0.025, 0.975])
    mine, other = np.median(times, axis=0)
    return Verdict(float(mine), float(other), float(np.median(ratios)), float(low), float(high))
