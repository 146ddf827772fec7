"""What the user wishes for values under a budget (recompute_hint): made again, or kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from megbrain_py.lowering.memory_graph import MemoryProblem
from megbrain_py.lowering.within import Arrangement
from megbrain_py.plan import HintRecord
from megbrain_py.planning.arena import Fitted

_WISHED = 0.01  # of its cost: what making a value again counts where that is wished


def wishes_of(problem: MemoryProblem) -> dict[int, str]:
    """The wish of each task that makes such a value; one that runs once anyway has none."""
    program, tasks = problem.program, problem.graph.tasks
    number = {step: task for task, step in enumerate(program.steps, 1)}
    makers = {
        program.maker[v]: wish for v, wish in program.graph.wishes.items() if v in program.maker
    }
    return {number[s]: wish for s, wish in makers.items() if not tasks[number[s]].once}


def as_wished(problem: MemoryProblem, wishes: Mapping[int, str]) -> MemoryProblem:
    """The problem whose cheapest schedules follow the wishes."""
    tasks = list(problem.graph.tasks)
    for number, wish in wishes.items():
        task = tasks[number]
        keep = wish == "keep"
        tasks[number] = replace(task, once=keep, cost=task.cost * (1 if keep else _WISHED))
    return replace(problem, graph=replace(problem.graph, tasks=tuple(tasks)))


def seconds_of(problem: MemoryProblem, fitted: Fitted[Arrangement]) -> float:
    """What the runs of a schedule really cost."""
    return sum(problem.graph.tasks[task].cost for task in fitted.schedule.runs or ())


def followed(
    problem: MemoryProblem,
    wishes: Mapping[int, str],
    plain: Sequence[Fitted[Arrangement]],
    wished: Sequence[Fitted[Arrangement]],
) -> tuple[list[Fitted[Arrangement]], list[HintRecord]]:
    """For each budget, smallest first, the answer that follows the wishes, or the plain one where
    none was found; and what following them means, its seconds at the planner's prices.

    Costs and bounds are those without wishes. More bytes never cost more.
    """
    answers: list[Fitted[Arrangement]] = []
    records: list[HintRecord] = []
    best: Fitted[Arrangement] | None = None
    for without, one in zip(plain, wished, strict=True):
        chosen = without if one.arranged is None else one
        if best is not None and seconds_of(problem, best) < seconds_of(problem, chosen):
            chosen = best
        schedule = replace(
            without.schedule,
            runs=chosen.schedule.runs,
            cost=None if chosen.arranged is None else seconds_of(problem, chosen),
            peak=chosen.schedule.peak,
            seconds=without.schedule.seconds + one.schedule.seconds,
        )
        answers.append(replace(chosen, budget=without.budget, schedule=schedule))
        best = best if chosen.arranged is None else answers[-1]
        times = Counter(schedule.runs)
        records.append(
            HintRecord(
                again=sum(wish == "again" for wish in wishes.values()),
                made_again=sum(times[n] > 1 for n, wish in wishes.items() if wish == "again"),
                keep=sum(wish == "keep" for wish in wishes.values()),
                kept=sum(times[n] == 1 for n, wish in wishes.items() if wish == "keep"),
                seconds=without.schedule.cost,
            )
        )
    return answers, records
