"""Initialisers: float32 arrays from a shape and an explicit random generator (or its seed).

fan_in is the product of all sizes but the first, fan_out of all but the second (weights are
[out, in, ...]). Sources: Glorot and Bengio 2010 (xavier), He et al. 2015 (kaiming).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, TypeAlias

import numpy as np

from megbrain_py.dtypes import Array

RandomLike: TypeAlias = "np.random.Generator | int | None"
Fan: TypeAlias = Literal["fan_in", "fan_out"]

_default = np.random.default_rng(0)
# Of a rank that is a thread: ranks that draw alike must not draw from one generator.
_of_rank: ContextVar[np.random.Generator | None] = ContextVar("megbrain_py_init", default=None)


def seed(value: int) -> None:
    """Restart the generator that layers draw from when they are given none; it starts with 0."""
    global _default  # noqa: PLW0603
    if _of_rank.get() is not None:
        _of_rank.set(np.random.default_rng(value))
    else:
        _default = np.random.default_rng(value)


@contextmanager
def drawing_from(rng: np.random.Generator) -> Iterator[None]:
    """Inside, layers of this thread that are given no generator draw from this one."""
    token = _of_rank.set(rng)
    try:
        yield
    finally:
        _of_rank.reset(token)


def generator(rng: RandomLike = None) -> np.random.Generator:
    """A Generator as it is, one made from a seed, or the default one for None."""
    if rng is None:
        return _of_rank.get() or _default
    return rng if isinstance(rng, np.random.Generator) else np.random.default_rng(rng)


def fans(shape: Sequence[int]) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight [out, in, ...]."""
    if len(shape) < 2:
        raise ValueError(f"fans: a weight has at least 2 axes, its shape is {tuple(shape)}")
    field = math.prod(shape[2:])
    return shape[1] * field, shape[0] * field


def constant(shape: Sequence[int], value: float = 0.0) -> Array:
    """The same number everywhere."""
    return np.full(shape, value, np.float32)


def normal(shape: Sequence[int], std: float = 1.0, *, mean: float = 0.0,
           rng: RandomLike = None) -> Array:  # fmt: skip
    """Normal numbers."""
    return (generator(rng).standard_normal(shape) * std + mean).astype(np.float32)


def uniform(shape: Sequence[int], bound: float, *, rng: RandomLike = None) -> Array:
    """Uniform in [-bound, bound)."""
    return generator(rng).uniform(-bound, bound, shape).astype(np.float32)


def _he_std(shape: Sequence[int], fan: Fan, slope: float) -> float:
    size = fans(shape)[0 if fan == "fan_in" else 1]
    return math.sqrt(2.0 / ((1.0 + slope * slope) * max(size, 1)))


def kaiming_normal(shape: Sequence[int], *, fan: Fan = "fan_in", slope: float = 0.0,
                   rng: RandomLike = None) -> Array:  # fmt: skip
    """Normal with variance 2 / ((1 + slope^2) fan): keeps the scale through (leaky) ReLUs."""
    return normal(shape, _he_std(shape, fan, slope), rng=rng)


def kaiming_uniform(shape: Sequence[int], *, fan: Fan = "fan_in", slope: float = 0.0,
                    rng: RandomLike = None) -> Array:  # fmt: skip
    """Uniform with the variance of kaiming_normal."""
    return uniform(shape, math.sqrt(3.0) * _he_std(shape, fan, slope), rng=rng)


def xavier_normal(shape: Sequence[int], *, gain: float = 1.0, rng: RandomLike = None) -> Array:
    """Normal with variance gain^2 * 2 / (fan_in + fan_out)."""
    return normal(shape, gain * math.sqrt(2.0 / sum(fans(shape))), rng=rng)


def xavier_uniform(shape: Sequence[int], *, gain: float = 1.0, rng: RandomLike = None) -> Array:
    """Uniform with the variance of xavier_normal."""
    return uniform(shape, gain * math.sqrt(6.0 / sum(fans(shape))), rng=rng)
