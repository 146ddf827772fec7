"""A program as the memory planner sees it, and the planner's schedules as runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from megbrain_py.dtypes import TensorType
from megbrain_py.graph import Var
from megbrain_py.lowering.program import Program, Step, Storage
from megbrain_py.lowering.runs import Run, Runs, may_take, written_over
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
    the rest stand for no value (`_Tensors`)."""

    program: Program
    storages: Sequence[Storage]
    graph: MemoryGraph

    def step(self, task: int) -> Step | None:
        """None: the feeds."""
        return self.program.steps[task - 1] if task else None


class _Tensors:
    """Numbers of tensors: the scratch storages; then tokens of no bytes for orders that no value
    says, and what pending asynchronous steps hold until their wait.

    Memory that such a step reads must not be given up and made anew elsewhere before its wait. So
    the step makes a tensor that takes over the bytes of its input and that only the wait reads, and
    one for its workspace; or its output takes them over, where it may.
    """

    def __init__(self, program: Program) -> None:
        self.storages = program.scratch()
        self.sizes = [round_up(s.size) for s in self.storages]
        self.number = {s: b for b, s in enumerate(self.storages)}
        self._program = program
        self._tokens: dict[Step | None, int] = {}
        self._held: dict[Step, list[int]] = {}
        self._permits: dict[Step, list[tuple[int, int]]] = {}
        takes = {self.number[old]: self.number[new] for new, old in written_over(program).items()}
        for step in program.steps:
            if step.asynchronous:
                self._hold(step, takes)

    def of(self, variables: Sequence[Var]) -> tuple[int, ...]:
        """Those of the scratch arena."""
        found = (self._program.storage[v] for v in variables)
        return tuple(dict.fromkeys(self.number[s] for s in found if s.state is None))

    def token(self, step: Step | None) -> int:
        """Made by the step; None: by the feeds."""
        if step not in self._tokens:
            self._tokens[step] = self._new(0)
        return self._tokens[step]

    def made_by(self, step: Step) -> tuple[int, ...]:
        token = (self._tokens[step],) if step in self._tokens else ()
        return (*self.of(step.outputs), *self._held.get(step, ()), *token)

    def read_by(self, step: Step) -> tuple[int, ...]:
        """What the step reads, and tokens of steps that come first for another reason."""
        started = step.waits_for
        if started is not None:
            read = (*self.of(started.outputs), *self._held[started])
            return read or (self.token(started),)
        read = self.of(step.inputs)
        if not read and not step.after:
            return (self.token(None),)
        others = [b for b in step.after if set(read).isdisjoint(self.of(b.outputs))]
        return (*read, *dict.fromkeys(self.token(before) for before in others))

    def permits(self, step: Step) -> tuple[tuple[int, int], ...]:
        """Pairs (output, input) of the step's tensors."""
        if step.asynchronous:
            return tuple(self._permits[step])
        inputs = [self._program.storage[v] for v in step.inputs]
        found: dict[tuple[int, int], None] = {}
        for o, i in step.permits():
            out = self._program.storage[step.outputs[o]]
            if out in self.number and out not in inputs and may_take(step, inputs, o, i, out.size):
                found[self.number[out], self.number[inputs[i]]] = None
        return tuple(found)

    def _new(self, size: int) -> int:
        self.sizes.append(size)
        return len(self.sizes) - 1

    def _hold(self, step: Step, takes: Mapping[int, int]) -> None:
        """takes: input -> the output that takes its bytes over."""
        held: list[int] = []
        permits: list[tuple[int, int]] = []
        for tensor in self.of(step.inputs):
            taker = takes.get(tensor)
            if taker is None:
                taker = self._new(self.sizes[tensor])
                held.append(taker)
            permits.append((taker, tensor))
        if step.workspace:
            held.append(self._new(round_up(step.workspace)))
        self._held[step], self._permits[step] = held, permits


def memory_problem(program: Program, price: Price, once: Runs | None = None) -> MemoryProblem:
    """Sizes are rounded as the arena rounds them; costs are seconds.

    once: a plan without recomputation; what it does in place is priced so.

    The engine copies all feeds before the first instruction, so one task makes them and every
    task without inputs waits for it. A task whose result is state must run though nobody reads it:
    its token is kept. What writes state, talks to others or is not pure runs once, and so does a
    backward step that reads a parameter: soon after its first run the parameter changes.
    """
    tensors, at = _Tensors(program), program.storage.__getitem__
    reads = [tensors.read_by(step) for step in program.steps]
    kept = {tensors.token(step) for step in program.steps if _must_run(program, step)}
    fed = tensors.of(list(program.graph.placeholders.values()))
    tasks = [Task("feeds", 0.0, (), (*fed, tensors.token(None)), once=True)]
    costs = _costs(program, price, once)
    backward: set[Step] = set()
    updated = {program.storage[p] for p in program.graph.updates}
    for step, inputs in zip(program.steps, reads, strict=True):
        if (step.node is not None and step.node.backward) or not backward.isdisjoint(step.after):
            backward.add(step)
        stale = step in backward and not updated.isdisjoint(map(at, step.inputs))
        tasks.append(
            Task(
                step.kernel,
                costs[step],
                inputs,
                tensors.made_by(step),
                0 if step.asynchronous else round_up(step.workspace),
                tensors.permits(step),
                step in backward,
                stale or _once(program, step),
            )
        )
    keep = kept.union(tensors.of(list(program.fetched.values())))
    graph = MemoryGraph("", tuple(tensors.sizes), frozenset(), frozenset(keep), tuple(tasks))
    return MemoryProblem(program, tensors.storages, graph)


def _costs(program: Program, price: Price, once: Runs | None) -> dict[Step, float]:
    """What each step costs; equal ones are priced once. A wait's cost is in its starter's."""
    over = {} if once is None else {run.step: run.over for run in once.runs}
    known: dict[Any, float] = {}
    found: dict[Step, float] = {}
    for step in program.steps:
        taken, given = step.types
        places = over.get(step, {})
        key = step.kernel, step.op, tuple(taken), tuple(given), tuple(places.items())
        if step.waits_for is not None:
            known[key] = 0.0
        elif key not in known:
            known[key] = price(step.instruction((), ()), taken, given, over=places)
        found[step] = known[key]
    return found


def _writes_state(program: Program, step: Step) -> bool:
    return any(program.storage[v].state is not None for v in step.outputs)


def _must_run(program: Program, step: Step) -> bool:
    """Has it an effect besides values in scratch? A wait ends work that must have ended."""
    impure = step.op is not None and not step.op.pure
    return impure or step.waits_for is not None or _writes_state(program, step)


def _once(program: Program, step: Step) -> bool:
    fact = step.op is not None and (step.op.once or not step.op.repeatable)
    return fact or step.asynchronous or _must_run(program, step)


def runs_of(problem: MemoryProblem, events: Sequence[Sequence[Any]]) -> Runs:
    """A schedule's events as runs; each run's outputs have memory of their own, but those that
    take an input's."""
    program, graph = problem.program, problem.graph
    number = {s: b for b, s in enumerate(problem.storages)}
    now: dict[int, Storage] = {}  # where each resident tensor lies
    count: dict[Step, int] = {}
    started: dict[Step | None, Run] = {}  # asynchronous
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
        begun = started.get(step.waits_for) if step is not None else None
        if step is None:
            inputs: tuple[Storage, ...] = ()
        else:
            inputs = (*begun.inputs, *begun.outputs) if begun else places(step.inputs)
        for tensor in graph.tasks[task].outputs:
            if tensor in now:
                continue
            old = now.pop(taken[tensor]) if tensor in taken else None
            now[tensor] = old or (
                Storage(problem.storages[tensor].size)
                if tensor < len(problem.storages)
                else _NOTHING
            )
        if step is None:
            feeds = {n: (v, places([v])[0]) for n, v in program.graph.placeholders.items()}
            continue
        run = Run(step, inputs, places(step.outputs), count.get(step, 0))
        runs.append(run)
        count[step] = run.again + 1
        if step.asynchronous:
            started[step] = run
    fetches = {name: (v, places([v])[0]) for name, v in program.fetched.items()}
    return Runs(runs, feeds, fetches)


_NOTHING = Storage(0)


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
