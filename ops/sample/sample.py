"""Balanced random sampling of matched boxes: a fixed number of rows, positives first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from megbrain_py.dtypes import Array, DType, TensorType
from megbrain_py.errors import require
from megbrain_py.graph import Node, Operator, Var
from megbrain_py.random import random_bits


@dataclass(frozen=True)
class Sample(Operator, kernel="sample"):
    """matches, key -> indices [N, rows], positives [N], total [N]."""

    rows: int
    most_positive: int
    salt: int
    random: ClassVar[bool] = True

    def infer(self, matches: TensorType, key: TensorType) -> list[TensorType]:
        require(
            matches.rank == 2 and matches.dtype == DType.int32,
            f"matches must be int32 [N, A], is {matches}",
        )
        images = matches.shape[0]
        require(
            key.shape in ((images,), (1,)) and key.dtype == DType.int64,
            f"key must be int64[{images}] or int64[1], is {key}",
        )
        require(self.rows >= 1, f"rows must be at least 1, is {self.rows}")
        require(
            0 <= self.most_positive <= self.rows,
            f"of {self.rows} rows {self.most_positive} cannot be positive",
        )
        counts = TensorType((images,), DType.int32)
        return [TensorType((images, self.rows), DType.int32), counts, counts]

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        return [None, None]

    def reference(self, matches: Array, key: Array) -> list[Array]:
        images, size = matches.shape
        indices = np.zeros((images, self.rows), np.int32)
        positives, total = np.zeros(images, np.int32), np.zeros(images, np.int32)
        for n in range(images):
            priority = random_bits(key[n % len(key)], self.salt, np.arange(size))

            def draw(wanted: Array, most: int, priority: Array = priority) -> Array:
                found = np.flatnonzero(wanted)
                lowest = found[np.argsort(priority[found], kind="stable")[:most]]
                return np.sort(lowest)

            first = draw(matches[n] >= 0, self.most_positive)
            second = draw(matches[n] == -1, self.rows - len(first))
            positives[n], total[n] = len(first), len(first) + len(second)
            indices[n, : total[n]] = np.concatenate([first, second])
        return [indices, positives, total]


def sample(
    matches: Var, key: Var, rows: int, positive_fraction: float, *, salt: int
) -> tuple[Var, Var, Var]:
    """Draw up to `rows` boxes an image: (indices int32[N, rows], positives int32[N], total).

    matches: int32[N, A]: >= 0 positive, -1 negative, others never drawn (see match_boxes).
    At most int(rows * positive_fraction) positives, which come first; negatives fill the rest, as
    far as there are any: `total` rows are valid, the others hold 0. Each kind in rising order.
    A box is drawn when its random number, of (key[n], salt, index), is among the smallest: the
    draw depends on the image's key, never on its row. key: int64[N] or int64[1].
    """
    op = Sample(int(rows), int(rows * positive_fraction), int(salt))
    result: tuple[Var, Var, Var] = op(matches, key)
    return result
