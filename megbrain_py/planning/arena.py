"""Schedules whose arena, and not only their live bytes, keeps within a budget."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from megbrain_py.planning.memplan import MemoryGraph
from megbrain_py.planning.recompute import LIMITS, Effort, Planner, Progress, Schedule

ROUNDS = 5  # of planning again when offsets need more than the budget

T = TypeVar("T")


@dataclass(frozen=True)
class Arranged(Generic[T]):
    """Runs with a place for everything: `arena` bytes, base tensors included, and the places."""

    arena: int
    places: T


Arrange = Callable[[Sequence[int], int], "Arranged[T] | None"]


@dataclass(frozen=True)
class Fitted(Generic[T]):
    """The answer for one budget. `arranged` is None when nothing was found that fits; then
    `least` has the smallest arena that was reached, if any schedule could be placed."""

    budget: int
    schedule: Schedule
    arranged: Arranged[T] | None
    least: Arranged[T] | None = None


def fit_arena(
    graph: MemoryGraph,
    budgets: Sequence[int],
    effort: Effort,
    progress: Progress,
    arrange: Arrange[T],
    seeds: Sequence[Sequence[int]] = (),
) -> list[Fitted[T]]:
    """For each budget the cheapest schedule found whose arena keeps within it.

    seeds: sequences of runs that are known beforehand.

    arrange(runs, budget): offsets for a sequence of runs, if possible within the budget; None when
    the runs cannot be used. Over the budgets of one call more bytes never cost more.
    """
    if not budgets:
        return []
    planner = Planner(graph, LIMITS[effort], progress, seeds)
    found: dict[int, Fitted[T]] = {}
    best: Fitted[T] | None = None  # at a smaller budget: fits here too
    for budget in sorted(set(budgets)):
        fitted = _fit(planner, budget, progress, arrange)
        if best is not None and _dearer(fitted, best):
            fitted = _reuse(best, fitted)
        found[budget] = fitted
        best = fitted if fitted.arranged is not None else best
    return [found[budget] for budget in budgets]


def _fit(planner: Planner, budget: int, progress: Progress, arrange: Arrange[T]) -> Fitted[T]:
    """Plan, place; where the arena is too high, plan again with less by what was lost."""
    allowed = budget
    first = planner.at(allowed)
    schedule, seconds = first, first.seconds
    for attempt in range(ROUNDS):
        if schedule.runs is None:
            break
        progress(f"budget {budget:,}: offsets, round {attempt + 1}")
        arranged = arrange(schedule.runs, budget)
        if arranged is not None and arranged.arena <= budget:
            return Fitted(budget, _answer(first, schedule, budget, seconds), arranged)
        lost = 0 if arranged is None else arranged.arena - budget
        allowed -= max(lost, allowed // 200, 1)
        schedule = planner.at(allowed)
        seconds += schedule.seconds
    # From a planner that has seen no other budget: so the least arena is the same at every budget.
    smallest = Planner(planner.graph, planner.limits, progress, planner.seeds).smallest()
    arranged = arrange(smallest.runs, budget) if smallest.runs is not None else None
    if arranged is not None and arranged.arena <= budget:
        return Fitted(budget, _answer(first, smallest, budget, seconds), arranged)
    refused = dataclasses.replace(
        first, runs=None, cost=None, peak=None, lower_bound=None, seconds=seconds
    )
    return Fitted(budget, refused, None, arranged)


def _answer(first: Schedule, chosen: Schedule, budget: int, seconds: float) -> Schedule:
    """The bound is that of the whole budget: what fragmentation costs is in the gap."""
    bound = chosen.lower_bound if first.lower_bound is None else first.lower_bound
    return dataclasses.replace(chosen, budget=budget, lower_bound=bound, seconds=seconds)


def _dearer(fitted: Fitted[T], best: Fitted[T]) -> bool:
    cost, least = fitted.schedule.cost, best.schedule.cost
    return cost is None or (least is not None and cost > least)


def _reuse(best: Fitted[T], fitted: Fitted[T]) -> Fitted[T]:
    """The schedule of a smaller budget as the answer for a larger one."""
    bound = fitted.schedule.lower_bound
    cost = best.schedule.cost
    if bound is None:
        bound = best.schedule.lower_bound
    if bound is not None and cost is not None:
        bound = min(bound, cost)
    schedule = dataclasses.replace(
        best.schedule, budget=fitted.budget, lower_bound=bound, seconds=fitted.schedule.seconds
    )
    return Fitted(fitted.budget, schedule, best.arranged)
