"""Rows picked image by image: the gather of detection code."""

from __future__ import annotations

import numpy as np

from megbrain_py.dtypes import DType
from megbrain_py.graph import constant
from megbrain_py.node import Var
from megbrain_py.ops.binary import add
from megbrain_py.ops.cast import cast
from megbrain_py.ops.indexing.gather import gather
from megbrain_py.ops.movement import reshape


def batched_gather(x: Var, indices: Var) -> Var:
    """y[n, s] = x[n, indices[n, s]]: x [N, A, ...], indices int32 or int64 [N, S] -> [N, S, ...].

    A run raises EngineError for an index outside of [0, A). Gradients flow to x.
    """
    images, rows = x.shape[:2]
    start = constant(np.arange(images, dtype=np.int64).reshape(-1, 1) * rows)
    flat = reshape(add(cast(indices, DType.int64), start), (-1,))
    picked = gather(reshape(x, (images * rows, *x.shape[2:])), flat)
    return reshape(picked, (*indices.shape, *x.shape[2:]))
