"""What others do about recomputation, as sequences of runs: segments (Chen), MegEngine's search."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from megbrain_py.planning.memplan import MemoryGraph
from megbrain_py.planning.recompute import measure

POOL, ROUNDS = 20, 30  # of the genetic search


@dataclass(frozen=True)
class Point:
    """What one setting of a method needs."""

    method: str
    cost: float
    peak: int


def vanilla(graph: MemoryGraph) -> Point:
    """Every task once, in program order."""
    return Point("vanilla", *measure(graph, range(len(graph.tasks))))


def segments(graph: MemoryGraph) -> Iterator[Point]:
    """Chen et al. 2016: k equal segments, the tensors between them are kept; sqrt(n) and others."""
    forward = _forward(graph)
    counts = {round(math.sqrt(len(forward)))} | {round(1.5**i) for i in range(1, 20)}
    for count in sorted(c for c in counts if 1 < c <= len(forward)):
        cuts = [i * len(forward) // count for i in range(1, count)]
        yield Point(f"segments({count})", *measure(graph, segment_runs(graph, cuts)))


def thresholds(graph: MemoryGraph, seed: int = 0) -> Iterator[Point]:
    """MegEngine: cut where a block's bytes pass a threshold; then a genetic search over the cuts.

    Its aim is the least peak; every point that it looks at is given.
    """
    forward, rng = _forward(graph), random.Random(seed)
    total = sum(graph.sizes[t] for o in forward for t in graph.tasks[o].outputs)
    pool: list[tuple[int, list[int]]] = []

    def look(cuts: list[int]) -> Point:
        point = Point("threshold", *measure(graph, segment_runs(graph, cuts)))
        pool.append((point.peak, cuts))
        return point

    for i in range(POOL):
        yield look(_cut_by_bytes(graph, forward, total * (i + 1) / (2 * POOL)))
    for _ in range(ROUNDS):
        pool.sort(key=lambda item: item[0])
        del pool[POOL:]
        first, second = (rng.choice(pool)[1] for _ in range(2))
        where = rng.randrange(len(forward))
        cuts = {c for c in first if c < where} | {c for c in second if c >= where}
        cuts = {min(len(forward) - 1, max(1, c + rng.choice((0, 0, -1, 1)))) for c in cuts}
        yield look(sorted(cuts))


def cheapest(points: Sequence[Point], budget: int) -> Point | None:
    """The cheapest point that fits."""
    return min((p for p in points if p.peak <= budget), key=lambda p: p.cost, default=None)


def segment_runs(graph: MemoryGraph, cuts: Sequence[int]) -> list[int]:
    """Forward once; a segment runs again when the backward pass first reads what it has dropped.

    What forward tasks of later segments read is kept; a segment's other tensors are not.
    """
    forward = _forward(graph)
    segment = {o: sum(c <= at for c in cuts) for at, o in enumerate(forward)}
    last = max(segment.values(), default=0)
    have = set(graph.base)
    for o in forward:
        for t in graph.tasks[o].outputs:
            read_on = any(segment.get(u, segment[o]) != segment[o] for u in graph.users[t])
            if read_on or segment[o] == last:
                have.add(t)
    runs = list(forward)
    for o in range(len(forward), len(graph.tasks)):
        missing = [t for t in graph.tasks[o].inputs if t not in have]
        for number in sorted({segment[graph.maker[t]] for t in missing}):
            for again in (f for f in forward if segment[f] == number):
                if any(t not in have for t in graph.tasks[again].outputs):
                    runs.append(again)
                    have.update(graph.tasks[again].outputs)
        runs.append(o)
        have.update(graph.tasks[o].outputs)
    return runs


def _forward(graph: MemoryGraph) -> list[int]:
    turn = next((o for o, task in enumerate(graph.tasks) if task.backward), len(graph.tasks))
    return list(range(turn))


def _cut_by_bytes(graph: MemoryGraph, forward: Sequence[int], threshold: float) -> list[int]:
    cuts, held = [], 0
    for at, o in enumerate(forward):
        held += sum(graph.sizes[t] for t in graph.tasks[o].outputs)
        if held > threshold and at > 0:
            cuts.append(at)
            held = 0
    return cuts
