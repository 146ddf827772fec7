"""Gradients summed over ranks in buckets, and losses whose normalisers count all ranks."""

from __future__ import annotations

from collections.abc import Sequence

from megbrain_py import functional as F
from megbrain_py import ranks
from megbrain_py.graph import Var, origin_of, taking_place_of

BUCKET_BYTES = 25 << 20  # as torch's DistributedDataParallel: few calls, and overlap is possible


def data_parallel(
    gradients: Sequence[Var],
    group: ranks.Group | None = None,
    *,
    average: bool = False,
    bucket_bytes: int = BUCKET_BYTES,
    overlap: bool = True,
) -> list[Var]:
    """Gradients of the sum (average: of the mean) of all ranks' losses, from this rank's own.

    Give the result to an optimiser: `sgd.updates(data_parallel(mb.gradients(loss, weights)), lr)`.
    Neighbours in backward's order form buckets of at least `bucket_bytes`; the last may be smaller.
    Each is one collective, and one piece of memory, into which the gradients are written when they
    are made. It starts where the last of them is made, and goes on while backward does, until
    something reads a sum; overlap=False waits at once, which may save the memory of a bucket or
    two. group: None for all ranks.
    """
    members = len((ranks.everyone() if group is None else group).members)
    reduced: dict[int, Var] = {}
    for bucket in _buckets(gradients, bucket_bytes):
        last = gradients[bucket[-1]].node
        with taking_place_of(last), origin_of(last):
            own = [gradients[i] for i in bucket]
            summed = F.all_reduce_together(own, group, overlap=overlap)
        if average:  # not at that place: it would wait there
            with origin_of(last):
                summed = [total * (1.0 / members) for total in summed]
        reduced.update(zip(bucket, summed, strict=True))
    return [reduced[i] for i in range(len(gradients))]


def _buckets(gradients: Sequence[Var], least: int) -> list[list[int]]:
    """Indices of gradients in the order in which backward makes them, cut into buckets."""
    buckets: list[list[int]] = []
    size = least
    for index in sorted(range(len(gradients)), key=lambda i: gradients[i].node.order):
        fresh = size >= least or gradients[buckets[-1][0]].dtype != gradients[index].dtype
        if fresh:
            buckets.append([])
            size = 0
        buckets[-1].append(index)
        size += gradients[index].type.nbytes
    return buckets


def mean_over_ranks(total: Var, count: Var, group: ranks.Group | None = None) -> Var:
    """This rank's share of a mean over all ranks: `total` / (sum of all ranks' `count`).

    total: a float scalar, the sum of this rank's terms; count: how many they are, a float scalar; a
    sum of counts below 1 counts as 1.
    The shares add up to the mean that one rank with all the data has, however unequal the ranks
    are; the loss to print is `F.all_reduce(share)`.
    """
    return total / F.maximum(F.all_reduce(F.stop_gradient(count), group=group), 1.0)
