"""Element types, and the type (shape, element type, layout) of a value."""

from __future__ import annotations

import builtins
import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
Shape: TypeAlias = tuple[int, ...]
Layout: TypeAlias = Literal["rows", "channels_last"]


class DType(enum.Enum):
    """Element type of a tensor; the value is numpy's name for it."""

    float32 = "float32"
    float64 = "float64"
    int32 = "int32"
    int64 = "int64"
    uint8 = "uint8"
    bool = "bool"

    @property
    def numpy(self) -> np.dtype[Any]:
        return np.dtype(self.value)

    @property
    def itemsize(self) -> int:
        return self.numpy.itemsize

    @property
    def is_float(self) -> builtins.bool:
        return self in (DType.float32, DType.float64)

    @property
    def is_integer(self) -> builtins.bool:
        return self in (DType.int32, DType.int64, DType.uint8)

    def __str__(self) -> str:
        return self.value

    __repr__ = __str__


DTypeLike: TypeAlias = "DType | str | np.dtype[Any] | type"


def as_dtype(dtype: DTypeLike) -> DType:
    """The DType named by a DType, a name, or anything numpy understands."""
    if isinstance(dtype, DType):
        return dtype
    name = np.dtype(dtype).name
    try:
        return DType(name)
    except ValueError:
        known = ", ".join(d.value for d in DType)
        raise ValueError(f"element type {name} is not supported; known: {known}") from None


@dataclass(frozen=True)
class TensorType:
    """Shape (logical, NCHW for images), element type, and how the elements lie in memory."""

    shape: Shape
    dtype: DType
    layout: Layout = "rows"

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def count(self) -> int:
        """Number of elements; 1 for a scalar."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.count * self.dtype.itemsize

    def with_layout(self, layout: Layout) -> TensorType:
        return self if layout == self.layout else TensorType(self.shape, self.dtype, layout)

    def __str__(self) -> str:
        text = f"{self.dtype}[{','.join(map(str, self.shape))}]"
        return text if self.layout == "rows" else text + ":channels_last"


def tensor_type(shape: Sequence[int], dtype: DTypeLike = DType.float32) -> TensorType:
    """`TensorType` from plain values; sizes must be integers >= 0."""
    sizes = tuple(int(size) for size in shape)
    if any(size < 0 for size in sizes):
        raise ValueError(f"sizes must not be negative: {sizes}")
    return TensorType(sizes, as_dtype(dtype))


def broadcast_shapes(*shapes: Shape) -> Shape:
    """The common shape of numpy's broadcasting rule; ValueError when there is none."""
    return tuple(int(size) for size in np.broadcast_shapes(*shapes))
