"""A program as the memory planner sees it, and the planner's schedules as runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from megbrain_py.dtypes import TensorType
from megbrain_py.graph import Var
from megbrain_py.lowering.program import Program, Step, Storage
from megbrain_py.lowering.runs import Run, Runs, may_take
from megbrain_py.plan import Instruction
from megbrain_py.planning.memory import round_up
from megbrain_py.planning.memplan import MemoryGraph, Task


class Price(Protocol):
    """Seconds that an instruction takes when it runs once more; `over`: its outputs that are
    written over an input, and which."""

    def __call__(
        self,
        instruction: Instruction,
        inputs: Sequence[TensorType],
        outputs: Sequence[TensorType],
        *,
        over: Mapping[int, int],
    ) -> float: ...


@dataclass(frozen=True)
class MemoryProblem:
    """`graph`: task 0 makes the feeds, task k + 1 is step k of the program; tensor b is storage b,
    the rest are tokens of no bytes for orders that no value says."""

    program: Program
    storages: Sequence[Storage]
    graph: MemoryGraph

    def step(self, task: int) -> Step | None:
        """None: the feeds."""
        return self.program.steps[task - 1] if task else None


def memory_problem(program: Program, price: Price, once: Runs | None = None) -> MemoryProblem:
    """Sizes are rounded as the arena rounds them; costs are seconds.

    once: a plan without recomputation; what it does in place is priced so.

    The engine copies all feeds before the first instruction, so one task makes them and every
    task without inputs waits for it. A task whose result is state must run though nobody reads it:
    its token is kept. What writes state, talks to others or is not pure runs once, and so does a
    backward step that reads a parameter: soon after its first run the parameter changes.
    """
    storages, at = program.scratch(), program.storage.__getitem__
    number = {s: b for b, s in enumerate(storages)}
    tokens: dict[Step | None, int] = {}

    def token(of: Step | None) -> int:
        return tokens.setdefault(of, len(storages) + len(tokens))

    def tensors(variables: Sequence[Var]) -> tuple[int, ...]:
        found = (program.storage[v] for v in variables)
        return tuple(dict.fromkeys(number[s] for s in found if s.state is None))

    reads = [_inputs(program, step, tensors, token) for step in program.steps]
    kept = {token(step) for step in program.steps if _must_run(program, step)}
    fed = tensors(list(program.graph.placeholders.values()))
    tasks = [Task("feeds", 0.0, (), (*fed, token(None)), once=True)]
    backward: set[Step] = set()
    updated = {program.storage[p] for p in program.graph.updates}
    over = {} if once is None else {run.step: run.over for run in once.runs}
    for step, inputs in zip(program.steps, reads, strict=True):
        if (step.node is not None and step.node.backward) or not backward.isdisjoint(step.after):
            backward.add(step)
        own = (tokens[step],) if step in tokens else ()
        tasks.append(
            Task(
                step.kernel,
                _cost(step, price, over.get(step, {})),
                inputs,
                (*tensors(step.outputs), *own),
                round_up(step.workspace),
                _permits(program, step, number),
                step in backward,
                _once(program, step)
                or (step in backward and not updated.isdisjoint(map(at, step.inputs))),
            )
        )
    sizes = [round_up(s.size) for s in storages] + [0] * len(tokens)
    keep = kept.union(tensors(list(program.fetched.values())))
    graph = MemoryGraph("", tuple(sizes), frozenset(), frozenset(keep), tuple(tasks))
    return MemoryProblem(program, storages, graph)


def _cost(step: Step, price: Price, over: Mapping[int, int]) -> float:
    if step.waits_for is not None:
        return 0.0
    return price(step.instruction((), ()), *step.types, over=over)


def _inputs(
    program: Program,
    step: Step,
    tensors: Callable[[Sequence[Var]], tuple[int, ...]],
    token: Callable[[Step | None], int],
) -> tuple[int, ...]:
    """Tensors that the step reads, and tokens of steps that come first for another reason."""
    read = tensors(step.inputs)
    if not read and not step.after:
        return (token(None),)
    said = set(read)
    others = [before for before in step.after if said.isdisjoint(tensors(before.outputs))]
    return (*read, *dict.fromkeys(token(before) for before in others))


def _writes_state(program: Program, step: Step) -> bool:
    return any(program.storage[v].state is not None for v in step.outputs)


def _must_run(program: Program, step: Step) -> bool:
    """Has it an effect besides values in scratch? A wait ends work that must have ended."""
    impure = step.op is not None and not step.op.pure
    return impure or step.waits_for is not None or _writes_state(program, step)


def _once(program: Program, step: Step) -> bool:
    fact = step.op is not None and (step.op.once or not step.op.repeatable)
    return fact or step.asynchronous or _must_run(program, step)


def _permits(
    program: Program, step: Step, number: dict[Storage, int]
) -> tuple[tuple[int, int], ...]:
    if step.asynchronous:  # its inputs are read until the wait
        return ()
    inputs = [program.storage[v] for v in step.inputs]
    found: dict[tuple[int, int], None] = {}
    for o, i in step.permits():
        out = program.storage[step.outputs[o]]
        if out in number and out not in inputs and may_take(step, inputs, o, i, out.size):
            found[number[out], number[inputs[i]]] = None
    return tuple(found)


def runs_of(problem: MemoryProblem, events: Sequence[Sequence[Any]]) -> Runs:
    """A schedule's events as runs; each run's outputs have memory of their own, but those that
    take an input's."""
    program, graph = problem.program, problem.graph
    number = {s: b for b, s in enumerate(problem.storages)}
    now: dict[int, Storage] = {}  # where each resident tensor lies
    count: dict[Step, int] = {}
    runs: list[Run] = []
    feeds: dict[str, tuple[Var, Storage]] = {}

    def places(variables: Sequence[Var]) -> tuple[Storage, ...]:
        found = (program.storage[v] for v in variables)
        return tuple(now[number[s]] if s.state is None else s for s in found)

    for kind, task, *rest in events:
        if kind == "free":
            now.pop(task)
            continue
        step = problem.step(task)
        taken = {o: i for o, i in reversed(graph.tasks[task].permits) if rest and o in rest[0]}
        inputs = places(step.inputs) if step is not None else ()
        for tensor in graph.tasks[task].outputs:
            if tensor in now or tensor >= len(problem.storages):
                now.setdefault(tensor, _TOKEN)
            elif tensor in taken:
                now[tensor] = now.pop(taken[tensor])
            else:
                now[tensor] = Storage(problem.storages[tensor].size)
        if step is None:
            feeds = {n: (v, places([v])[0]) for n, v in program.graph.placeholders.items()}
            continue
        runs.append(Run(step, inputs, places(step.outputs), count.get(step, 0)))
        count[step] = count.get(step, 0) + 1
    fetches = {name: (v, places([v])[0]) for name, v in program.fetched.items()}
    return Runs(runs, feeds, fetches)


_TOKEN = Storage(0)


def stale_read(problem: MemoryProblem, order: Sequence[int]) -> tuple[int, int] | None:
    """Positions (write, read) in a sequence of runs where a step would see a parameter's new value
    and means the old one; None when there are none."""
    written: dict[Step, int] = {}  # the last run of each that writes state
    must_precede: dict[Step, list[Step]] = {}
    for step in problem.program.steps:
        places = {problem.program.storage[v] for v in step.outputs}
        for before in step.after if _writes_state(problem.program, step) else ():
            if not places.isdisjoint(problem.program.storage[v] for v in before.inputs):
                must_precede.setdefault(before, []).append(step)
    for position, task in enumerate(order):
        run = problem.step(task)
        if run is None:
            continue
        for writer in must_precede.get(run, ()):
            if writer in written:
                return written[writer], position
        if _writes_state(problem.program, run):
            written[run] = position
    return None


def without_stale_reads(problem: MemoryProblem, order: Sequence[int]) -> list[int]:
    """The runs with each update moved behind the last step that means the old value."""
    order = list(order)
    while (found := stale_read(problem, order)) is not None:
        write, read = found
        order.insert(read, order.pop(write))
    return order


def can_run(graph: MemoryGraph, order: Sequence[int]) -> bool:
    """Is everything that a run reads made before it?"""
    made = set(graph.base)
    for task in order:
        if not made.issuperset(graph.tasks[task].inputs):
            return False
        made.update(graph.tasks[task].outputs)
    return True
