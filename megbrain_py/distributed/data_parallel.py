"""Gradients summed over ranks, in buckets that start their journey when they are complete."""

from __future__ import annotations

from collections.abc import Sequence

from megbrain_py import functional as F
from megbrain_py import ranks
from megbrain_py.graph import Var


def data_parallel(gradients: Sequence[Var], group: ranks.Group | None = None) -> list[Var]:
    """The gradients of the sum of all ranks' losses, from this rank's own."""
    return F.all_reduce_together(gradients, group)
