"""Cross-entropy of class scores with integer labels; the gradient is softmax - onehot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from megbrain_py.dtypes import Array, DType, TensorType
from megbrain_py.errors import require
from megbrain_py.node import Node, Operator, Var
from megbrain_py.ops.binary import mul
from megbrain_py.ops.losses.reduction import Reduction, reduce_loss
from megbrain_py.ops.reduce import sum as sum_


@dataclass(frozen=True)
class CrossEntropy(Operator, kernel="cross_entropy"):
    """(loss, counts) of each row: -log softmax(logits)[label], 1; both 0 where it is ignored.

    A label outside [0, C) that is not `ignore_index` fails when it is run.
    """

    ignore_index: int

    def infer(self, logits: TensorType, labels: TensorType) -> Sequence[TensorType]:
        _check(logits, labels)
        row = TensorType((logits.shape[0],), logits.dtype)
        return row, row

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        if dy[0] is None:
            return [None, None]
        return [CrossEntropyGrad(self.ignore_index)(*node.inputs, dy[0]), None]

    def reference(self, logits: Array, labels: Array) -> Sequence[Array]:
        used = labels != self.ignore_index
        picked = np.where(used, labels, 0)
        shifted = logits - logits.max(axis=1, keepdims=True)
        log_total = np.log(np.exp(shifted).sum(axis=1))
        loss = log_total - shifted[np.arange(len(labels)), picked]
        return np.where(used, loss, 0).astype(logits.dtype), used.astype(logits.dtype)


@dataclass(frozen=True)
class CrossEntropyGrad(Operator, kernel="cross_entropy_grad"):
    """(softmax(logits) - onehot(labels)) dloss; 0 where a row is ignored."""

    ignore_index: int

    def infer(self, logits: TensorType, labels: TensorType, dloss: TensorType) -> TensorType:
        _check(logits, labels)
        want = TensorType((logits.shape[0],), logits.dtype)
        require(dloss == want, f"dloss must be {want}, is {dloss}")
        return logits

    def may_overwrite(
        self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]
    ) -> Sequence[tuple[int, int]]:
        return [(0, 0)]

    def reference(self, logits: Array, labels: Array, dloss: Array) -> Array:
        used = labels != self.ignore_index
        e = np.exp(logits - logits.max(axis=1, keepdims=True))
        d = e / e.sum(axis=1, keepdims=True)
        rows = np.flatnonzero(used)
        d[rows, labels[rows]] -= 1
        dx: Array = d * np.where(used, dloss, 0)[:, None]
        return dx


def _check(logits: TensorType, labels: TensorType) -> None:
    require(
        logits.dtype.is_float and logits.rank == 2,
        f"logits must be a float tensor [N, C], is {logits}",
    )
    require(logits.shape[1] > 0, "there must be at least one class")
    require(
        labels.dtype in (DType.int32, DType.int64) and labels.shape == logits.shape[:1],
        f"labels must be int32 or int64 [{logits.shape[0]}], is {labels}",
    )


def cross_entropy(
    logits: Var,
    labels: Var,
    weight: Var | None = None,
    *,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    count: Var | None = None,
) -> Var:
    """-log softmax(logits)[label] of each row: logits float `[N, C]`, labels int `[N]`.

    weight: float `[N]`, one factor a row (a mask, for instance). Rows whose label is
    `ignore_index` give 0. reduction: "none" `[N]`, "sum", or "mean": the sum divided by `count` (a
    float scalar), by default the weights of the rows that are not ignored. A divisor of 0 gives 0.
    """
    loss, used = CrossEntropy(ignore_index)(logits, labels)
    if reduction == "mean" and count is None:
        count = sum_(used if weight is None else mul(used, weight))
    return reduce_loss("cross_entropy", loss, weight, reduction, 1.0 if count is None else count)
