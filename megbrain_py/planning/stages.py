"""A mixed integer programme for recomputation in a fixed order, solved by HiGHS if it is there."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from megbrain_py.planning.memplan import MemoryGraph

_FEASIBLE = 2  # HiGHS's kSolutionStatusFeasible

MOST_TASKS = 100  # the variables grow with the square


def solve_stages(
    graph: MemoryGraph, order: Sequence[int], budget: int, below: float, seconds: float
) -> list[int]:
    """Runs that cost less than `below` with a peak of at most `budget`; empty: none found in time.

    The model of Checkmate (Jain et al. 2020): stage t runs task t of the order for the first time
    and any earlier ones again. In-place takes are not in it, so true peaks may be lower.
    """
    try:
        highspy: Any = importlib.import_module("highspy")
    except ModuleNotFoundError:
        return []
    if len(order) > MOST_TASKS:
        return []
    model = _Model(graph, list(order), budget)
    solver = highspy.Highs()
    solver.setOptionValue("log_to_console", False)
    solver.setOptionValue("output_flag", False)
    solver.setOptionValue("time_limit", seconds)
    solver.setOptionValue("threads", 1)
    solver.passModel(model.linear(highspy, below))
    solver.run()
    values = np.asarray(solver.getSolution().col_value)
    if int(solver.getInfo().primal_solution_status) != _FEASIBLE:
        return []
    return [
        order[i] for t in range(len(order)) for i in range(t + 1) if values[model.runs[t, i]] > 0.5
    ]


@dataclass
class _Model:
    """Variables by number; rows as (lower, upper, {variable: factor})."""

    graph: MemoryGraph
    order: list[int]
    budget: int
    upper: list[float] = field(default_factory=list)
    lower: list[float] = field(default_factory=list)
    whole: list[bool] = field(default_factory=list)
    cost: list[float] = field(default_factory=list)
    rows: list[tuple[float, float, dict[int, float]]] = field(default_factory=list)
    runs: dict[tuple[int, int], int] = field(default_factory=dict)  # (stage, position in order)
    held: dict[tuple[int, int], int] = field(default_factory=dict)  # (stage, tensor): into it

    def __post_init__(self) -> None:
        tasks = [self.graph.tasks[o] for o in self.order]
        self.maker = {t: i for i, task in enumerate(tasks) for t in task.outputs}
        self.readers: dict[int, list[int]] = {t: [] for t in self.maker}
        for i, task in enumerate(tasks):
            for t in task.inputs:
                if t in self.readers:
                    self.readers[t].append(i)
        count = len(tasks)
        for stage in range(count):
            for i in range(stage + 1):
                first = i == stage
                most = 0 if tasks[i].once and not first else 1
                self.runs[stage, i] = self._variable(float(first), most, True, tasks[i].cost)
        for stage in range(1, count + 1):
            for t, made in self.maker.items():
                if made < stage:
                    kept = stage == count and t in self.graph.keep
                    self.held[stage, t] = self._variable(float(kept), 1, True, 0)
        for stage in range(count):
            self._connect(stage)
            self._limit_memory(stage)

    def _variable(self, lower: float, upper: float, whole: bool, cost: float) -> int:
        self.lower.append(lower)
        self.upper.append(upper)
        self.whole.append(whole)
        self.cost.append(cost)
        return len(self.cost) - 1

    def _row(self, most: float, factors: dict[int, float]) -> None:
        self.rows.append((-np.inf, most, factors))

    def _connect(self, stage: int) -> None:
        """A run finds its inputs; what a stage hands on it had or made."""
        for i in range(stage + 1):
            for t in self.graph.tasks[self.order[i]].inputs:
                if t not in self.maker:
                    continue
                row = {self.runs[stage, i]: 1.0, self.runs[stage, self.maker[t]]: -1.0}
                if (stage, t) in self.held:
                    row[self.held[stage, t]] = -1
                self._row(0, row)
        for t, made in self.maker.items():
            if made > stage:
                continue
            row = {self.held[stage + 1, t]: 1.0, self.runs[stage, made]: -1.0}
            if (stage, t) in self.held:
                row[self.held[stage, t]] = -1
            self._row(0, row)

    def _limit_memory(self, stage: int) -> None:
        """Bytes while each task of the stage runs: carried in, made so far, less freed so far."""
        sizes = self.graph.sizes
        live: dict[int, float] = {}
        for t in self.maker:
            if (stage, t) in self.held:
                live[self.held[stage, t]] = sizes[t]
        room = float(self.budget - self.graph.base_bytes)
        for i in range(stage + 1):
            task = self.graph.tasks[self.order[i]]
            live[self.runs[stage, i]] = sum(sizes[t] for t in task.outputs)
            now = dict(live)
            now[self.runs[stage, i]] += task.workspace
            self._row(room, now)
            for t in task.inputs:
                if t in self.maker:
                    live[self._freed(stage, i, t)] = -sizes[t]

    def _freed(self, stage: int, i: int, t: int) -> int:
        """Whether run i of the stage is the last that needs tensor t."""
        freed = self._variable(0, 1, False, 0)
        self._row(0, {freed: 1.0, self.runs[stage, i]: -1.0})
        self._row(1, {freed: 1.0, self.held[stage + 1, t]: 1.0})
        for later in self.readers[t]:
            if i < later <= stage:
                self._row(1, {freed: 1.0, self.runs[stage, later]: 1.0})
        return freed

    def linear(self, highspy: Any, below: float) -> Any:
        """The programme in the solver's form, with the cost limited to less than `below`."""
        limit = {v: c for v, c in enumerate(self.cost) if c}
        most = below * (1 - 1e-5) if np.isfinite(below) else np.inf
        rows = [*self.rows, (-np.inf, most, limit)]
        lp = highspy.HighsLp()
        lp.num_col_, lp.num_row_ = len(self.cost), len(rows)
        lp.col_cost_ = np.array(self.cost, float)
        lp.col_lower_, lp.col_upper_ = np.array(self.lower), np.array(self.upper, float)
        lp.row_lower_ = np.array([row[0] for row in rows])
        lp.row_upper_ = np.array([row[1] for row in rows])
        lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        lp.a_matrix_.start_ = np.cumsum([0, *(len(row[2]) for row in rows)])
        lp.a_matrix_.index_ = np.array([v for row in rows for v in row[2]])
        lp.a_matrix_.value_ = np.array([f for row in rows for f in row[2].values()], float)
        kinds = highspy.HighsVarType
        lp.integrality_ = [kinds.kInteger if w else kinds.kContinuous for w in self.whole]
        return lp
