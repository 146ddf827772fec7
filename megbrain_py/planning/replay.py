"""Replays a schedule by the rules of `memplan-v1`; shares no code with the planner it checks."""

from __future__ import annotations

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
    for position, event in enumerate(events):
        where = f"event {position} {list(event)}"
        if event[0] == "free":
            _must(event[1] in resident, f"{where}: the tensor is not resident")
            _must(event[1] not in graph.base, f"{where}: base tensors stay")
            resident.remove(event[1])
            live -= graph.sizes[event[1]]
        elif event[0] == "run":
            task = graph.tasks[event[1]]
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
