"""Schedules of least cost under a byte budget: what to keep, what to make again, and a bound."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from megbrain_py import _planner
from megbrain_py.planning.memplan import MemoryGraph, Task
from megbrain_py.planning.stages import solve_stages

Effort = Literal["fast", "default", "optimal"]
Progress = Callable[[str], None]


QUICK_SLOTS, QUICK_WORK = 200, 1_000_000  # for the search of the least feasible budget


@dataclass(frozen=True)
class Limits:
    """How much is tried, in steps of the search and not in seconds, so that results repeat."""

    exact_states: int  # of the search over resident sets
    exact_tensors: int
    work: int  # steps of eviction
    order_tries: int
    slices: int  # of the lower bound
    prices: int
    slots: int  # of memory in the chain of blocks
    solver_seconds: float  # of the integer programme, where its package is installed


LIMITS: dict[Effort, Limits] = {
    "fast": Limits(20_000, 20, 1_000_000, 50, 6, 5, 100, 0),
    "default": Limits(300_000, 26, 60_000_000, 300, 16, 8, 700, 0),
    "optimal": Limits(5_000_000, 64, 1_500_000_000, 5_000, 240, 40, 1_000, 60),
}


@dataclass(frozen=True)
class Schedule:
    """One answer: a schedule with its proof, or why there is none.

    `runs` are tasks of the graph; `least_feasible` is the least budget a schedule is known for;
    `limiting` is the task that sets the least peak.
    """

    budget: int
    runs: tuple[int, ...] | None
    cost: float | None
    peak: int | None
    base_cost: float
    lower_bound: float | None
    least_feasible: int
    limiting: int
    seconds: float

    @property
    def feasible(self) -> bool:
        return self.runs is not None

    @property
    def gap(self) -> float | None:
        """No schedule is cheaper by more than this share of the bound."""
        if self.cost is None or self.lower_bound is None:
            return None
        return 0.0 if self.lower_bound <= 0 else max(0.0, self.cost / self.lower_bound - 1)


def native(graph: MemoryGraph, only: Sequence[int] | None = None) -> _planner.Graph:
    """The C++ side of a graph, or of some of its tasks.

    Of several permits for one output the first counts: an event names the output only.
    """
    tasks = [graph.tasks[o] for o in (range(len(graph.tasks)) if only is None else only)]
    return _planner.Graph(
        sizes=list(graph.sizes),
        base=sorted(graph.base),
        keep=sorted(graph.keep),
        tasks=[
            (
                t.cost,
                t.workspace,
                list(t.inputs),
                list(t.outputs),
                _first_permits(t),
                t.backward,
                t.once,
            )
            for t in tasks
        ],
    )


def _first_permits(task: Task) -> list[tuple[int, int]]:
    first: dict[int, int] = {}
    for out, taken in task.permits:
        first.setdefault(out, taken)
    return list(first.items())


def vanilla_peak(graph: MemoryGraph) -> int:
    """The peak in program order when every tensor goes after its last reader."""
    return _planner.peak(native(graph), list(range(len(graph.tasks))))


def measure(graph: MemoryGraph, runs: Sequence[int]) -> tuple[float, int]:
    """Cost and peak of a sequence of runs when each tensor goes after its last reader."""
    planner = native(graph)
    return _planner.cost(planner, list(runs)), _planner.peak(planner, list(runs))


def events(graph: MemoryGraph, runs: Sequence[int]) -> list[list[Any]]:
    """The schedule as `memplan-v1` events: a tensor is freed right after its last reader."""
    found = _planner.events(native(graph), list(runs))
    return [["run", n, taken] if is_run else ["free", n] for is_run, n, taken in found]


def lower_bound(graph: MemoryGraph, budget: int, effort: Effort = "default") -> float | None:
    """No schedule within `budget` costs less; None: none fits. Holds for every order."""
    planner, limits = native(graph, graph.needed), LIMITS[effort]
    if budget < _planner.least_peak_bound(planner)[0]:
        return None
    cost, feasible, _ = _planner.slice_bound(planner, budget, limits.slices, limits.prices)
    return cost if feasible else None


def plan(
    graph: MemoryGraph,
    budgets: Sequence[int],
    effort: Effort = "default",
    progress: Progress | None = None,
) -> list[Schedule]:
    """A schedule for each budget; over the budgets of one call, more bytes never cost more."""
    planner = Planner(graph, LIMITS[effort], progress or (lambda _: None))
    found = {budget: planner.at(budget) for budget in sorted(set(budgets))}
    least = min((k.peak for k in planner.known), default=0)
    for budget, schedule in found.items():  # the later ones may need less than was known then
        if not schedule.feasible and schedule.least_feasible > least:
            found[budget] = replace(schedule, least_feasible=least)
    return [found[budget] for budget in budgets]


@dataclass
class _Known:
    """A schedule found before."""

    runs: list[int]
    cost: float
    peak: int


@dataclass
class Planner:
    """One graph; its budgets share what was found."""

    graph: MemoryGraph
    limits: Limits
    progress: Progress
    seeds: Sequence[Sequence[int]] = ()  # sequences of runs that are known beforehand
    known: list[_Known] = field(default_factory=list)
    orders: list[list[int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        # Only tasks that `keep` needs: a schedule may leave out the others.
        self.needed = self.graph.needed
        self.native = native(self.graph, self.needed)
        self.base_cost = self.native.cost()
        self.floor, self.limiting = _planner.least_peak_bound(self.native)
        small = len(self.graph.sizes) - len(self.graph.base) <= self.limits.exact_tensors
        self.is_small = small and len(self.graph.sizes) <= 64
        self._find_orders()
        place = {task: o for o, task in enumerate(self.needed)}
        for runs in self.seeds:
            self._remember([place[task] for task in runs if task in place])

    def at(self, budget: int) -> Schedule:
        started = time.perf_counter()
        bound: float | None = self.base_cost
        best = self._cheapest_known(budget)
        if budget < self.floor:
            bound = None
        elif best is None or best.cost > self.base_cost:
            bound = self._search(budget)
            best = self._cheapest_known(budget)
        least = self._least_feasible() if best is None else min(k.peak for k in self.known)
        return self._schedule(budget, best, bound, least, started)

    def smallest(self) -> Schedule:
        """The schedule of the least peak, by a quick search: the same for a planner made anew."""
        started = time.perf_counter()
        self._least_feasible()
        best = min(self.known, key=lambda k: (k.peak, k.cost))
        return self._schedule(best.peak, best, None, best.peak, started)

    def _schedule(
        self, budget: int, best: _Known | None, bound: float | None, least: int, started: float
    ) -> Schedule:
        return Schedule(
            budget=budget,
            runs=None if best is None else tuple(self.needed[o] for o in best.runs),
            cost=None if best is None else best.cost,
            peak=None if best is None else best.peak,
            base_cost=self.base_cost,
            lower_bound=bound if bound is None or best is None else min(bound, best.cost),
            least_feasible=least,
            limiting=self.needed[self.limiting] if self.limiting >= 0 else -1,
            seconds=time.perf_counter() - started,
        )

    def _cheapest_known(self, budget: int) -> _Known | None:
        fitting = [k for k in self.known if k.peak <= budget]
        return min(fitting, key=lambda k: (k.cost, k.peak), default=None)

    def _remember(self, runs: list[int]) -> None:
        if runs or not self.needed:
            cost, peak = _planner.cost(self.native, runs), _planner.peak(self.native, runs)
            self.known.append(_Known(runs, cost, peak))

    def _find_orders(self) -> None:
        """Every order that was found is a schedule without recomputation."""
        orders = [_planner.order(self.native, rule) for rule in range(5)]
        tries = self.limits.order_tries * 1_000 // max(1_000, len(self.needed))
        orders = [_planner.lower_peak(self.native, o, self.floor, tries) for o in orders]
        for order in orders:
            self._remember(order)
        program, early, *others = orders

        def peak(order: list[int]) -> int:
            return _planner.peak(self.native, order)

        first = min(program, early, key=peak)
        others.sort(key=peak)
        self.orders = [first] + [order for order in others[:2] if order != first]

    def _search(self, budget: int) -> float | None:
        """Adds schedules to `known`; returns a bound on the cost of any, None: there is none."""
        self.progress(f"budget {budget:,}: lower bound")
        bound, feasible, _ = _planner.slice_bound(
            self.native, budget, self.limits.slices, self.limits.prices
        )
        if not feasible:
            return None
        if self.is_small:
            self.progress(f"budget {budget:,}: exact search")
            proof, runs, least = _planner.exact(
                self.native, budget, self.limits.exact_states, float("inf")
            )
            if proof == "infeasible":
                return None
            bound = max(bound, least)
            if proof == "optimal":
                self._remember(runs)
                return bound
        for candidate in self._candidates(budget):
            self._remember(candidate)
            found = self._cheapest_known(budget)
            if found is not None and found.cost <= bound:
                break
        return bound

    def _candidates(self, budget: int) -> Iterator[list[int]]:
        self.progress(f"budget {budget:,}: chain of blocks")
        yield _planner.chain(self.native, self.orders[0], budget, self.limits.slots)
        self.progress(f"budget {budget:,}: eviction")
        start = self._cheapest_known(budget)
        runs = [] if start is None else start.runs
        yield _planner.evict_search(self.native, self.orders, budget, runs, self.limits.work)
        if self.limits.solver_seconds:
            yield self._solve(budget)

    def _solve(self, budget: int) -> list[int]:
        self.progress(f"budget {budget:,}: integer programme")
        best = self._cheapest_known(budget)
        order = [self.needed[o] for o in self.orders[0]]
        below = float("inf") if best is None else best.cost
        runs = solve_stages(self.graph, order, budget, below, self.limits.solver_seconds)
        place = {task: o for o, task in enumerate(self.needed)}
        return [place[task] for task in runs]

    def _least_feasible(self) -> int:
        """The least budget for which a quick search finds a schedule, by bisection."""
        low, high = self.floor - 1, min(k.peak for k in self.known)
        while high - low > (1 if self.is_small else max(1, high // 200)):
            middle = (low + high) // 2
            self.progress(f"least feasible budget: trying {middle:,}")
            if self.is_small:
                self._search(middle)
            else:
                self._remember(_planner.chain(self.native, self.orders[0], middle, QUICK_SLOTS))
                self._remember(
                    _planner.evict_search(self.native, self.orders, middle, [], QUICK_WORK)
                )
            fitting = [k.peak for k in self.known if k.peak <= middle]
            if fitting:
                high = min(fitting)
            else:
                low = middle
        return high
