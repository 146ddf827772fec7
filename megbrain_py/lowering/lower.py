"""Graph -> Plan, one decision after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import TypeAlias

from megbrain_py.errors import CompileError
from megbrain_py.graph import Graph
from megbrain_py.lowering.memory_graph import MemoryProblem, Price, memory_problem
from megbrain_py.lowering.place import make_plan, place
from megbrain_py.lowering.program import Program, Query
from megbrain_py.lowering.runs import Runs, each_once
from megbrain_py.lowering.updates import place_updates
from megbrain_py.lowering.wishes import as_wished, followed, wishes_of
from megbrain_py.lowering.within import Arrangement, plan_within
from megbrain_py.plan import BudgetRecord, HintRecord, Plan
from megbrain_py.plan_memory import memory_profile
from megbrain_py.planning.arena import Fitted
from megbrain_py.planning.recompute import Effort, Progress
from megbrain_py.planning.sizes import parse_size, show_size

MemoryBudget: TypeAlias = "int | float | str"


class ArenaBytes(int):
    """A budget of the scratch arena alone: parameters and constants are counted by who gives it."""


@dataclass(frozen=True)
class Refused:
    """A budget that nothing was found for. `least`: bytes of the smallest scratch arena found,
    `plan` with it; None when there is none."""

    budget: int
    least: int | None
    plan: Plan | None
    state_bytes: int


def lower(graph: Graph, query: Query, device: str = "cpu") -> Plan:
    """Decide everything: updates, order, in-place writes, offsets. `query` asks the engine."""
    program = _read(graph, query)
    return _plan_of(program, each_once(program), device)


def lower_within(
    graph: Graph,
    query: Query,
    price: Price,
    predict: Callable[[Plan], float],
    budgets: Sequence[MemoryBudget],
    *,
    device: str = "cpu",
    effort: Effort = "default",
    progress: Progress = lambda _: None,
) -> list[Plan | Refused]:
    """A plan for each budget; values are made again where that saves enough memory.

    budgets: bytes of state and scratch memory together, as a number or as text ("3GiB"), or, below
    1, a share of the scratch memory that the plan of `lower` takes. Where that plan fits it is the
    answer, and where it fits all budgets nothing is priced. price: seconds of one more run of an
    instruction. predict: seconds of that plan; what is made again comes on top.
    """
    program = _read(graph, query)
    once = each_once(program)
    vanilla = _plan_of(program, once, device)
    live = tuple(memory_profile(vanilla).live.tolist())
    room = [scratch_of(budget, vanilla) for budget in budgets]
    tight = sorted({bytes for bytes in room if bytes < vanilla.scratch_bytes})
    by_bytes: dict[int, Plan | Refused] = {}
    seconds = 0.0  # nothing is priced where all fits: measuring takes a while
    if tight:
        order = [run.step for run in once.runs]
        problem = memory_problem(program, price, once)
        found = plan_within(problem, tight, effort, progress, order)
        hints: list[HintRecord] = []
        if wishes := wishes_of(problem):
            wished = plan_within(as_wished(problem, wishes), tight, effort, progress, order)
            found, hints = followed(problem, wishes, found, wished)
        seconds = predict(vanilla)
        for bytes, fitted, hint in zip_longest(tight, found, hints):
            record = _record(problem, vanilla, live, effort, seconds, fitted, hint)
            by_bytes[bytes] = _answer(program, vanilla, fitted, record)
    fits = BudgetRecord(
        0, effort, seconds, seconds, seconds, vanilla.scratch_bytes, live, "nothing", 0.0
    )
    return [
        by_bytes.get(bytes) or replace(vanilla, budget=replace(fits, budget=bytes))
        for bytes in room
    ]


def _answer(
    program: Program, vanilla: Plan, fitted: Fitted[Arrangement], record: BudgetRecord
) -> Plan | Refused:
    if fitted.arranged is not None:
        made = fitted.arranged.places
        plan = make_plan(program, made.runs, made.placed, vanilla.device)
        return replace(plan, budget=record)
    if fitted.least is None:
        return Refused(fitted.budget, None, None, vanilla.state_bytes)
    least = fitted.least.places
    plan = make_plan(program, least.runs, least.placed, vanilla.device)
    return Refused(fitted.budget, plan.scratch_bytes, plan, vanilla.state_bytes)


def _read(graph: Graph, query: Query) -> Program:
    program = Program(graph)
    place_updates(program)
    program.ask_workspaces(query)
    return program


def _plan_of(program: Program, runs: Runs, device: str) -> Plan:
    return make_plan(program, runs, place(runs), device)


def _record(
    problem: MemoryProblem,
    vanilla: Plan,
    live: tuple[int, ...],
    effort: Effort,
    seconds: float,
    fitted: Fitted[Arrangement],
    hints: HintRecord | None,
) -> BudgetRecord:
    """seconds: of the vanilla plan; what is made again, at the planner's prices, comes on top."""
    schedule = fitted.schedule
    once = sum(task.cost for task in problem.graph.tasks)
    limiting = problem.step(schedule.limiting) if schedule.limiting >= 0 else None

    def predicted(cost: float | None) -> float | None:
        return None if cost is None else seconds + max(cost - once, 0.0)

    taken = predicted(schedule.cost)
    return BudgetRecord(
        fitted.budget,
        effort,
        seconds if taken is None else taken,
        seconds,
        predicted(schedule.lower_bound),
        vanilla.scratch_bytes,
        live,
        "nothing" if limiting is None else f"{limiting.kernel} at {limiting.origin}",
        schedule.seconds,
        None if hints is None else replace(hints, seconds=predicted(hints.seconds)),
    )


def scratch_of(budget: MemoryBudget, vanilla: Plan) -> int:
    """Bytes that the scratch arena may take; CompileError for what is no budget."""
    if isinstance(budget, ArenaBytes):
        return int(budget)
    if isinstance(budget, str):
        try:
            budget = parse_size(budget)
        except ValueError as error:
            raise CompileError(f"compile: memory_budget: {error}") from None
    whole = isinstance(budget, int) and not isinstance(budget, bool)
    if not whole and not (isinstance(budget, float) and 0 < budget <= 1):
        raise CompileError(
            "compile: memory_budget must be bytes, text such as 3GiB or a share between 0 and 1, "
            f"is {budget!r}"
        )
    if isinstance(budget, float):
        return int(budget * vanilla.scratch_bytes)
    return budget - vanilla.state_bytes


def refusal(refused: Refused, what: str = "compile: memory_budget") -> str:
    """Why a budget cannot be kept, and which one can. what: who gave it, and by which name."""
    state_bytes = refused.state_bytes
    given = show_size(max(refused.budget + state_bytes, 0))
    if refused.plan is None or refused.least is None:
        return f"{what} of {given} cannot be kept, and no schedule was found"
    least = refused.least + state_bytes
    return "\n".join(
        [
            f"{what} of {given} is too small, the least that can be kept is "
            f"{show_size(least)} ({least} bytes)",
            f"  of it {show_size(state_bytes)} are parameters and constants, "
            f"{show_size(refused.least)} is scratch memory",
            *(f"  {line}" for line in refused.plan.memory.at_peak()),
        ]
    )
