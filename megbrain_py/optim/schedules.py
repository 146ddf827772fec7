"""Learning-rate schedules: plain functions from the step's number (from 0) to a rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Literal, TypeAlias

Schedule: TypeAlias = Callable[[int], float]


def constant(rate: float) -> Schedule:
    """The same rate at every step."""
    return lambda step: rate


def multi_step(
    rate: float, milestones: Sequence[int], factor: float | Sequence[float] = 0.1
) -> Schedule:
    """`rate`, multiplied by `factor` (or by one of several) at each milestone, a step's number.

    Rates are computed in decimal: 0.02 after two tenths is 0.0002, not 0.00020000000000000004.
    """
    if list(milestones) != sorted(set(milestones)):
        raise ValueError(f"multi_step: milestones must increase, are {list(milestones)}")
    factors = [factor] * len(milestones) if isinstance(factor, (int, float)) else list(factor)
    if len(factors) != len(milestones):
        raise ValueError(f"multi_step: {len(milestones)} milestones, {len(factors)} factors")

    def schedule(step: int) -> float:
        found = Decimal(str(rate))
        for milestone, each in zip(milestones, factors, strict=True):
            if step >= milestone:
                found *= Decimal(str(each))
        return float(found)

    return schedule


def cosine(rate: float, steps: int, final: float = 0.0) -> Schedule:
    """From `rate` to `final` along half a cosine in `steps` steps, then `final`.

    Source: Loshchilov and Hutter, SGDR (2017), without restarts.
    """

    def schedule(step: int) -> float:
        share = min(max(step / max(steps, 1), 0.0), 1.0)
        return final + (rate - final) * 0.5 * (1.0 + math.cos(math.pi * share))

    return schedule


def warmup(
    schedule: Schedule,
    steps: int,
    start: float = 0.001,
    kind: Literal["linear", "exponential"] = "linear",
) -> Schedule:
    """`schedule` times a factor that grows from `start` to 1 in the first `steps` steps."""
    if not 0.0 < start <= 1.0:
        raise ValueError(f"warmup: start must be in (0, 1], is {start}")
    if kind not in ("linear", "exponential"):
        raise ValueError(f"warmup: kind must be linear or exponential, is {kind!r}")

    def warmed(step: int) -> float:
        rate = schedule(step)
        if step >= steps:
            return rate
        share = step / steps
        grown = start + (1.0 - start) * share if kind == "linear" else start ** (1.0 - share)
        return rate * grown

    return warmed
