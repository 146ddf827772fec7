"""Tile and repeat, made of reshape and broadcasting."""

from __future__ import annotations

from collections.abc import Sequence

from megbrain_py.graph import Var
from megbrain_py.ops.movement.reshape import axis_of, graph_error, reshape


def tile(x: Var, counts: Sequence[int]) -> Var:
    """x laid `counts[a]` times behind itself along each axis a. Any element type."""
    from megbrain_py.ops.reduce import broadcast_to  # a room that needs this one

    if len(counts) != x.rank or any(n < 0 for n in counts):
        raise graph_error("tile", x, f"counts must be {x.rank} numbers >= 0, are {list(counts)}")
    apart = [size for n in x.shape for size in (1, n)]
    wide = [size for c, n in zip(counts, x.shape, strict=True) for size in (c, n)]
    target = [c * n for c, n in zip(counts, x.shape, strict=True)]
    return reshape(broadcast_to(reshape(x, apart), wide), target)


def repeat(x: Var, count: int, axis: int) -> Var:
    """Each element along `axis` `count` times in a row. Any element type."""
    from megbrain_py.ops.reduce import broadcast_to

    at = axis_of("repeat", x, axis)
    if count < 0:
        raise graph_error("repeat", x, f"count must not be negative, is {count}")
    before, n, after = x.shape[:at], x.shape[at], x.shape[at + 1 :]
    wide = broadcast_to(reshape(x, [*before, n, 1, *after]), [*before, n, count, *after])
    return reshape(wide, [*before, n * count, *after])
