"""Moments of all ranks of a group, merged: what batch norm over several devices needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from megbrain_py import ranks
from megbrain_py.dtypes import Array, TensorType
from megbrain_py.errors import require
from megbrain_py.node import Node, Var
from megbrain_py.ops.binary import add, div, maximum, mul, sub
from megbrain_py.ops.collective.collective import (
    Collective,
    Pattern,
    all_reduce_together,
    colors_of,
)


@dataclass(frozen=True)
class MergeMoments(Collective, kernel="merge_moments"):
    """count[1], mean[C], m2[C] of each rank -> those of the group's values taken together.

    One all-gather of 2C+1 doubles; every rank merges them in the order of ranks by Chan's formula.
    A rank without values (count 0) adds nothing. Gradients: one all-reduce of two vectors.
    Source: Chan, Golub, LeVeque, "Updating formulae ... sample variances" (1979).
    """

    pattern: ClassVar[Pattern] = "all_gather"

    def message_bytes(self, inputs: Sequence[TensorType]) -> int:
        """They travel as doubles."""
        return 8 * sum(x.count for x in inputs)

    def infer(self, count: TensorType, mean: TensorType, m2: TensorType) -> Sequence[TensorType]:
        require(mean.dtype.is_float and mean.rank == 1, f"mean must be a float vector, is {mean}")
        require(m2 == mean, f"m2 must be {mean}, is {m2}")
        want = TensorType((1,), mean.dtype)
        require(count == want, f"count must be {want}, is {count}")
        return count, mean, m2

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        """M2 = sum of M2_r + n_r (mean_r - mean)^2, mean = sum of n_r mean_r / n."""
        count, mean, _ = node.inputs
        all_count, all_mean, _ = node.outputs
        _, dmean, dm2 = dy
        given = [d for d in (dmean, dm2) if d is not None]
        if not given:
            return [None, None, None]
        summed = all_reduce_together(given, ranks.Group(self.colors))
        total_dm2 = summed[-1] if dm2 is not None else None
        terms: list[Var] = []
        if dmean is not None:
            terms.append(mul(div(count, maximum(all_count, 1.0)), summed[0]))
        if total_dm2 is not None:
            terms.append(mul(mul(mul(count, 2.0), total_dm2), sub(mean, all_mean)))
        return [None, terms[0] if len(terms) == 1 else add(*terms), total_dm2]

    def among(self, given: Sequence[Sequence[Array]]) -> Sequence[Sequence[Array]]:
        counts, means, m2s = (np.stack(values) for values in zip(*given, strict=True))
        count = counts.sum(axis=0)
        mean = (counts * means).sum(axis=0) / np.maximum(count, 1)
        m2 = (m2s + counts * np.square(means - mean)).sum(axis=0)
        return [[count, mean, m2]] * len(given)


def merge_moments(
    count: Var, mean: Var, m2: Var, group: ranks.Group | None = None
) -> tuple[Var, Var, Var]:
    """(count[1], mean[C], m2[C]) of all values that the group's ranks hold together.

    count[1], mean[C], m2[C]: of this rank's values, as `moments` gives them. float.
    """
    colors = colors_of(group)
    if colors is None:
        return count, mean, m2
    merged: tuple[Var, Var, Var] = MergeMoments(colors)(count, mean, m2)
    return merged
