"""Waits as late as memory allows, in runs that make some values again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from megbrain_py.lowering.program import Storage
from megbrain_py.lowering.runs import Runs
from megbrain_py.planning.schedule import Problem, Task
from megbrain_py.planning.waits import delay


def with_late_waits(made: Runs, limit: int) -> Runs:
    """The runs with independent ones moved before waits, as far as `limit` live bytes allow."""
    runs = made.runs
    waits = {t for t, run in enumerate(runs) if run.step.waits_for is not None}
    order = delay(_problem(made), range(len(runs)), waits, limit)
    return replace(made, runs=[runs[t] for t in order])


def _problem(made: Runs) -> Problem:
    """Each run is a task, each storage a buffer; a wait counts as the writer of the outputs."""
    number: dict[Storage, int] = {}
    tasks: list[Task] = []
    readers: dict[Storage, list[int]] = {}  # since it was written
    writer: dict[Storage, int] = {}
    collective: list[int] = []
    outputs = {run.step: run.outputs for run in made.runs if run.step.asynchronous}

    def numbers(storages: Iterable[Storage]) -> tuple[int, ...]:
        scratch = dict.fromkeys(s for s in storages if s.state is None)
        return tuple(number.setdefault(s, len(number)) for s in scratch)

    for t, run in enumerate(made.runs):
        started = run.step.waits_for
        written = run.outputs if started is None else outputs[started]
        after = [writer[s] for s in (*run.inputs, *written) if s in writer]
        for storage in written:
            after += readers.pop(storage, ())
            writer[storage] = t
        for storage in run.inputs:
            readers.setdefault(storage, []).append(t)
        if run.step.collective:
            after += collective
            collective = [t]
        before = tuple(dict.fromkeys(b for b in after if b != t))
        made_here = run.outputs if started is None else ()
        tasks.append(Task(numbers(run.inputs), numbers(made_here), run.step.workspace, before))
    keep = frozenset(numbers(s for _, s in made.fetches.values()))
    return Problem(tasks, [s.size for s in number], keep)
