"""pareto(...): the time of one function against the memory that it may take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megbrain_py import ranks
from megbrain_py.compiler import Outputs, Updates, optimised, plans_within
from megbrain_py.errors import CompileError
from megbrain_py.graph import Graph, Var
from megbrain_py.lowering import MemoryBudget, Refused
from megbrain_py.plan import BudgetRecord, Plan
from megbrain_py.planning.recompute import Effort
from megbrain_py.planning.sizes import show_size
from megbrain_py.printing import columns

_SHARES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)


@dataclass(frozen=True)
class Point:
    """A budget, in bytes of the scratch arena, and its plan; None where none was found."""

    budget: int
    plan: Plan | None


@dataclass(frozen=True)
class Tradeoff:
    """Time against memory: points with the largest budget first. `print` it, `to_json`, `draw`.

    plain: the plan that makes nothing twice. least: bytes of the smallest scratch arena that was
    found, None when no budget was that small.
    """

    plain: Plan
    points: tuple[Point, ...]
    least: int | None

    def __str__(self) -> str:
        plain, record = self.plain, record_of(self.plain)
        head = (
            f"time against memory on {plain.device}: {len(plain.instructions)} instructions, "
            f"effort {record.effort}; each budget holds {show_size(plain.state_bytes)} of "
            "parameters and constants"
        )
        lines = [head, *columns([_COLUMNS, *(self._row(point) for point in self.points)])]
        if any(point.plan is None for point in self.points):
            lines.append(self._refused())
        return "\n".join(lines)

    def _row(self, point: Point) -> tuple[str, ...]:
        budget = show_size(max(point.budget + self.plain.state_bytes, 0))
        share = f"{self._share(point.budget):.1%}"
        if point.plan is None:
            return budget, share, "cannot be kept"
        record = record_of(point.plan)
        least, gap = record.least_extra, record.gap
        return (
            budget,
            share,
            show_size(point.plan.scratch_bytes),
            f"{record.seconds:.3g} s",
            f"{record.extra:+.1%}",
            "?" if least is None else f"{least:+.1%}",
            "?" if gap is None else f"{gap:.1%}",
            str(len(point.plan.memory.again)),
        )

    def _refused(self) -> str:
        if self.least is None:
            return "no schedule was found for some budgets"
        least = self.least + self.plain.state_bytes
        return f"the least budget that can be kept is {show_size(least)} ({least} bytes)"

    def _share(self, budget: int) -> float:
        return max(budget, 0) / max(self.plain.scratch_bytes, 1)

    def to_json(self) -> dict[str, Any]:
        """Everything, in plain numbers; bytes of the arena unless the name says otherwise."""
        plain = self.plain
        return {
            "device": plain.device,
            "effort": record_of(plain).effort,
            "instructions": len(plain.instructions),
            "state_bytes": plain.state_bytes,
            "plain_bytes": plain.scratch_bytes,
            "plain_seconds": record_of(plain).vanilla_seconds,
            "least_bytes": self.least,
            "points": [self._entry(point) for point in self.points],
        }

    def _entry(self, point: Point) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "total_budget_bytes": point.budget + self.plain.state_bytes,
            "budget_bytes": point.budget,
            "share": self._share(point.budget),
            "feasible": point.plan is not None,
        }
        if point.plan is None:
            return entry
        record = record_of(point.plan)
        return entry | {
            "arena_bytes": point.plan.scratch_bytes,
            "seconds": record.seconds,
            "extra": record.extra,
            "bound_seconds": record.bound,
            "gap": record.gap,
            "made_again": len(point.plan.memory.again),
            "planning_seconds": record.planning_seconds,
        }

    def draw(self, path: str | Path) -> None:
        """A PNG: additional time over the budget, what is proven impossible, what was not found."""
        from megbrain_py.viz.tradeoff import draw_tradeoff  # from above: only pictures need it

        draw_tradeoff(self.to_json(), path)


_COLUMNS = ("budget", "share", "arena", "step", "extra", "no less than", "gap", "made again")


def pareto(
    outputs: Outputs | Var | Sequence[Var | str],
    *,
    inputs: Sequence[Var] | None = None,
    updates: Updates | None = None,
    budgets: Sequence[MemoryBudget] | None = None,
    device: str = "cpu",
    effort: Effort = "default",
) -> Tradeoff:
    """Plan one function for several budgets, so that one can be chosen; nothing is loaded or run.

    outputs, inputs, updates, device, effort: as in `compile`.
    budgets: each as `memory_budget` there; one that cannot be kept is a point without a plan. By
        default shares of the arena in steps of a tenth down to the least that can be kept.
    More bytes never cost more time. CompileError for what is no budget.
    """
    if device == "cpu":
        device = ranks.current().device
    if budgets is not None and (isinstance(budgets, str) or not len(budgets)):
        raise CompileError(f"pareto: expected a list of budgets, found {budgets!r}")
    graph, _ = optimised(outputs, inputs, updates or {}, device)
    return tradeoff(graph, budgets, device, effort)


def tradeoff(
    graph: Graph, budgets: Sequence[MemoryBudget] | None, device: str, effort: Effort
) -> Tradeoff:
    """`pareto` of an optimised graph."""
    least: list[int] = []
    if budgets is None:
        plain, smallest = plans_within(graph, [1.0, 0], device, effort)
        assert isinstance(plain, Plan)
        budgets = [1.0, *_SHARES]
        if isinstance(smallest, Refused) and smallest.least is not None:
            least = [smallest.least]
            budgets = [s for s in (1.0, *_SHARES) if s * plain.scratch_bytes > smallest.least]
            budgets.append(smallest.least + plain.state_bytes)
    plain, *found = plans_within(graph, [1.0, *budgets], device, effort)
    assert isinstance(plain, Plan)
    points: dict[int, Point] = {}
    for one in found:
        if isinstance(one, Plan):
            points[record_of(one).budget] = Point(record_of(one).budget, one)
        else:
            points[one.budget] = Point(one.budget, None)
            least += [] if one.least is None else [one.least]
    ordered = tuple(points[budget] for budget in sorted(points, reverse=True))
    return Tradeoff(plain, ordered, min(least, default=None))


def record_of(plan: Plan) -> BudgetRecord:
    """What planning under a budget found."""
    assert plan.budget is not None
    return plan.budget
