"""What `megbrain plan` writes for a schedule, replayed first; with offsets where they are asked."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from megbrain_py.planning.memplan import MemoryGraph, to_json
from megbrain_py.planning.offsets import Placement, place_events
from megbrain_py.planning.recompute import Effort, Progress, Schedule, events, plan
from megbrain_py.planning.replay import replay

ROUNDS = 5  # of planning again when offsets need more than the budget


def report(graph: MemoryGraph, schedule: Schedule) -> dict[str, Any]:
    """The entry of one (graph, budget); AssertionError when the replayer disagrees: our mistake."""
    happens = [] if schedule.runs is None else events(graph, schedule.runs)
    if schedule.runs is not None:
        seen = replay(graph, happens)
        assert seen.peak == schedule.peak, "the replayer finds another peak"
        assert seen.peak <= schedule.budget, "the plan exceeds its budget"
    return {
        "name": graph.name,
        "budget": schedule.budget,
        "status": "ok" if schedule.feasible else "infeasible",
        "least_feasible": schedule.least_feasible,
        "limited_by": graph.tasks[schedule.limiting].name if schedule.limiting >= 0 else "keep",
        "cost": _number(schedule.cost),
        "base_cost": _number(schedule.base_cost),
        "peak": schedule.peak,
        "lower_bound": schedule.lower_bound,
        "gap": schedule.gap,
        "seconds": schedule.seconds,
        "events": happens,
    }


def plan_with_arena(
    graph: MemoryGraph, budgets: Sequence[int], effort: Effort, progress: Progress
) -> list[dict[str, Any]]:
    """The same with offsets: the arena, and not the live bytes, keeps within each budget."""
    found: dict[int, dict[str, Any]] = {}
    best: dict[str, Any] | None = None  # at a smaller budget: fits here too
    for budget in sorted(set(budgets)):
        entry = _with_arena(graph, budget, effort, progress)
        if best is not None and (entry["cost"] is None or entry["cost"] > best["cost"]):
            bound, seconds = entry["lower_bound"], entry["seconds"]
            entry = {**best, "budget": budget, "seconds": seconds}
            entry["lower_bound"] = min(best["cost"], bound or best["lower_bound"])
            entry["gap"] = best["cost"] / entry["lower_bound"] - 1 if best["cost"] else 0.0
        found[budget] = entry
        best = entry if entry["status"] == "ok" else best
    return [found[budget] for budget in budgets]


def _with_arena(
    graph: MemoryGraph, budget: int, effort: Effort, progress: Progress
) -> dict[str, Any]:
    """Plan, place; where the arena is too high, plan again with less by what was lost."""
    allowed = budget
    seconds = 0.0
    first: Schedule | None = None
    for attempt in range(ROUNDS):
        (schedule,) = plan(graph, [allowed], effort, progress)
        first = first or schedule
        seconds += schedule.seconds
        if schedule.runs is None:
            break
        progress(f"budget {budget:,}: offsets, round {attempt + 1}")
        happens = events(graph, schedule.runs)
        placed = place_events(to_json(graph), happens, budget - graph.base_bytes)
        arena = placed.height + graph.base_bytes
        if arena <= budget:
            # The bound is that of the whole budget: what fragmentation costs is in the gap.
            bound = first.lower_bound
            bound = schedule.lower_bound if bound is None else bound
            entry = report(
                graph,
                dataclasses.replace(schedule, budget=budget, lower_bound=bound, seconds=seconds),
            )
            return {**entry, "arena": arena, "events": _with_places(graph, happens, placed)}
        allowed -= max(arena - budget, allowed // 200)
    assert first is not None
    refused = dataclasses.replace(
        first, runs=None, cost=None, peak=None, lower_bound=None, seconds=seconds
    )
    return {**report(graph, refused), "arena": None}


def _with_places(
    graph: MemoryGraph, happens: list[list[Any]], placed: Placement
) -> list[list[Any]]:
    """The events with ["place", tensor, offset] before the run that makes the tensor.

    The base tensors' bytes lie below the arena's.
    """
    where: dict[int, list[list[Any]]] = {}
    for (event, tensor), offset in placed.offsets.items():
        where.setdefault(event, []).append(["place", tensor, graph.base_bytes + offset])
    result: list[list[Any]] = []
    for position, happening in enumerate(happens):
        result += [*where.get(position, []), happening]
    return result


def _number(value: float | None) -> float | int | None:
    """Whole costs are written as integers."""
    return int(value) if value is not None and value == int(value) else value
