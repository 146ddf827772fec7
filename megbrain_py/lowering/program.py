"""The values and steps of a graph before they have an order and a place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from megbrain_py.dtypes import TensorType
from megbrain_py.graph import Constant, Graph, Node, Operator, Placeholder, Var
from megbrain_py.parameter import Parameter, aligned_copy
from megbrain_py.plan import WAIT, Instruction, StateBlock

Query: TypeAlias = Callable[[Instruction, Sequence[TensorType], Sequence[TensorType]], int]


@dataclass(eq=False)
class Storage:
    """Memory that one or several values (views) share. `state`: index of its state block."""

    size: int
    state: int | None = None


@dataclass(eq=False)
class Step:
    """An instruction before it has slots: kernel, values read and written."""

    kernel: str
    inputs: tuple[Var, ...]
    outputs: tuple[Var, ...]
    node: Node | None  # None: a copy that lowering itself added
    origin: str
    after: list[Step] = field(default_factory=list)  # must run first: makers of inputs, and others
    workspace: int = 0
    waits_for: Step | None = None  # of a wait, whose inputs are what the other one uses

    @property
    def types(self) -> tuple[list[TensorType], list[TensorType]]:
        """Of the inputs, of the outputs."""
        return [v.type for v in self.inputs], [v.type for v in self.outputs]

    def instruction(
        self, inputs: tuple[int, ...], outputs: tuple[int, ...], workspace: int | None = None
    ) -> Instruction:
        """The step with these slots."""
        attrs = self.op.attrs() if self.op is not None else {}
        return Instruction(self.kernel, inputs, outputs, attrs, self.origin, workspace, self.op)

    @property
    def op(self) -> Operator | None:
        return self.node.op if self.node is not None else None

    @property
    def collective(self) -> bool:
        return self.op is not None and self.op.collective

    @property
    def asynchronous(self) -> bool:
        return self.op is not None and self.op.asynchronous

    def permits(self) -> list[tuple[int, int]]:
        """Pairs (output, input): the output may be written over that input."""
        return [] if self.op is None else list(self.op.may_overwrite(*self.types))


class Program:
    """Storages of values, steps in program order, state blocks; who makes, reads and writes what.

    `fetched`: the values that a run gives back, by name.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.storage: dict[Var, Storage] = {}
        self.blocks: list[StateBlock] = []
        self.steps: list[Step] = []
        self.maker: dict[Var, Step] = {}
        self.readers: dict[Storage, list[Step]] = {}
        self.writers: dict[Storage, list[Step]] = {}
        self.successors: dict[Step, list[Step]] = {}
        self.fetched: dict[str, Var] = dict(graph.outputs)
        self._pending: dict[Storage, Step] = {}  # written by asynchronous steps without a wait yet
        self._last_collective: Step | None = None
        for node in graph.nodes:
            self._add_node(node)
        for started in dict.fromkeys(self._pending.values()):
            self._add_wait(started)

    def _add_node(self, node: Node) -> None:
        """A storage for each value, and a step if the node computes."""
        if isinstance(node.op, Constant) or isinstance(node.outputs[0], Parameter):
            self._add_state(node.outputs[0])
            return
        types = [v.type for v in node.inputs], [v.type for v in node.outputs]
        view = node.op.alias(*types)
        if view is not None:
            self._add_view(node.outputs[0], node.inputs[view])
            return
        for v in node.outputs:
            self.storage[v] = Storage(v.type.nbytes)
        if not isinstance(node.op, Placeholder):
            kernel = node.op.kernel_for(*types)
            self._add_step(Step(kernel, node.inputs, node.outputs, node, node.origin))

    def _add_wait(self, started: Step) -> None:
        """Ends an asynchronous step; who reads its outputs comes later."""
        used = tuple(dict.fromkeys((*started.inputs, *started.outputs)))
        wait = Step(WAIT, used, (), None, started.origin, waits_for=started)
        self._pending = {s: step for s, step in self._pending.items() if step is not started}
        self._add_step(wait)
        for v in [v for v, step in self.maker.items() if step is started]:  # views too
            self.maker[v] = wait

    def _add_state(self, var: Var) -> None:
        if isinstance(var, Parameter):
            block = StateBlock(var.name or "parameter", var.type, var.value)
        else:
            assert isinstance(var.node.op, Constant)
            block = StateBlock("constant", var.type, aligned_copy(var.node.op.value), constant=True)
        self.storage[var] = Storage(var.type.nbytes, len(self.blocks))
        self.blocks.append(block)

    def _add_view(self, view: Var, of: Var) -> None:
        self.storage[view] = self.storage[of]
        if of in self.maker:
            self.maker[view] = self.maker[of]

    def _add_step(self, step: Step) -> None:
        read = [self.storage[v] for v in step.inputs]
        for started in dict.fromkeys(self._pending[s] for s in read if s in self._pending):
            self._add_wait(started)
        before = dict.fromkeys(self.maker[v] for v in step.inputs if v in self.maker)
        self.maker.update((v, step) for v in step.outputs)
        self.steps.append(step)
        self.run_after(step, before)
        for storage in dict.fromkeys(read):
            self.readers.setdefault(storage, []).append(step)
        for storage in dict.fromkeys(self.storage[v] for v in step.outputs):
            self.writers.setdefault(storage, []).append(step)
            if step.asynchronous:
                self._pending[storage] = step
        if step.collective:  # in the graph's order, which is the same on all ranks
            if self._last_collective is not None:
                self.run_after(step, [self._last_collective])
            self._last_collective = step

    def copy(self, source: Var, storage: Storage | None = None) -> Var:
        """A step that copies `source`; into a storage of its own unless one is given."""
        target = Var(source.node, source.index, source.type)
        self.storage[target] = storage or Storage(source.type.nbytes)
        self._add_step(Step("copy", (source,), (target,), None, source.node.origin))
        return target

    def run_after(self, step: Step, others: Iterable[Step]) -> None:
        """These others must run before `step`."""
        for before in others:
            step.after.append(before)
            self.successors.setdefault(before, []).append(step)

    def depend_on(self, start: Step) -> set[Step]:
        """Steps that can only run after `start`."""
        reached: set[Step] = set()
        stack = [start]
        while stack:
            for step in self.successors.get(stack.pop(), ()):
                if step not in reached:
                    reached.add(step)
                    stack.append(step)
        return reached

    def sharing(self) -> dict[Storage, list[Var]]:
        """The values that lie in each storage."""
        found: dict[Storage, list[Var]] = {}
        for v, storage in self.storage.items():
            found.setdefault(storage, []).append(v)
        return found

    def ask_workspaces(self, query: Query) -> None:
        """Kernels say how much workspace they need."""
        for step in self.steps:
            if step.waits_for is None:
                step.workspace = query(step.instruction((), ()), *step.types)

    def scratch(self) -> list[Storage]:
        """Those of the scratch arena."""
        return list(dict.fromkeys(s for s in self.storage.values() if s.state is None))
