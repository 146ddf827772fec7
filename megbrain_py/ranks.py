"""Which rank of how many this is, and which ranks form a group: plain facts for graphs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal

from megbrain_py.errors import GraphError


@dataclass(frozen=True)
class World:
    """All ranks, seen from one: its number and how many there are.

    device: what "cpu" means to this rank. communicator: how it reaches the others (engine.py).
    """

    rank: int = 0
    size: int = 1
    backend: Literal["alone", "local", "mpi"] = "alone"
    device: str = "cpu"
    communicator: Any = field(default=None, repr=False, compare=False)


_process = World()  # of threads that do not belong to a logical rank
_entered: ContextVar[World | None] = ContextVar("megbrain_py_world", default=None)


def current() -> World:
    """The world of the calling thread: rank 0 of 1 unless the program was started with more."""
    return _entered.get() or _process


@contextmanager
def entered(world: World) -> Iterator[None]:
    """Inside, the calling thread is this rank."""
    token = _entered.set(world)
    try:
        yield
    finally:
        _entered.reset(token)


def set_process_world(world: World) -> None:
    """Every thread of this process that has not entered another world is this rank."""
    global _process  # noqa: PLW0603  (a process has one place among the others)
    _process = world


@dataclass(frozen=True)
class Group:
    """Ranks of equal color belong together. The same value on every rank: graphs stay equal."""

    colors: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.colors:
            raise GraphError("group: expected a color for each rank, found none")

    @property
    def members(self) -> tuple[int, ...]:
        """The ranks that belong together with the calling one."""
        rank = current().rank
        if rank >= len(self.colors):
            raise GraphError(
                f"group: is one of {len(self.colors)} ranks, this is rank {rank} of "
                f"{current().size}"
            )
        return tuple(r for r, c in enumerate(self.colors) if c == self.colors[rank])


def everyone() -> Group:
    """All ranks together."""
    return Group((0,) * current().size)


def blocks(ranks: int) -> Group:
    """Groups of so many neighbouring ranks: 0 to ranks-1, and so on.

    Raises GraphError when the world's size is no multiple of it.
    """
    size = current().size
    if ranks < 1 or size % ranks:
        raise GraphError(f"group: {size} ranks cannot form groups of {ranks}")
    return Group(tuple(rank // ranks for rank in range(size)))


def rows_of(count: int, rank: int, size: int) -> range:
    """Which of a batch's rows are a rank's: neighbours, as many as any other's or one more."""
    return range(count * rank // size, count * (rank + 1) // size)


def sharing_images(images: int, each: int) -> Group:
    """The group whose ranks hold so many images together, `each` on every rank (MegDet's bn_size).

    Raises GraphError unless `images` is a whole number of ranks that divides the world.
    """
    if each < 1 or images % each:
        raise GraphError(f"group: {images} images are no whole number of ranks with {each} each")
    return blocks(images // each)
