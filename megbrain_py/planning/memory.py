"""Offsets for buffers with fixed lifetimes: static storage allocation, with a lower bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

ALIGNMENT = 64  # bytes: a cache line, and the widest vector register

_Ints = npt.NDArray[np.int64]


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


def allocate(buffers: Sequence[Buffer]) -> Allocation:
    """The best of several greedy orders; checked. Buffers that are live together never overlap.

    Source: greedy by size and by duration (Pisarchyk & Lee, 2020, arXiv 2001.03288).
    """
    sizes = np.array([round_up(b.size) for b in buffers], np.int64)
    first = np.array([b.first for b in buffers], np.int64)
    last = np.array([b.last for b in buffers], np.int64)
    bound = max_live(sizes, first, last)
    best: _Ints = np.zeros(len(buffers), np.int64)
    height = -1
    duration = last - first + 1
    for order in (
        np.lexsort((first, -sizes)),
        np.lexsort((first, -sizes * duration)),
        np.lexsort((-sizes, -duration)),
        np.lexsort((-sizes, first)),
    ):
        for fit in (_lowest_gap, _tightest_gap):
            offsets = _place(order, sizes, first, last, fit)
            reached = int((offsets + sizes).max(initial=0))
            if height < 0 or reached < height:
                best, height = offsets, reached
            if height == bound:
                break
        if height == bound:
            break
    check(best, sizes, first, last)
    return Allocation(tuple(int(o) for o in best), max(height, 0), bound)


def max_live(sizes: _Ints, first: _Ints, last: _Ints) -> int:
    """The most bytes that are live at one position: no allocation can be lower."""
    if len(sizes) == 0:
        return 0
    start = int(first.min())
    change = np.zeros(int(last.max()) - start + 2, np.int64)
    np.add.at(change, first - start, sizes)
    np.subtract.at(change, last - start + 1, sizes)
    return int(np.cumsum(change).max())


def _place(order: _Ints, sizes: _Ints, first: _Ints, last: _Ints, fit: Any) -> _Ints:
    offsets = np.full(len(sizes), -1, np.int64)
    done = np.zeros(len(sizes), bool)
    for b in order:
        if sizes[b] == 0:
            offsets[b] = 0
            continue
        together = np.flatnonzero(done & (first <= last[b]) & (last >= first[b]))
        begin = offsets[together]
        sort = np.argsort(begin, kind="stable")
        begin = begin[sort]
        end = np.maximum.accumulate(begin + sizes[together][sort])
        starts = np.concatenate(([0], end))  # gap k lies between starts[k] and the next begin
        room = np.append(begin, np.iinfo(np.int64).max) - starts
        offsets[b] = starts[fit(room, sizes[b])]
        done[b] = True
    return offsets


def _lowest_gap(room: _Ints, size: int) -> int:
    return int(np.argmax(room >= size))


def _tightest_gap(room: _Ints, size: int) -> int:
    return int(np.argmin(np.where(room >= size, room, np.iinfo(np.int64).max)))


def check(offsets: _Ints, sizes: _Ints, first: _Ints, last: _Ints) -> None:
    """AssertionError when two buffers that are live together overlap: our own mistake."""
    for b in range(len(sizes)):
        rest = slice(b + 1, None)
        together = (first[rest] <= last[b]) & (last[rest] >= first[b])
        overlap = (offsets[rest] < offsets[b] + sizes[b]) & (
            offsets[rest] + sizes[rest] > offsets[b]
        )
        clash = together & overlap & (sizes[rest] > 0) & (sizes[b] > 0)
        assert not clash.any(), f"buffers {b} and {b + 1 + int(np.argmax(clash))} overlap"
