"""Counter-based random numbers, the same as engine/include/mb/random.h, and keys of images."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from megbrain_py.dtypes import Array

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_Bits = npt.NDArray[np.uint64]


def _mix(z: _Bits) -> _Bits:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014)."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: _Bits = z ^ (z >> np.uint64(31))
    return mixed


def _bits(value: Any) -> _Bits:
    bits: _Bits = np.atleast_1d(np.asarray(value)).astype(np.int64).astype(np.uint64)
    return bits


def random_bits(key: Any, salt: int, counter: Any) -> _Bits:
    """64 random bits for each (key, counter), broadcast."""
    stream = _mix(_bits(key) ^ _mix(_bits(salt) + _GOLDEN))
    return _mix(stream + (_bits(counter) + np.uint64(1)) * _GOLDEN)


def uniform(bits: _Bits) -> Array:
    """Uniform in [0, 1) with 24 bits, exact in float32."""
    numbers: Array = (bits >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)
    return numbers


def keys(seed: int, step: int, ids: Any) -> Array:
    """int64[n]: one key for each image id of a step; feed it to operators that draw.

    A key depends on (seed, step, id) only, never on a batch row or a rank.
    """
    mixed = _mix(_mix(_bits(seed) + _GOLDEN) ^ _bits(step) * _GOLDEN)
    return _mix(mixed ^ _mix(_bits(ids) + _GOLDEN)).astype(np.int64)
