"""Separable linear resampling: what resizing, average pooling and their adjoints are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np

from megbrain_py.dtypes import Array, Layout, TensorType
from megbrain_py.errors import require
from megbrain_py.graph import Node, Operator, Var

# For each output along one axis: the first input that it reads, and the weights from there on.
Taps: TypeAlias = tuple[tuple[int, tuple[float, ...]], ...]


@lru_cache(maxsize=256)
def transposed(taps: Taps, size: int) -> Taps:
    """The taps of the adjoint, which maps back to `size` values; starts must not decrease."""
    first = [0] * size
    weights: list[list[float]] = [[] for _ in range(size)]
    for output, (start, row) in enumerate(taps):
        for offset, weight in enumerate(row):
            index = start + offset
            if not weights[index]:
                first[index] = output
            weights[index] += [0.0] * (output - first[index] - len(weights[index])) + [weight]
    return tuple((f, tuple(w)) for f, w in zip(first, weights, strict=True))


def dense(taps: Taps, size: int) -> Array:
    """The taps as a matrix [outputs, size]."""
    matrix = np.zeros((len(taps), size))
    for output, (start, row) in enumerate(taps):
        matrix[output, start : start + len(row)] += row
    return matrix


@dataclass(frozen=True, kw_only=True)
class Resample(Operator):
    """Base: [N, C, *input_size] -> [N, C, *output_size], each axis by its `taps`.

    adjoint: the transposed map, from output_size to input_size; each is the other's gradient.
    """

    input_size: tuple[int, int]
    output_size: tuple[int, int]
    adjoint: bool = False

    def taps(self, axis: int) -> Taps:
        """Weights along the vertical (0) or horizontal (1) axis, from input to output."""
        raise NotImplementedError

    def check(self) -> None:
        """Refuse attributes that make no sense."""

    def infer(self, x: TensorType) -> TensorType:
        require(x.rank == 4, f"x must be [N, C, H, W], has rank {x.rank}")
        require(x.dtype.is_float, f"x must be float, is {x.dtype}")
        self.check()
        require(
            min(self.input_size) >= 1 and min(self.output_size) >= 1,
            f"there must be pixels: input {self.input_size}, output {self.output_size}",
        )
        expected, given = self.input_size, self.output_size
        if self.adjoint:
            expected, given = given, expected
        require(x.shape[2:] == expected, f"x must have size {expected}, has {x.shape[2:]}")
        return TensorType((*x.shape[:2], *given), x.dtype)

    def layouts(self, inputs: Sequence[TensorType]) -> tuple[Sequence[Layout], Sequence[Layout]]:
        return ("channels_last",), ("channels_last",)

    def _used(self, axis: int) -> Taps:
        taps = self.taps(axis)
        return transposed(taps, self.input_size[axis]) if self.adjoint else taps

    def attrs(self) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for axis, name in enumerate(("row", "column")):
            taps = self._used(axis)
            values[f"{name}_starts"] = tuple(start for start, _ in taps)
            values[f"{name}_counts"] = tuple(len(weights) for _, weights in taps)
            values[f"{name}_weights"] = tuple(w for _, weights in taps for w in weights)
        return values

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        return [replace(self, adjoint=not self.adjoint)(dy[0])]

    def reference(self, x: Array) -> Array:
        rows, columns = (
            dense(self._used(axis), x.shape[2 + axis]).astype(x.dtype) for axis in range(2)
        )
        return np.asarray(np.einsum("ph,nchw,qw->ncpq", rows, x, columns, optimize=True))
