"""A program under a byte budget: what is kept, what is made again, where everything lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from megbrain_py.lowering.late_waits import with_late_waits
from megbrain_py.lowering.memory_graph import (
    MemoryProblem,
    can_run,
    runs_of,
    without_stale_reads,
)
from megbrain_py.lowering.place import Allocate, Placed, place
from megbrain_py.lowering.program import Step, Storage
from megbrain_py.lowering.runs import Runs, in_place
from megbrain_py.planning import memory
from megbrain_py.planning.arena import Arranged, Fitted, fit_arena
from megbrain_py.planning.memory import Allocation, Buffer
from megbrain_py.planning.recompute import Effort, Progress, events
from megbrain_py.planning.replay import replay

_ROUNDS = 4  # of giving values memory of their own


@dataclass(frozen=True)
class Arrangement:
    """Runs and their places."""

    runs: Runs
    placed: Placed


def plan_within(
    problem: MemoryProblem,
    budgets: Sequence[int],
    effort: Effort,
    progress: Progress,
    order: Sequence[Step],
) -> list[Fitted[Arrangement]]:
    """For each budget, in bytes of the scratch arena, the cheapest schedule that was found.

    order: of the steps, a good one without recomputation.
    """
    asynchronous = any(step.asynchronous for step in problem.program.steps)

    def arrange(runs: Sequence[int], budget: int) -> Arranged[Arrangement] | None:
        repaired = without_stale_reads(problem, runs)
        if not can_run(problem.graph, repaired):
            return None  # an update stood before others that need it
        happens = events(problem.graph, repaired)
        replay(problem.graph, happens)  # which shares nothing with the planner
        made = runs_of(problem, happens)

        def allocate(buffers: Sequence[Buffer]) -> Allocation:
            return memory.allocate(buffers, wanted=budget)

        chosen, placed = _in_place_within(made, budget, allocate)
        overlaps = asynchronous and placed.height <= budget
        for limit in (budget, placed.lower_bound) if overlaps else ():
            later, moved = _in_place_within(with_late_waits(made, limit), budget, allocate)
            if moved.height <= budget:
                return Arranged(moved.height, Arrangement(later, moved))
        return Arranged(placed.height, Arrangement(chosen, placed))

    number = {step: t for t, step in enumerate(problem.program.steps, 1)}
    seed = [0, *(number[step] for step in order)]
    return fit_arena(problem.graph, budgets, effort, progress, arrange, [seed])


def _in_place_within(runs: Runs, budget: int, allocate: Allocate) -> tuple[Runs, Placed]:
    """What runs in place takes less time and fewer bytes, but lives longer, which is harder to
    place: what is made beside a value that ends above the budget gets memory of their own again."""
    apart: set[Storage] = set()
    for _ in range(_ROUNDS):
        chosen = in_place(runs, apart)
        placed = place(chosen, allocate)
        if placed.height <= budget:
            return chosen, placed
        high = [placed.lives[s] for s, at in placed.offsets.items() if at + s.size > budget]
        for t, (before, after) in enumerate(zip(runs.runs, chosen.runs, strict=True)):
            if any(begin <= t <= end for begin, end in high):
                moved = zip(before.outputs, after.outputs, strict=True)
                apart.update(own for own, other in moved if own is not other)
    return runs, place(runs, allocate)
