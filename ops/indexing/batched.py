"""Rows picked image by image: the gather of detection code."""

from __future__ import annotations

import numpy as np

from megbrain_py.dtypes import DType
from megbrain_py.graph import constant
from megbrain_py.node import Var
from megbrain_py.ops.binary import add, greater_equal, less, logical_and
from megbrain_py.ops.cast import cast
from megbrain_py.ops.indexing.gather import gather
from megbrain_py.ops.movement import reshape
from megbrain_py.ops.movement.reshape import graph_error
from megbrain_py.ops.select import where


def batched_gather(x: Var, indices: Var) -> Var:
    """y[n, s] = x[n, indices[n, s]]: x [N, A, ...], indices int32 or int64 [N, S] -> [N, S, ...].

    A run raises EngineError for an index outside of [0, A). Gradients flow to x.
    """
    if x.rank < 2 or indices.rank != 2 or indices.shape[0] != x.shape[0]:
        raise graph_error(
            "batched_gather", x, f"expected x [N, A, ...] and indices [N, S], found {indices.type}"
        )
    images, rows = x.shape[:2]
    start = constant(np.arange(images, dtype=np.int64).reshape(-1, 1) * rows)
    index = cast(indices, DType.int64)
    inside = logical_and(greater_equal(index, 0), less(index, rows))
    flat = reshape(where(inside, add(index, start), -1), (-1,))  # never a row of another image
    picked = gather(reshape(x, (images * rows, *x.shape[2:])), flat)
    return reshape(picked, (*indices.shape, *x.shape[2:]))
