"""A verdict on speed: interleaved pairs in one run, the median of their ratios, its interval."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

Timed: TypeAlias = Callable[[], float]  # works once and says how many seconds that took


@dataclass(frozen=True)
class Verdict:
    """Seconds of each side (medians) and the ratio ours / theirs with its 95 % interval."""

    ours: float
    theirs: float
    ratio: float
    low: float
    high: float
    pairs: int

    def __str__(self) -> str:
        return (
            f"ours {self.ours:.4g} s, theirs {self.theirs:.4g} s, "
            f"ratio {self.ratio:.3f} [{self.low:.3f}, {self.high:.3f}] of {self.pairs} pairs"
        )


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(ours: Timed, theirs: Timed, pairs: int = 15, *, pause: float = 0.0) -> Verdict:
    """Let both sides work in turn, each pair in random order, after one round to warm up.

    pause: seconds before each turn, in which the other side's threads stop spinning.
    """
    rng = np.random.default_rng(0)
    times = np.empty((pairs + 1, 2))
    for pair in times:
        for side in rng.permutation(2):
            time.sleep(pause)
            pair[side] = (ours, theirs)[side]()
    return verdict(times[1:, 0], times[1:, 1])


def verdict(ours: np.ndarray, theirs: np.ndarray) -> Verdict:
    """From the times of each pair; the bootstrap is over pairs."""
    ratios = ours / theirs
    pairs = len(ratios)
    resampled = np.median(np.random.default_rng(0).choice(ratios, (2000, pairs)), axis=1)
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Verdict(
        float(np.median(ours)), float(np.median(theirs)), float(np.median(ratios)),
        float(low), float(high), pairs,
    )  # fmt: skip
