"""The same value elsewhere: in another memory layout (passes/layout.py), or a copy (lower.py)."""

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


@dataclass(frozen=True)
class Copy(Operator, kernel="copy"):
    """x as it is. Lowering writes its instructions; no graph has such a node."""

    def infer(self, x: TensorType) -> TensorType:
        return x

    def layouts(self, inputs: Sequence[TensorType]) -> tuple[Sequence[Layout], Sequence[Layout]]:
        return [inputs[0].layout], [inputs[0].layout]

    def reference(self, x: Array) -> Array:
        return x
