"""One training on many ranks: what rank 0 decides for all, and what all tell each other.

The trainer runs the same lines on every rank; where there is one, these functions do nothing.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import NamedTuple, TypeVar, cast

from megbrain_py import distributed, ranks
from megbrain_py.data import Detections
from megbrain_py.errors import DataError, GraphError, MegBrainError
from megbrain_py.training.config import TrainConfig

T = TypeVar("T")

_TOLD = (MegBrainError, OSError)  # errors that are no bugs


class Shared(Exception):
    """Notes an error that every rank raises, as its cause: one of them says it.

    rank: whose it was; None where all met it, or rank 0 for all.
    """

    def __init__(self, rank: int | None = None) -> None:
        super().__init__("on every rank" if rank is None else f"of rank {rank}, on every rank")
        self.rank = rank


def leads() -> bool:
    """Is this the rank that writes and shows?"""
    return ranks.current().rank == 0


def first(decide: Callable[[], T]) -> T:
    """What `decide` gives on rank 0, where alone it is called; its error is raised everywhere."""
    if ranks.current().size == 1:
        return decide()
    value, error = distributed.broadcast_object(_tried(decide) if leads() else None)
    if error is not None:
        raise error from Shared()
    return cast(T, value)


def together(do: Callable[[], T]) -> T:
    """What `do` gives on this rank; an error of any rank is raised on all, the first rank's."""
    if ranks.current().size == 1:
        return do()
    value, error = _tried(do)
    errors = distributed.all_gather_objects(error)
    found = [rank for rank, one in enumerate(errors) if one is not None]
    if found:
        raise errors[found[0]] from Shared(None if len(found) == len(errors) else found[0])
    return cast(T, value)


def _tried(do: Callable[[], T]) -> tuple[T | None, Exception | None]:
    try:
        return do(), None
    except _TOLD as error:
        return None, error


def shared(error: BaseException) -> Shared | None:
    """The note on an error that all ranks raise."""
    return error.__cause__ if isinstance(error.__cause__, Shared) else None


def sharing_host() -> int:
    """How many ranks share this one's host."""
    host = socket.gethostname()
    return distributed.all_gather_objects(host).count(host)


class StepNews(NamedTuple):
    """What a rank tells the others after a step."""

    images: int
    waited: float  # seconds for its pictures
    stop: int  # the signal that asks it to stop; 0: none


def norm_group(config: TrainConfig) -> ranks.Group:
    """The ranks whose batch norms have their moments in common. DataError if `bn_size` is none."""
    size, batch = ranks.current().size, config.batch_size
    if config.bn_size == "all":
        return ranks.everyone()
    if config.bn_size == "local" and batch >= size:
        return ranks.blocks(1)
    if config.bn_size == "local" or batch % size:
        raise DataError(
            f"config: bn_size={config.bn_size} expects pictures for each of {size} devices"
            + ("" if config.bn_size == "local" else ", equally many")
            + f", found batch_size={batch}"
        )
    try:
        return ranks.sharing_images(int(config.bn_size), batch // size)
    except GraphError as error:
        raise DataError(f"config: bn_size={config.bn_size}: {error}") from None


def gathered(found: Detections) -> Detections:
    """On rank 0 the detections of all ranks, picture by picture of the data set; else the own."""
    own = found.image_ids, found.results, found.has_masks
    parts = distributed.gather_objects(own)
    if len(parts) < 2:
        return found
    every = Detections(found.dataset)
    for part in parts:
        every.join(*part)
    return every
