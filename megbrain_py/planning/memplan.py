"""The exchange format `memplan-v1`: operators with costs, tensors with sizes, on plain integers."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from megbrain_py.errors import DataError

FORMAT = "memplan-v1"


@dataclass(frozen=True)
class Task:
    """An operator: reads `inputs`, makes `outputs`, needs `workspace` bytes while it runs.

    A permit (out, in) allows `out` to take over the bytes of `in`, which then is gone. A task with
    `once` never runs a second time.
    """

    name: str
    cost: float
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    workspace: int = 0
    permits: tuple[tuple[int, int], ...] = ()
    backward: bool = False
    once: bool = False


@dataclass(frozen=True)
class MemoryGraph:
    """Tasks in program order; `base` is resident from the start, `keep` must be at the end."""

    name: str
    sizes: tuple[int, ...]
    base: frozenset[int]
    keep: frozenset[int]
    tasks: tuple[Task, ...]
    budgets: tuple[float, ...] = ()

    @cached_property
    def base_bytes(self) -> int:
        return sum(self.sizes[t] for t in self.base)

    @cached_property
    def maker(self) -> dict[int, int]:
        """Tensor -> the task that makes it; base tensors have none."""
        return {t: number for number, task in enumerate(self.tasks) for t in task.outputs}

    @cached_property
    def users(self) -> dict[int, list[int]]:
        """Tensor -> the tasks that read it, in program order."""
        found: dict[int, list[int]] = {t: [] for t in range(len(self.sizes))}
        for number, task in enumerate(self.tasks):
            for t in task.inputs:
                found[t].append(number)
        return found

    @cached_property
    def needed(self) -> tuple[int, ...]:
        """The tasks, in program order, without which `keep` cannot be made."""
        wanted = set(self.keep)
        found: list[int] = []
        for number in reversed(range(len(self.tasks))):
            task = self.tasks[number]
            if not wanted.isdisjoint(task.outputs):
                found.append(number)
                wanted.update(task.inputs)
        return tuple(reversed(found))


def read(path: Path) -> list[MemoryGraph]:
    """The graphs of a file that holds one `memplan-v1` object or a list of them."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path}: is not JSON: {error}") from error
    graphs = content if isinstance(content, list) else [content]
    return [from_json(graph, f"{path}: graph {i}") for i, graph in enumerate(graphs)]


def to_json(graph: MemoryGraph) -> dict[str, Any]:
    """The graph as `memplan-v1`."""
    return {
        "format": FORMAT,
        "name": graph.name,
        "tensor_bytes": list(graph.sizes),
        "base": sorted(graph.base),
        "keep": sorted(graph.keep),
        "ops": [
            {
                "name": task.name,
                "cost": task.cost,
                "inp": list(task.inputs),
                "out": list(task.outputs),
                "phase": "bwd" if task.backward else "fwd",
                "ws": task.workspace,
                "inplace": [list(permit) for permit in task.permits],
                **({"rerun": "never"} if task.once else {}),
            }
            for task in graph.tasks
        ],
        **({"budgets": list(graph.budgets)} if graph.budgets else {}),
    }


def from_json(data: object, where: str) -> MemoryGraph:
    """Read one graph; DataError names the place and what was found."""
    if not isinstance(data, dict) or data.get("format", FORMAT) != FORMAT:
        found = data.get("format") if isinstance(data, dict) else type(data).__name__
        raise DataError(f"{where}: expected an object of format {FORMAT}, found {found!r}")
    name = str(data.get("name", ""))
    where = f"{where} ({name})" if name else where
    sizes = _list(data, "tensor_bytes", where)
    for t, size in enumerate(sizes):
        _require(_is_count(size), f"{where}: tensor_bytes[{t}] is {size!r}, expected bytes >= 0")
    ops = _list(data, "ops", where)
    tasks = tuple(_task(op, f"{where}: ops[{i}]", len(sizes)) for i, op in enumerate(ops))
    graph = MemoryGraph(
        name=name,
        sizes=tuple(sizes),
        base=frozenset(_tensors(data, "base", where, len(sizes))),
        keep=frozenset(_tensors(data, "keep", where, len(sizes))),
        tasks=tasks,
        budgets=tuple(_budgets(data, where)),
    )
    _check_flow(graph, where)
    return graph


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise DataError(message)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**62


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _list(data: Mapping[str, Any], key: str, where: str) -> list[Any]:
    value = data.get(key)
    _require(isinstance(value, list), f"{where}: {key} is {value!r}, expected a list")
    return list(value or ())


def _tensors(data: Mapping[str, Any], key: str, where: str, count: int) -> list[int]:
    numbers = _list(data, key, where)
    for t in numbers:
        known = _is_count(t) and t < count
        _require(known, f"{where}: {key} names tensor {t!r}, expected 0 to {count - 1}")
    _require(len(set(numbers)) == len(numbers), f"{where}: {key} names a tensor twice: {numbers}")
    return numbers


def _budgets(data: Mapping[str, Any], where: str) -> Iterable[float]:
    for budget in data.get("budgets") or ():
        _require(
            _is_number(budget) and budget > 0,
            f"{where}: budgets holds {budget!r}, expected bytes, or a fraction below 1",
        )
        yield budget


def _task(data: object, where: str, count: int) -> Task:
    if not isinstance(data, dict):
        raise DataError(f"{where}: is {data!r}, expected an object")
    cost: Any = data.get("cost")
    _require(_is_number(cost) and cost >= 0, f"{where}: cost is {cost!r}, expected a number >= 0")
    workspace = data.get("ws") or 0
    _require(_is_count(workspace), f"{where}: ws is {workspace!r}, expected bytes >= 0")
    inputs = _tensors(data, "inp", where, count)
    outputs = _tensors(data, "out", where, count)
    both = set(inputs) & set(outputs)
    _require(not both, f"{where}: tensor {min(both, default=0)} is both read and made")
    permits = []
    for pair in data.get("inplace") or ():
        good = isinstance(pair, list | tuple) and len(pair) == 2
        _require(
            good and pair[0] in outputs and pair[1] in inputs,
            f"{where}: inplace holds {pair!r}, expected [an output, an input]",
        )
        permits.append((pair[0], pair[1]))
    rerun = data.get("rerun", "free")
    _require(rerun in ("free", "never"), f"{where}: rerun is {rerun!r}, expected free or never")
    return Task(
        name=str(data.get("name", "")),
        cost=cost,
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        workspace=workspace,
        permits=tuple(permits),
        backward=data.get("phase") == "bwd",
        once=rerun == "never",
    )


def _check_flow(graph: MemoryGraph, where: str) -> None:
    """Each tensor is made once, before it is read; base tensors are not made."""
    made = set(graph.base)
    for number, task in enumerate(graph.tasks):
        for t in task.inputs:
            _require(
                t in made, f"{where}: ops[{number}] reads tensor {t}, which is not made before"
            )
        for t in task.outputs:
            kind = "a base tensor" if t in graph.base else "made before"
            _require(t not in made, f"{where}: ops[{number}] makes tensor {t}, which is {kind}")
            made.add(t)
    for t in sorted(graph.keep):
        _require(t in made, f"{where}: keep names tensor {t}, which nothing makes")
