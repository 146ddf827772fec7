"""Graph -> Plan: order, lifetimes, aliases and offsets are decided here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from megbrain_py.dtypes import DType, TensorType
from megbrain_py.graph import Constant, Graph, Node, Placeholder, Var
from megbrain_py.parameter import Parameter, aligned_copy
from megbrain_py.plan import Instruction, Plan, Slot, StateBlock
from megbrain_py.planning.memory import Allocation, Buffer, allocate, round_up
from megbrain_py.planning.schedule import Problem, Task, lifetimes, schedule

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


class _Lowering:
    """The state of one lowering: storages of values, steps, state blocks."""

    def __init__(self, graph: Graph, query: Query) -> None:
        self.graph = graph
        self.query = query
        self.storage: dict[Var, Storage] = {}
        self.blocks: list[StateBlock] = []
        self.steps: list[Step] = []
        self.maker: dict[Var, Step] = {}
        # Looked up for every update: who reads, who writes, which values share, who comes after.
        self.readers: dict[Storage, list[Step]] = {}
        self.writers: dict[Storage, list[Step]] = {}
        self.sharing: dict[Storage, list[Var]] = {}
        self.successors: dict[Step, list[Step]] = {}
        self.fetched: dict[str, Var] = dict(graph.outputs)
        self.last_collective: Step | None = None
        self.part_of: dict[Storage, tuple[Storage, int]] = {}  # a larger one, and where in it

    # --- values and steps ---

    def collect(self) -> None:
        """A storage for each value and a step for each node that computes."""
        for node in self.graph.nodes:
            if isinstance(node.op, Constant) or isinstance(node.outputs[0], Parameter):
                self._add_state(node.outputs[0])
                continue
            types = [v.type for v in node.inputs], [v.type for v in node.outputs]
            view = node.op.alias(*types)
            if view is not None:
                self._add_view(node.outputs[0], node.inputs[view])
                continue
            for v in node.outputs:
                self.storage[v] = Storage(v.type.nbytes)
            if not isinstance(node.op, Placeholder):
                kernel = node.op.kernel_for(*types)
                step = self._add_step(kernel, node.inputs, node.outputs, node, node.origin)
                if node.op.collective:  # in the graph's order, which is the same on all ranks
                    if self.last_collective is not None:
                        self._run_after(step, [self.last_collective])
                    self.last_collective = step

    def _add_view(self, view: Var, of: Var) -> None:
        self.storage[view] = self.storage[of]
        if of in self.maker:
            self.maker[view] = self.maker[of]

    def _add_step(
        self, kernel: str, inputs: Sequence[Var], outputs: Sequence[Var], node: Node | None,
        origin: str,
    ) -> Step:  # fmt: skip
        step = Step(kernel, tuple(inputs), tuple(outputs), node, origin)
        step.after.extend(dict.fromkeys(self.maker[v] for v in inputs if v in self.maker))
        self.maker.update((v, step) for v in outputs)
        self.steps.append(step)
        for before in step.after:
            self.successors.setdefault(before, []).append(step)
        for storage in dict.fromkeys(self.storage[v] for v in inputs):
            self.readers.setdefault(storage, []).append(step)
        for storage in dict.fromkeys(self.storage[v] for v in outputs):
            self.writers.setdefault(storage, []).append(step)
        return step

    def _run_after(self, step: Step, others: Sequence[Step]) -> None:
        step.after.extend(others)
        for before in others:
            self.successors.setdefault(before, []).append(step)

    def _add_state(self, var: Var) -> None:
        if isinstance(var, Parameter):
            block = StateBlock(var.name or "parameter", var.type, var.value)
        else:
            assert isinstance(var.node.op, Constant)
            block = StateBlock("constant", var.type, aligned_copy(var.node.op.value), constant=True)
        self.storage[var] = Storage(var.type.nbytes, len(self.blocks))
        self.blocks.append(block)

    def _copy(self, source: Var, storage: Storage | None = None) -> Var:
        """A step that copies `source`; into a storage of its own unless one is given."""
        target = Var(source.node, source.index, source.type)
        self.storage[target] = storage or Storage(source.type.nbytes)
        self._add_step("copy", (source,), (target,), None, source.node.origin)
        return target

    # --- updates ---

    def place_updates(self) -> None:
        """New values go straight into their parameter where nobody needs the old one later."""
        updated = {self.storage[p] for p in self.graph.updates}
        for name, var in self.fetched.items():
            if self.storage[var] in updated:  # the fetch means the value before the update
                self.fetched[name] = self._copy(var)
        new_values = {p: v for p, v in self.graph.updates.items() if not self._same(p, v)}
        for parameter, new in new_values.items():
            if self.storage[new].state is not None:  # another parameter's old value
                new_values[parameter] = self._copy(new)
        for v, storage in self.storage.items():
            self.sharing.setdefault(storage, []).append(v)
        remaining = {p: v for p, v in new_values.items() if not self._write_directly(p, v)}
        for parameter, new in remaining.items():
            readers = list(self.readers.get(self.storage[parameter], ()))
            copy = self.maker[self._copy(new, self.storage[parameter])]
            self._run_after(copy, readers)

    def _same(self, a: Var, b: Var) -> bool:
        return self.storage[a] is self.storage[b]

    def _write_directly(self, parameter: Var, new: Var) -> bool:
        """Let the step that makes `new` write into the parameter; False when it may not."""
        target, source = self.storage[parameter], self.storage[new]
        writers = self.writers.get(source, [])
        if source.state is not None or len(writers) != 1:
            return False
        writer = writers[0]
        own = [i for i, v in enumerate(writer.inputs) if self.storage[v] is target]
        if own and not self._allowed(writer, source, own):
            return False
        readers = [s for s in self.readers.get(target, ()) if s is not writer]
        if self._depend_on(writer) & set(readers):
            return False  # somebody reads the old value after the new one is made
        self._run_after(writer, readers)
        for v in self.sharing[source]:
            self.storage[v] = target
        for index in (self.readers, self.writers):
            both = dict.fromkeys((*index.get(target, ()), *index.pop(source, ())))
            index[target] = list(both)
        self.sharing[target] += self.sharing.pop(source)
        return True

    def _allowed(self, step: Step, source: Storage, inputs: Sequence[int]) -> bool:
        """May the step's output in `source` overwrite all these inputs?"""
        if step.node is None:
            return False
        types = [v.type for v in step.inputs], [v.type for v in step.outputs]
        permits = set(step.node.op.may_overwrite(*types))
        outputs = [o for o, v in enumerate(step.outputs) if self.storage[v] is source]
        return all((o, i) in permits for o in outputs for i in inputs)

    def _depend_on(self, start: Step) -> set[Step]:
        """Steps that can only run after `start`."""
        reached: set[Step] = set()
        stack = [start]
        while stack:
            for step in self.successors.get(stack.pop(), ()):
                if step not in reached:
                    reached.add(step)
                    stack.append(step)
        return reached

    # --- order and offsets ---

    def ask_workspaces(self) -> None:
        """Kernels say how much workspace they need."""
        for step in self.steps:
            types = [v.type for v in step.inputs], [v.type for v in step.outputs]
            probe = Instruction(step.kernel, (), (), self._attrs(step), step.origin)
            step.workspace = self.query(probe, *types)

    @staticmethod
    def _attrs(step: Step) -> dict[str, object]:
        return step.node.op.attrs() if step.node is not None else {}

    def order_steps(self) -> None:
        """Choose the order of the steps."""
        _, problem = self._problem()
        self.steps = [self.steps[t] for t in schedule(problem)]

    def _scratch(self) -> list[Storage]:
        return list(dict.fromkeys(s for s in self.storage.values() if s.state is None))

    def _problem(self) -> tuple[list[Storage], Problem]:
        buffers = self._scratch()
        number = {s: b for b, s in enumerate(buffers)}

        def numbers(variables: Sequence[Var]) -> tuple[int, ...]:
            found = (self.storage[v] for v in variables)
            return tuple(dict.fromkeys(number[s] for s in found if s.state is None))

        index = {step: t for t, step in enumerate(self.steps)}
        tasks = [
            Task(numbers(s.inputs), numbers(s.outputs), s.workspace,
                 tuple(index[a] for a in s.after))
            for s in self.steps
        ]  # fmt: skip
        keep = frozenset(numbers(list(self.fetched.values())))
        return buffers, Problem(tasks, [s.size for s in buffers], keep)

    def overwrite_dead_inputs(self) -> None:
        """Outputs take the storage of inputs that die at their step, where the operator permits."""
        last: dict[Storage, Step] = {}
        for step in self.steps:
            for v in (*step.inputs, *step.outputs):
                last[self.storage[v]] = step
        kept = {self.storage[v] for v in self.fetched.values()}
        sharing: dict[Storage, list[Var]] = {}
        for v, storage in self.storage.items():
            sharing.setdefault(storage, []).append(v)
        for step in self.steps:
            if step.node is None:
                continue
            types = [v.type for v in step.inputs], [v.type for v in step.outputs]
            placed: set[int] = set()  # outputs that have found a place
            permits = step.node.op.may_overwrite(*types)
            for o, i in permits:
                old, new = self.storage[step.inputs[i]], self.storage[step.outputs[o]]
                taken = {self.storage[v] for v in step.outputs}
                same = [k for k, v in enumerate(step.inputs) if self.storage[v] is old]
                fits = (
                    old.state is None and new.state is None and old.size == new.size
                    and last[old] is step and old not in kept and old not in taken
                    and all((o, k) in permits for k in same)
                    and all(step.inputs[k].type == step.inputs[i].type for k in same)
                )  # fmt: skip
                if o in placed or not fits:
                    continue
                placed.add(o)
                for v in sharing.pop(new):
                    self.storage[v] = old
                    sharing[old].append(v)
                last[old] = last[new]
                if new in kept:
                    kept.add(old)

    def place_side_by_side(self) -> None:
        """Inputs that their operator wants in one piece become parts of one storage."""
        for step in self.steps:
            if step.node is None or not step.node.op.side_by_side:
                continue
            whole = Storage(0)
            for part in dict.fromkeys(self.storage[v] for v in step.inputs):
                if part.state is None and part not in self.part_of:
                    self.part_of[part] = whole, whole.size
                    whole.size += round_up(part.size)

    def _allocate(
        self, lives: Mapping[Storage, tuple[int, int]], workspaces: Sequence[tuple[int, int]]
    ) -> tuple[dict[Storage, int], list[int], Allocation]:
        """Offsets of storages and of workspaces. A whole is live while any of its parts is."""
        blocks: dict[Storage, tuple[int, int]] = {}
        for storage, (first, last) in lives.items():
            block, _ = self.part_of.get(storage, (storage, 0))
            begin, end = blocks.get(block, (first, last))
            blocks[block] = min(begin, first), max(end, last)
        allocation = allocate(
            [Buffer(s.size, *life) for s, life in blocks.items()]
            + [Buffer(size, t, t) for t, size in workspaces]
        )
        base = dict(zip(blocks, allocation.offsets, strict=False))
        wholes = {s: self.part_of.get(s, (s, 0)) for s in lives}
        offsets = {s: base[block] + shift for s, (block, shift) in wholes.items()}
        return offsets, list(allocation.offsets[len(blocks) :]), allocation

    def plan(self) -> Plan:
        """Slots with offsets, and the instructions."""
        buffers, problem = self._problem()
        lives = dict(zip(buffers, lifetimes(problem, range(len(self.steps))), strict=True))
        workspaces = [(t, s.workspace) for t, s in enumerate(self.steps) if s.workspace]
        offsets, free_offsets, allocation = self._allocate(lives, workspaces)
        slots: list[Slot] = []
        slot_of: dict[Var, int] = {}
        for v, storage in self.storage.items():
            slot_of[v] = len(slots)
            if storage.state is not None:
                label = self.blocks[storage.state].label
                slots.append(Slot(v.type, "state", storage.state, -1, len(self.steps), label))
            else:
                slots.append(
                    Slot(v.type, "scratch", offsets[storage], *lives[storage], v.node.op.name)
                )
        instructions = []
        workspace_offsets = dict(zip([t for t, _ in workspaces], free_offsets, strict=True))
        for t, step in enumerate(self.steps):
            instruction = Instruction(
                step.kernel,
                tuple(slot_of[v] for v in step.inputs),
                tuple(slot_of[v] for v in step.outputs),
                self._attrs(step),
                step.origin,
                op=step.node.op if step.node is not None else None,
            )
            if step.workspace:
                instruction = replace(instruction, workspace=len(slots))
                slots.append(_workspace_slot(step.workspace, workspace_offsets[t], t))
            instructions.append(instruction)
        placeholders = self.graph.placeholders.items()
        return Plan(
            tuple(slots),
            tuple(instructions),
            {name: slot_of[v] for name, v in placeholders},
            {name: slot_of[v] for name, v in self.fetched.items()},
            tuple(self.blocks),
            allocation.height,
            allocation.lower_bound,
        )


def _workspace_slot(size: int, offset: int, position: int) -> Slot:
    type = TensorType((size,), DType.uint8)
    return Slot(type, "scratch", offset, position, position, "workspace")


def lower(graph: Graph, query: Query, device: str = "cpu") -> Plan:
    """Decide everything: order, in-place writes, updates, offsets. `query` asks the engine."""
    lowering = _Lowering(graph, query)
    lowering.collect()
    lowering.place_updates()
    lowering.ask_workspaces()
    lowering.order_steps()
    lowering.overwrite_dead_inputs()
    lowering.place_side_by_side()
    return replace(lowering.plan(), device=device)
