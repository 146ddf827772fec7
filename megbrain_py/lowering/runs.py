"""Each step once: their order, and outputs that take over the memory of dead inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from megbrain_py.graph import Var
from megbrain_py.lowering.program import Program, Step, Storage
from megbrain_py.planning.schedule import Problem, Task, peak, schedule
from megbrain_py.planning.waits import delay


@dataclass(frozen=True)
class Run:
    """A step at its place in the order, and the memory of each of its inputs and outputs.

    `again`: how often the step ran before.
    """

    step: Step
    inputs: tuple[Storage, ...]
    outputs: tuple[Storage, ...]
    again: int = 0


@dataclass(frozen=True)
class Runs:
    """Everything that runs, in order, and in what memory values come in and go out."""

    runs: Sequence[Run]
    feeds: Mapping[str, tuple[Var, Storage]]
    fetches: Mapping[str, tuple[Var, Storage]]


def each_once(program: Program) -> Runs:
    """The steps in an order of few live bytes, in place where they may."""
    order = _order(program)
    place = _overwrite_dead_inputs(program, order)

    def places(variables: Sequence[Var]) -> tuple[Storage, ...]:
        return tuple(place[program.storage[v]] for v in variables)

    return Runs(
        [Run(step, places(step.inputs), places(step.outputs)) for step in order],
        {name: (v, places([v])[0]) for name, v in program.graph.placeholders.items()},
        {name: (v, places([v])[0]) for name, v in program.fetched.items()},
    )


def _problem(program: Program) -> Problem:
    storages = program.scratch()
    number = {s: b for b, s in enumerate(storages)}
    for new, old in written_over(program).items():
        number[new] = number[old]

    def numbers(variables: Sequence[Var]) -> tuple[int, ...]:
        found = (program.storage[v] for v in variables)
        return tuple(dict.fromkeys(number[s] for s in found if s.state is None))

    index = {step: t for t, step in enumerate(program.steps)}
    tasks = [
        Task(numbers(s.inputs), numbers(s.outputs), s.workspace, tuple(index[a] for a in s.after))
        for s in program.steps
    ]
    keep = frozenset(numbers(list(program.fetched.values())))
    return Problem(tasks, [s.size for s in storages], keep)


def written_over(program: Program) -> dict[Storage, Storage]:
    """Outputs of asynchronous steps that will lie where an input lies, and that input.

    Known before there is an order where the input has no other reader; otherwise a late wait would
    seem to hold twice the memory that it holds.
    """
    kept = {program.storage[v] for v in program.fetched.values()}
    found: dict[Storage, Storage] = {}
    for step in program.steps:
        inputs = [program.storage[v] for v in step.inputs]
        for o, i in step.permits() if step.asynchronous else []:
            old, new = inputs[i], program.storage[step.outputs[o]]
            others = [r for r in program.readers[old] if step not in (r, r.waits_for)]
            if others or old in kept or new.state is not None or new in (*inputs, *found):
                continue
            if old not in found.values() and may_take(step, inputs, o, i, new.size):
                found[new] = old
    return found


def _order(program: Program) -> list[Step]:
    """Of few live bytes; waits as late as these allow, and for other ranks still later: that may
    hold once more the largest of what travels."""
    problem = _problem(program)
    order = schedule(problem)
    waits = {t for t, step in enumerate(program.steps) if step.waits_for is not None}
    travels = [
        sum(v.type.nbytes for v in step.inputs)
        for step in program.steps
        if step.asynchronous and step.collective
    ]
    limit = peak(problem, order) + max(travels, default=0)
    return [program.steps[t] for t in delay(problem, order, waits, limit)]


def _overwrite_dead_inputs(program: Program, order: Sequence[Step]) -> dict[Storage, Storage]:
    """For each storage the one whose memory it takes: its own, or that of an input which dies at
    the step that makes it, where the operator permits."""
    last: dict[Storage, Step] = {}
    for step in order:
        for v in (*step.inputs, *step.outputs):
            storage = program.storage[v]
            if step.waits_for is None or last[storage] is not step.waits_for:
                last[storage] = step  # a wait alone does not keep its step from writing in place
    kept = {program.storage[v] for v in program.fetched.values()}
    place = {storage: storage for storage in program.storage.values()}
    owns = {storage: [storage] for storage in place}
    for step in order:
        inputs = [place[program.storage[v]] for v in step.inputs]
        placed: set[int] = set()  # outputs that have found a place
        for o, i in step.permits():
            old, new = inputs[i], place[program.storage[step.outputs[o]]]
            taken = {place[program.storage[v]] for v in step.outputs}
            if o in placed or old in kept or old in taken or last[old] is not step:
                continue
            if new.state is None and may_take(step, inputs, o, i, new.size):
                placed.add(o)
                for storage in owns.pop(new):
                    place[storage] = old
                    owns[old].append(storage)
                last[old] = last[new]
                if new in kept:
                    kept.add(old)
    return place


def may_take(step: Step, inputs: Sequence[Storage], output: int, input: int, size: int) -> bool:
    """May the output of `size` bytes lie where this input lies? Another input that lies there too
    must be the same value, and be permitted as well."""
    old = inputs[input]
    permits = step.permits()
    same = [k for k, storage in enumerate(inputs) if storage is old]
    return (
        old.state is None
        and old.size == size
        and all((output, k) in permits for k in same)
        and all(step.inputs[k].type == step.inputs[input].type for k in same)
    )
