"""Offsets for buffers with fixed lifetimes: static storage allocation, with a lower bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from megbrain_py import _planner

ALIGNMENT = 64  # bytes: a cache line, and the widest vector register
SEARCH = 10_000_000  # steps of search, about 0.1 s, when greedy attempts leave a gap

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Buffer:
    """`size` bytes, live at every position from `first` to `last` inclusive."""

    size: int
    first: int
    last: int


@dataclass(frozen=True)
class Allocation:
    """An offset for each buffer; `height` bytes in all; `lower_bound`: the most live bytes."""

    offsets: tuple[int, ...]
    height: int
    lower_bound: int


def round_up(size: int) -> int:
    """`size` rounded up to the alignment."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def allocate(buffers: Sequence[Buffer], wanted: int = 0) -> Allocation:
    """Aligned offsets; checked. Buffers that are live together never overlap.

    The search for a lower arena ends at `wanted` bytes.
    """
    lower = np.array([b.first for b in buffers], np.int64)
    upper = np.array([b.last + 1 for b in buffers], np.int64)
    size = np.array([round_up(b.size) for b in buffers], np.int64)
    offsets, height, _ = place(lower, upper, size, wanted, SEARCH)
    return Allocation(tuple(offsets.tolist()), height, max_live(lower, upper, size))


def max_live(lower: Ints, upper: Ints, size: Ints) -> int:
    """The most bytes that are live at one time: no placement can be lower."""
    return _planner.max_live(lower, upper, size)


def place(
    lower: Ints, upper: Ints, size: Ints, wanted: int = 0, work: int = SEARCH
) -> tuple[Ints, int, bool]:
    """Offsets of rectangles that live on [lower, upper); their height; is no lower one possible?

    Ends as soon as the height is at most `wanted` or the most live bytes. Otherwise it searches
    until `work` steps (about 60 million in a second) are spent: the result depends on the input
    only. Sizes are not rounded: multiples of an alignment give offsets that are, too. A buffer
    that passes from one owner to the next (in place, a view) is one rectangle, from the first
    owner's beginning to the last one's end, as large as the largest of them.
    """
    offsets, height, optimal = _planner.allocate(lower, upper, size, wanted, work)
    check(lower, upper, size, offsets)
    return offsets, height, optimal


def check(lower: Ints, upper: Ints, size: Ints, offsets: Ints) -> None:
    """AssertionError when two rectangles that are live together overlap: our own mistake."""
    one, other = _planner.find_overlap(lower, upper, size, offsets)
    assert one < 0, f"buffers {one} and {other} overlap"
    assert len(offsets) == 0 or int(offsets.min()) >= 0, "a buffer lies below 0"
