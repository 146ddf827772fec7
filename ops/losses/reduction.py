"""How the losses of elements become one number."""

from __future__ import annotations

from typing import Literal, TypeAlias

from megbrain_py.errors import GraphError
from megbrain_py.node import Var, VarLike, user_origin
from megbrain_py.ops.binary import div, maximum, mul
from megbrain_py.ops.reduce import sum as sum_

Reduction: TypeAlias = Literal["none", "sum", "mean"]
SMALLEST = 1e-12  # a count of 0 gives a loss of 0, not NaN


def reduce_loss(
    name: str, loss: Var, weight: VarLike | None, reduction: Reduction, count: VarLike
) -> Var:
    """loss * weight, summed for "sum" and divided by `count` for "mean"."""
    if reduction not in ("none", "sum", "mean"):
        raise GraphError(
            f"{name}: reduction must be none, sum or mean, is {reduction!r}\n  at {user_origin()}"
        )
    if weight is not None:
        loss = mul(loss, weight)
    if reduction == "none":
        return loss
    total = sum_(loss)
    return total if reduction == "sum" else div(total, maximum(count, SMALLEST))
