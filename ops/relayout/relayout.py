"""Relayout: the same value in another memory layout. Only passes/layout.py makes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from megbrain_py.dtypes import Array, Layout, TensorType
from megbrain_py.errors import require
from megbrain_py.graph import Operator


@dataclass(frozen=True)
class Relayout(Operator, kernel="relayout"):
    """x in the layout `to`; x has rank 4."""

    to: Layout

    def infer(self, x: TensorType) -> TensorType:
        require(x.rank == 4, f"only values of rank 4 have layouts, x has rank {x.rank}")
        return x

    def layouts(self, inputs: Sequence[TensorType]) -> tuple[Sequence[Layout], Sequence[Layout]]:
        return [inputs[0].layout], [self.to]

    def reference(self, x: Array) -> Array:
        return x
