"""Replays a schedule by the rules of `memplan-v1`; shares no code with the planner it checks."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from megbrain_py.planning.memplan import MemoryGraph, Task

Event = Sequence[Any]  # ["run", task, [outputs taken in place]] or ["free", tensor]


class ReplayError(ValueError):
    """A schedule breaks a rule; the message names the event."""


@dataclass(frozen=True)
class Replay:
    """What a schedule costs and needs."""

    cost: float
    peak: int


def replay(graph: MemoryGraph, events: Sequence[Event]) -> Replay:
    """Follow `events`; ReplayError when one cannot happen or `keep` is not there at the end."""
    resident = set(graph.base)
    live = peak = graph.base_bytes
    cost = 0.0
    have_run: set[int] = set()
    for position, event in enumerate(events):
        where = f"event {position} {list(event)}"
        if event[0] == "free":
            _must(event[1] in resident, f"{where}: the tensor is not resident")
            _must(event[1] not in graph.base, f"{where}: base tensors stay")
            resident.remove(event[1])
            live -= graph.sizes[event[1]]
        elif event[0] == "run":
            task = graph.tasks[event[1]]
            again = event[1] in have_run
            _must(not (task.once and again), f"{where}: the task never runs a second time")
            have_run.add(event[1])
            missing = [t for t in task.outputs if t not in resident]
            taken = _taken(task, event[2], resident, missing, where)
            saved = sum(min(graph.sizes[o], graph.sizes[i]) for o, i in taken)
            after = live + sum(graph.sizes[t] for t in missing)
            peak = max(peak, after + task.workspace - saved)
            resident.update(missing)
            resident.difference_update(i for _, i in taken)
            # The bytes of a base tensor count for ever; its new version is a tensor of its own.
            live = after - sum(graph.sizes[i] for _, i in taken if i not in graph.base)
            peak = max(peak, live)
            cost += task.cost
        else:
            _must(event[0] == "place", f"{where}: expected run, free or place")
    lost = graph.keep - resident
    _must(not lost, f"at the end tensor {min(lost, default=0)} of keep is not resident")
    return Replay(cost, peak)


def highest_byte(graph: MemoryGraph, events: Sequence[Event]) -> int:
    """The end of what lies highest in a schedule with places; ReplayError when tensors overlap.

    Base tensors lie below all others; workspaces have no places.
    """
    where: dict[int, int] = {}  # tensors that are there
    placed: dict[int, int] = {}
    top = graph.base_bytes
    for position, (kind, number, *rest) in enumerate(events):
        if kind == "place":
            placed[number] = rest[0]
        elif kind == "free":
            del where[number]
        else:
            task = graph.tasks[number]
            for out, taken in dict(reversed(task.permits)).items():
                if out in rest[0] and taken not in graph.base:
                    same = placed[out] == where.pop(taken)
                    _must(same, f"event {position}: {out} does not lie where {taken} lay")
            for t in task.outputs:
                where.setdefault(t, placed[t])
            spans = sorted((a, a + graph.sizes[t]) for t, a in where.items() if graph.sizes[t])
            apart = all(a[1] <= b[0] for a, b in itertools.pairwise(spans))
            _must(apart, f"event {position}: two tensors overlap")
            top = max([top, *(end for _, end in spans)])
    return top


def _taken(
    task: Task, outputs: Sequence[int], resident: set[int], missing: Sequence[int], where: str
) -> list[tuple[int, int]]:
    """The pairs (output, input) of a run that takes `outputs` in place."""
    for t in task.inputs:
        _must(t in resident, f"{where}: input {t} is not resident")
    pairs: list[tuple[int, int]] = []
    for o in outputs:
        _must(o in missing, f"{where}: output {o} does not come into being here")
        used = {i for _, i in pairs}
        free = [i for out, i in task.permits if out == o and i not in used]
        _must(bool(free), f"{where}: no permission to take an input for output {o}")
        pairs.append((o, free[0]))
    return pairs


def _must(condition: bool, message: str) -> None:
    if not condition:
        raise ReplayError(message)
