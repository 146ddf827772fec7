"""Cast: the same values in another element type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from megbrain_py.dtypes import Array, DType, DTypeLike, TensorType, as_dtype
from megbrain_py.errors import GraphError, require
from megbrain_py.graph import Node, Operator, Var, describe, user_origin


@dataclass(frozen=True)
class Cast(Operator, kernel="cast"):
    """x as `to`. Floats lose their fraction and saturate (NaN becomes 0); to bool: x != 0.

    Between integers the low bits are kept, as numpy does.
    """

    to: DType
    elementwise: ClassVar[bool] = True

    def infer(self, x: TensorType) -> TensorType:
        require(self.to != DType.float64, "float64 exists only in references, cast to float32")
        return TensorType(x.shape, self.to)

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        (x,) = node.inputs
        return [cast(dy[0], x.dtype) if x.dtype.is_float and self.to.is_float else None]

    def reference(self, x: Array) -> Array:
        kinds = x.dtype.kind, self.to.numpy.kind
        if kinds == ("f", "f"):
            return x  # references keep their precision
        if kinds[0] == "f" and self.to.is_integer:
            limits = np.iinfo(self.to.numpy)
            whole = np.nan_to_num(np.trunc(x), nan=0.0)
            inside = (whole >= float(limits.min)) & (whole < float(limits.max) + 1)
            edge = np.where(whole < 0, limits.min, limits.max)
            return np.where(inside, np.where(inside, whole, 0).astype(self.to.numpy), edge).astype(
                self.to.numpy
            )
        return x.astype(self.to.numpy)


def cast(x: Var, dtype: DTypeLike) -> Var:
    """x as `dtype` (float32, int32, int64, uint8, bool).

    Floats lose their fraction and saturate (NaN becomes 0); to bool it means x != 0.
    """
    try:
        to = as_dtype(dtype)
    except (ValueError, TypeError) as error:
        message = f"cast: {error}\n  {describe(x)}\n  at {user_origin()}"
        raise GraphError(message) from None
    if x.dtype == to:
        return x
    result: Var = Cast(to)(x)
    return result
