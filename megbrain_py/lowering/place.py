"""Runs -> Plan: lifetimes, offsets, slots and instructions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from megbrain_py.dtypes import DType, TensorType
from megbrain_py.graph import Var
from megbrain_py.lowering.program import Program, Step, Storage
from megbrain_py.lowering.runs import Run, Runs
from megbrain_py.plan import Instruction, Plan, Slot
from megbrain_py.planning.memory import Allocation, Buffer, allocate, round_up

Life: TypeAlias = tuple[int, int]  # the first and the last run that use it
Allocate: TypeAlias = Callable[[Sequence[Buffer]], Allocation]


@dataclass(frozen=True)
class Placed:
    """Where storages and the runs' workspaces lie in the scratch arena, and for how long."""

    lives: Mapping[Storage, Life]
    offsets: Mapping[Storage, int]
    workspaces: Mapping[int, int]
    ends: Mapping[int, int]  # of asynchronous runs: their wait
    height: int
    lower_bound: int


def place(runs: Runs, allocate: Allocate = allocate) -> Placed:
    """Offsets of everything in scratch. What lies side by side is one block."""
    lives = _lives(runs)
    part_of = _side_by_side(runs.runs)
    blocks: dict[Storage, Life] = {}  # a whole is live while any of its parts is
    for storage, (first, last) in lives.items():
        block, _ = part_of.get(storage, (storage, 0))
        begin, end = blocks.get(block, (first, last))
        blocks[block] = min(begin, first), max(end, last)
    workspaces = {t: run.step.workspace for t, run in enumerate(runs.runs) if run.step.workspace}
    ends = _ends(runs.runs)
    found = allocate(
        [Buffer(s.size, *life) for s, life in blocks.items()]
        + [Buffer(size, t, ends.get(t, t)) for t, size in workspaces.items()]
    )
    base = dict(zip(blocks, found.offsets, strict=False))
    wholes = {s: part_of.get(s, (s, 0)) for s in lives}
    return Placed(
        lives,
        {s: base[block] + shift for s, (block, shift) in wholes.items()},
        dict(zip(workspaces, found.offsets[len(blocks) :], strict=True)),
        ends,
        found.height,
        found.lower_bound,
    )


def _ends(runs: Sequence[Run]) -> dict[int, int]:
    """Where an asynchronous run that started at a position is waited for."""
    started = {run.step: t for t, run in enumerate(runs) if run.step.asynchronous}
    waits = [(run.step.waits_for, t) for t, run in enumerate(runs)]
    return {started[step]: t for step, t in waits if step is not None}


def _lives(runs: Runs) -> dict[Storage, Life]:
    """Feeds are there before the first run, fetches after the last."""
    lives: dict[Storage, Life] = {s: (-1, -1) for _, s in runs.feeds.values()}
    for t, run in enumerate(runs.runs):
        for storage in (*run.inputs, *run.outputs):
            if storage.state is None:
                lives[storage] = lives.get(storage, (t, t))[0], t
    for _, storage in runs.fetches.values():
        if storage.state is None:
            lives[storage] = lives.get(storage, (-1, -1))[0], len(runs.runs)
    return lives


def _side_by_side(runs: Sequence[Run]) -> dict[Storage, tuple[Storage, int]]:
    """Inputs that their operator wants in one piece: the piece, and where in it each lies."""
    part_of: dict[Storage, tuple[Storage, int]] = {}
    for run in runs:
        if run.step.op is None or not run.step.op.side_by_side:
            continue
        whole = Storage(0)
        for part in dict.fromkeys(run.inputs):
            if part.state is None and part not in part_of:
                part_of[part] = whole, whole.size
                whole.size += round_up(part.size)
    return part_of


@dataclass
class _Slots:
    """Slots as they are needed: one for each value in each memory that it has."""

    placed: Placed
    labels: Sequence[str]  # of state blocks
    end: int
    slots: list[Slot] = field(default_factory=list)
    _number: dict[tuple[Var, Storage], int] = field(default_factory=dict)

    def of(self, v: Var, storage: Storage) -> int:
        key = v, storage
        if key not in self._number:
            if storage.state is not None:
                slot = Slot(
                    v.type, "state", storage.state, -1, self.end, self.labels[storage.state]
                )
            else:
                offset, life = self.placed.offsets[storage], self.placed.lives[storage]
                slot = Slot(v.type, "scratch", offset, *life, str(v.node.op.name))
            self._number[key] = self._add(slot)
        return self._number[key]

    def all_of(self, variables: Sequence[Var], storages: Sequence[Storage]) -> tuple[int, ...]:
        return tuple(self.of(v, s) for v, s in zip(variables, storages, strict=True))

    def workspace(self, size: int, t: int) -> int:
        type = TensorType((size,), DType.uint8)
        last = self.placed.ends.get(t, t)
        return self._add(Slot(type, "scratch", self.placed.workspaces[t], t, last, "workspace"))

    def _add(self, slot: Slot) -> int:
        self.slots.append(slot)
        return len(self.slots) - 1


def make_plan(program: Program, runs: Runs, placed: Placed, device: str) -> Plan:
    """Slots with offsets, and the instructions."""
    slots = _Slots(placed, [block.label for block in program.blocks], len(runs.runs))
    feeds = {name: slots.of(v, storage) for name, (v, storage) in runs.feeds.items()}
    started: dict[Step, int] = {}
    instructions: list[Instruction] = []
    for t, run in enumerate(runs.runs):
        step = run.step
        if step.waits_for is not None:
            made = step.instruction((), ())
            instructions.append(replace(made, waits_for=started[step.waits_for]))
            continue
        started[step] = t
        workspace = slots.workspace(step.workspace, t) if step.workspace else None
        inputs = slots.all_of(step.inputs, run.inputs)
        outputs = slots.all_of(step.outputs, run.outputs)
        made = step.instruction(inputs, outputs, workspace)
        instructions.append(replace(made, again=run.again))
    fetches = {name: slots.of(v, storage) for name, (v, storage) in runs.fetches.items()}
    return Plan(
        tuple(slots.slots),
        tuple(instructions),
        feeds,
        fetches,
        tuple(program.blocks),
        placed.height,
        placed.lower_bound,
        device,
    )
