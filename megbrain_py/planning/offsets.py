"""From a schedule of runs and frees to offsets: where everything lies, and where memory is lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from megbrain_py.planning.memory import SEARCH, Ints, max_live, place


@dataclass(frozen=True)
class Rectangles:
    """What a schedule keeps in memory, over positions in its list of events.

    `owners[r]`: the (event, tensor) pairs whose bytes rectangle r holds one after the other, or
    none for the workspace of the run at `lower[r]`. `in_base`: those that took over a base
    tensor's bytes, which lie outside of the arena's rectangles.
    """

    lower: Ints
    upper: Ints
    size: Ints
    owners: tuple[tuple[tuple[int, int], ...], ...]
    in_base: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Window:
    """Events [first, last) at which something lies above the budget.

    `over`: by how many bytes at most; `lost`: the most bytes below the top that nothing uses. A
    plan whose live bytes are lower by `over` in this window has a good chance to fit.
    """

    first: int
    last: int
    over: int
    lost: int


@dataclass(frozen=True)
class Placement:
    """Offsets of a schedule. `height` and `lower_bound` are without the base tensors' bytes.

    `offsets[event, tensor]`: where the tensor lies that the run at this event makes; one that was
    made in place lies where its predecessor lay. `workspaces[event]`: where a run's workspace
    lies. At each event: `live`, the bytes in use; `tops`, the highest byte in use.
    """

    height: int
    lower_bound: int
    optimal: bool
    offsets: Mapping[tuple[int, int], int]
    workspaces: Mapping[int, int]
    live: Ints
    tops: Ints

    def windows(self, budget: int) -> tuple[Window, ...]:
        """The times at which the arena exceeds `budget`, the worst first."""
        over = np.concatenate(([False], self.tops > budget, [False]))
        edges = np.flatnonzero(over[1:] != over[:-1]).reshape(-1, 2)
        found = [
            Window(
                int(a), int(b), int(self.tops[a:b].max()) - budget,
                int((self.tops[a:b] - self.live[a:b]).max()),
            )
            for a, b in edges
        ]  # fmt: skip
        return tuple(sorted(found, key=lambda w: (-w.over, w.first)))


def rectangles(graph: Mapping[str, Any], events: Sequence[Sequence[Any]]) -> Rectangles:
    """The rectangles of a schedule of a `memplan-v1` graph; the schedule must be a valid one.

    Base tensors are not among them: their bytes are always in use, beside the arena. An output
    taken in place stays in its input's rectangle, which is as large as the larger of the two.
    """
    sizes: Sequence[int] = graph["tensor_bytes"]
    base = set(graph["base"])
    lower: list[int] = []
    upper: list[int] = []
    size: list[int] = []
    owners: list[list[tuple[int, int]]] = []
    in_base: list[tuple[int, int]] = []
    holder: dict[int, int | None] = dict.fromkeys(base)  # tensor -> rectangle; None: base bytes

    def begin(event: int, bytes: int, owner: list[tuple[int, int]]) -> int:
        lower.append(event)
        upper.append(-1)
        size.append(bytes)
        owners.append(owner)
        return len(lower) - 1

    for event, (kind, number, *rest) in enumerate(events):
        if kind == "free":
            held = holder.pop(number)
            if held is not None:
                upper[held] = event
            continue
        if kind != "run":
            continue
        op = graph["ops"][number]
        taken = set(rest[0]) if rest else set()
        # Of several permits for one output the first counts: an event names the output only.
        source = {o: i for o, i in reversed(op.get("inplace", ())) if o in taken}
        for tensor in op["out"]:
            if tensor in holder:
                continue
            if tensor not in source:
                holder[tensor] = begin(event, sizes[tensor], [(event, tensor)])
                continue
            held = holder[tensor] = holder.pop(source[tensor])
            if held is None:
                in_base.append((event, tensor))
            else:
                owners[held].append((event, tensor))
                size[held] = max(size[held], sizes[tensor])
        if op.get("ws", 0):
            upper[begin(event, op["ws"], [])] = event + 1
    ends = [len(events) if u < 0 else u for u in upper]
    return Rectangles(
        np.array(lower, np.int64),
        np.array(ends, np.int64),
        np.array(size, np.int64),
        tuple(tuple(o) for o in owners),
        tuple(in_base),
    )


def place_events(
    graph: Mapping[str, Any],
    events: Sequence[Sequence[Any]],
    budget: int = 0,
    alignment: int = 1,
    work: int = SEARCH,
) -> Placement:
    """Offsets for a schedule of a `memplan-v1` graph, if possible within `budget`.

    `budget` is without the base tensors: the arena's whole budget less their bytes. The search
    ends when it is kept, or no placement is lower, or `work` is spent (`memory.place`); the result
    is the best one found, and `height > budget` says that it does not fit: `windows(budget)` are
    the times for which to plan with less live bytes.
    """
    found = rectangles(graph, events)
    size = -(-found.size // alignment) * alignment
    offsets, height, optimal = place(found.lower, found.upper, size, budget, work)
    live = np.zeros(len(events) + 1, np.int64)
    np.add.at(live, found.lower, size)
    np.subtract.at(live, found.upper, size)
    tops = np.zeros(len(events), np.int64)
    for r in np.argsort(offsets + size, kind="stable"):  # the highest writes last
        tops[found.lower[r] : found.upper[r]] = offsets[r] + size[r]
    return Placement(
        height,
        max_live(found.lower, found.upper, size),
        optimal,
        {owner: int(offsets[r]) for r, held in enumerate(found.owners) for owner in held},
        {int(found.lower[r]): int(offsets[r]) for r, held in enumerate(found.owners) if not held},
        np.cumsum(live)[:-1],
        tops,
    )
