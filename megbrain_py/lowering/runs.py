"""Each step once: their order, and outputs that take over the memory of dead inputs."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace

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

    @property
    def over(self) -> dict[int, int]:
        """Outputs that are written over an input, and which."""
        places = {storage: i for i, storage in enumerate(self.inputs)}
        return {o: places[s] for o, s in enumerate(self.outputs) if s in places}


@dataclass(frozen=True)
class Runs:
    """Everything that runs, in order, and in what memory values come in and go out."""

    runs: Sequence[Run]
    feeds: Mapping[str, tuple[Var, Storage]]
    fetches: Mapping[str, tuple[Var, Storage]]


def each_once(program: Program) -> Runs:
    """The steps in an order of few live bytes, in place where they may."""

    def places(variables: Sequence[Var]) -> tuple[Storage, ...]:
        return tuple(program.storage[v] for v in variables)

    return in_place(
        Runs(
            [Run(step, places(step.inputs), places(step.outputs)) for step in _order(program)],
            {name: (v, program.storage[v]) for name, v in program.graph.placeholders.items()},
            {name: (v, program.storage[v]) for name, v in program.fetched.items()},
        )
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


def in_place(runs: Runs, apart: Container[Storage] = ()) -> Runs:
    """The same with outputs in the memory of inputs that die at the run which makes them, where the
    operator permits; but those in `apart`."""
    first, last = _first_and_last(runs)
    kept = {storage for _, storage in runs.fetches.values()}
    place = {storage: storage for storage in last}
    owns = {storage: [storage] for storage in place}
    for t, run in enumerate(runs.runs):
        inputs = [place[s] for s in run.inputs]
        placed: set[int] = set()  # outputs that have found a place
        for o, i in run.step.permits():
            old, new = inputs[i], place[run.outputs[o]]
            taken = {place[s] for s in run.outputs}
            if run.outputs[o] in apart or o in placed or old in kept or old in taken:
                continue
            if last[old] != t or first[new] != t:
                continue
            if new.state is None and may_take(run.step, inputs, o, i, new.size):
                placed.add(o)
                for storage in owns.pop(new):
                    place[storage] = old
                    owns[old].append(storage)
                last[old] = last[new]
                if new in kept:
                    kept.add(old)

    def moved(run: Run) -> Run:
        inputs, outputs = (tuple(place[s] for s in own) for own in (run.inputs, run.outputs))
        return replace(run, inputs=inputs, outputs=outputs)

    def ports(named: Mapping[str, tuple[Var, Storage]]) -> dict[str, tuple[Var, Storage]]:
        return {name: (v, place[storage]) for name, (v, storage) in named.items()}

    return Runs([moved(run) for run in runs.runs], ports(runs.feeds), ports(runs.fetches))


def _first_and_last(runs: Runs) -> tuple[dict[Storage, int], dict[Storage, int]]:
    """The runs that use each storage first and last. A wait alone is no use: it does not keep its
    step from writing in place."""
    first = {storage: -1 for _, storage in runs.feeds.values()}
    last = {storage: -1 for _, storage in (*runs.feeds.values(), *runs.fetches.values())}
    started: dict[Step, int] = {}
    for t, run in enumerate(runs.runs):
        if run.step.asynchronous:
            started[run.step] = t
        before = started[run.step.waits_for] if run.step.waits_for is not None else None
        for storage in (*run.inputs, *run.outputs):
            first.setdefault(storage, t)
            if before is None or last[storage] != before:
                last[storage] = t
    return first, last


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
