"""Means, ratios and slopes with their 95 % intervals: Student's t, and bootstrap over pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from megbrain_py.dtypes import Array

# Student's t, 97.5 %, by degrees of freedom; beyond the last one as for it.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


@dataclass(frozen=True)
class Interval:
    """A figure between its 2.5 % and 97.5 % bounds."""

    value: float
    low: float
    high: float

    def holds(self, value: float) -> bool:
        """Whether this value lies within."""
        return self.low <= value <= self.high

    def __str__(self) -> str:
        return self.text(3)

    def text(self, digits: int | None = None) -> str:
        """`value [low, high]`; digits: after the point, by default what two figures need."""
        if digits is None:
            digits = max(0, 1 - math.floor(math.log10(abs(self.value)))) if self.value else 0
        value, low, high = (f"{x:.{digits}f}" for x in (self.value, self.low, self.high))
        return f"{value} [{low}, {high}]"


def student(values: Sequence[float]) -> Interval:
    """The mean of independent values, such as those of seeds. One value has no interval."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return Interval(mean, -math.inf, math.inf)
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    half = _T[min(len(values) - 2, len(_T) - 1)] * error
    return Interval(mean, mean - half, mean + half)


def bootstrap(
    units: int, statistic: Callable[[Array], Array], resamples: int, seed: int = 0
) -> list[Interval]:
    """Percentile intervals of a statistic of units (pictures, blocks of pictures).

    statistic: takes int64[units], which units, and gives some numbers; it must not mind that a unit
    comes twice.
    """
    rng = np.random.default_rng(seed)
    found = np.array([statistic(rng.integers(0, units, units)) for _ in range(resamples)])
    low, high = np.nanpercentile(found, [2.5, 97.5], axis=0)
    own = np.asarray(statistic(np.arange(units)))
    return [Interval(float(v), float(a), float(b)) for v, a, b in zip(own, low, high, strict=True)]


def slope(x: Sequence[float], y: Array) -> float:
    """Of the straight line that fits best on log-log paper, every point alike."""
    return float(np.polyfit(np.log(np.asarray(x, np.float64)), np.log(y), 1)[0])
