"""Random values as functions of (key, salt, counter): dropout, uniform, normal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from megbrain_py.dtypes import Array, DType, Shape, TensorType
from megbrain_py.errors import require
from megbrain_py.graph import Node, Operator, Var
from megbrain_py.random import random_bits

Bits: TypeAlias = npt.NDArray[np.uint64]
_STEPS = 2**24  # a uniform number is one of these many


def _check_key(key: TensorType, shape: Shape) -> None:
    rows = shape[0] if shape else 1
    require(
        key.dtype == DType.int64 and key.rank == 1 and key.shape[0] in (1, rows),
        f"key must be int64[1] or int64[{rows}], one for each row, is {key}",
    )


def _bits(key: Array, salt: int, shape: Shape) -> Bits:
    """64 bits for each element; the counter is its place in its row, or in all with one key."""
    count = math.prod(shape)
    if key.size == 1:
        flat: Bits = random_bits(key, salt, np.arange(count))
        return flat.reshape(shape)
    width = count // shape[0] if shape[0] else 0
    rows: Bits = random_bits(key[:, None], salt, np.arange(width)[None])
    return rows.reshape(shape)


@dataclass(frozen=True)
class Dropout(Operator, kernel="dropout"):
    """x / (1 - p) with probability 1 - p, else 0 (Srivastava et al. 2014). Linear in x:

    the gradient is the same operator, which draws the same mask again.
    """

    p: float
    salt: int
    elementwise: ClassVar[bool] = True
    random: ClassVar[bool] = True

    def infer(self, x: TensorType, key: TensorType) -> TensorType:
        require(x.dtype.is_float, f"x must be a float tensor, is {x.dtype}")
        require(0 <= self.p < 1, f"p must be in [0, 1), is {self.p}")
        _check_key(key, x.shape)
        return x

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        return [dropout(dy[0], node.inputs[1], self.p, self.salt), None]

    def reference(self, x: Array, key: Array) -> Array:
        bits = _bits(key, self.salt, x.shape) >> np.uint64(40)
        keep = bits >= np.uint64(math.ceil(self.p * _STEPS))
        kept: Array = np.where(keep, x * x.dtype.type(1 / (1 - self.p)), x.dtype.type(0))
        return kept


@dataclass(frozen=True)
class _Draw(Operator):
    """Base: float32 of `shape`, drawn anew for each key."""

    shape: Shape
    salt: int
    random: ClassVar[bool] = True

    def infer(self, key: TensorType) -> TensorType:
        _check_key(key, self.shape)
        return TensorType(self.shape, DType.float32)

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        return [None]


class Uniform(_Draw, kernel="uniform"):
    """Uniform in [0, 1) with 24 bits."""

    def reference(self, key: Array) -> Array:
        bits = _bits(key, self.salt, self.shape) >> np.uint64(40)
        return np.asarray(bits.astype(np.float32) / np.float32(_STEPS))


class Normal(_Draw, kernel="normal"):
    """Standard normal numbers by the formula of Box and Muller (1958), from 48 of 64 bits."""

    def reference(self, key: Array) -> Array:
        bits = _bits(key, self.salt, self.shape)
        first = ((bits >> np.uint64(40)).astype(np.float64) + 1) / _STEPS  # in (0, 1]
        second = ((bits >> np.uint64(16)) % np.uint64(_STEPS)).astype(np.float64) / _STEPS
        return np.asarray(np.sqrt(-2 * np.log(first)) * np.cos(2 * np.pi * second), np.float32)


def dropout(x: Var, key: Var, p: float = 0.5, salt: int = 0) -> Var:
    """x / (1 - p) with probability 1 - p, else 0. float; 0 <= p < 1.

    key: int64[n], one for each row (image) of axis 0, or int64[1]; salt tells this dropout from
    others with the same key. Equal keys and salts draw equal masks, in every layout and run.
    """
    if p == 0:
        return x
    result: Var = Dropout(float(p), int(salt))(x, key)
    return result


def uniform(shape: Sequence[int], key: Var, salt: int = 0) -> Var:
    """float32 of `shape`, uniform in [0, 1). key: int64[1], or one for each row of axis 0."""
    result: Var = Uniform(tuple(int(n) for n in shape), int(salt))(key)
    return result


def normal(shape: Sequence[int], key: Var, salt: int = 0) -> Var:
    """float32 of `shape`, standard normal. key: int64[1], or one for each row of axis 0."""
    result: Var = Normal(tuple(int(n) for n in shape), int(salt))(key)
    return result
