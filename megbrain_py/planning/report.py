"""What `megbrain plan` writes for a schedule, replayed first; with offsets where they are asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from megbrain_py.planning.arena import Arranged, Fitted, fit_arena
from megbrain_py.planning.memplan import MemoryGraph, to_json
from megbrain_py.planning.offsets import Placement, place_events
from megbrain_py.planning.recompute import Effort, Progress, Schedule, events
from megbrain_py.planning.replay import replay


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
    as_json = to_json(graph)

    def arrange(runs: Sequence[int], budget: int) -> Arranged[Placement]:
        placed = place_events(as_json, events(graph, runs), budget - graph.base_bytes)
        return Arranged(placed.height + graph.base_bytes, placed)

    return [_entry(graph, one) for one in fit_arena(graph, budgets, effort, progress, arrange)]


def _entry(graph: MemoryGraph, fitted: Fitted[Placement]) -> dict[str, Any]:
    entry = report(graph, fitted.schedule)
    if fitted.arranged is None:
        return {**entry, "arena": None}
    happens = _with_places(graph, entry["events"], fitted.arranged.places)
    return {**entry, "arena": fitted.arranged.arena, "events": happens}


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
