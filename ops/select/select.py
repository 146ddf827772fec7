"""Where: elementwise choice between two values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from megbrain_py.dtypes import Array, DType, TensorType, broadcast_shapes
from megbrain_py.errors import require
from megbrain_py.graph import Node, Operator, Var, VarLike
from megbrain_py.ops.binary.binary import as_operands
from megbrain_py.ops.reduce import sum_to
from megbrain_py.ops.reduce.reduce import BroadcastTo


@dataclass(frozen=True)
class Where(Operator, kernel="where"):
    """a where the condition holds, else b. The side that is not chosen gets gradient 0."""

    elementwise: ClassVar[bool] = True

    def infer(self, condition: TensorType, a: TensorType, b: TensorType) -> TensorType:
        require(condition.dtype == DType.bool, f"condition must be bool, is {condition.dtype}")
        require(a.dtype == b.dtype, f"a and b must have one element type, are {a.dtype}, {b.dtype}")
        try:
            shape = broadcast_shapes(condition.shape, a.shape, b.shape)
        except ValueError:
            require(False, f"shapes {condition.shape}, {a.shape}, {b.shape} do not broadcast")
        return TensorType(shape, a.dtype)

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        condition, a, b = node.inputs
        if not a.dtype.is_float:
            return [None, None, None]
        return [
            None,
            sum_to(where(condition, dy[0], 0), a.shape),
            sum_to(where(condition, 0, dy[0]), b.shape),
        ]

    def simplify(self, *inputs: Var) -> Sequence[Var] | None:
        condition, a, b = inputs
        shape = broadcast_shapes(condition.shape, a.shape, b.shape)
        if a is b and a.shape == shape:
            return [a]
        for i, v in enumerate(inputs):  # what broadcasts anyway need not be broadcast
            others = [w.shape for j, w in enumerate(inputs) if j != i]
            if isinstance(v.node.op, BroadcastTo) and broadcast_shapes(*others) == shape:
                return [self(*[v.node.inputs[0] if j == i else w for j, w in enumerate(inputs)])]
        return None

    def reference(self, condition: Array, a: Array, b: Array) -> Array:
        return np.where(condition, a, b).astype(np.result_type(a, b))


def where(condition: Var, a: VarLike, b: VarLike) -> Var:
    """a where `condition` (bool) holds, else b; all three broadcast. Any element type.

    A number takes the other operand's element type.
    """
    a, b = as_operands(a, b)
    result: Var = Where()(condition, a, b)
    return result
