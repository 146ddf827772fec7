"""The order of tasks that keeps the peak of live bytes low."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

Rule: TypeAlias = "Callable[[int, int], tuple[int, int]]"


@dataclass(frozen=True)
class Task:
    """Reads and writes buffers (by number) and needs `workspace` bytes while it runs.

    `after`: tasks that must come first though no buffer says so.
    """

    reads: tuple[int, ...]
    writes: tuple[int, ...]
    workspace: int = 0
    after: tuple[int, ...] = ()


@dataclass(frozen=True)
class Problem:
    """Tasks in program order, the buffers' sizes in bytes, and what stays.

    A buffer that no task writes is live from the start; one in `keep` until the end.
    """

    tasks: Sequence[Task]
    sizes: Sequence[int]
    keep: frozenset[int] = frozenset()
    predecessors: list[set[int]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        writer = {b: t for t, task in enumerate(self.tasks) for b in task.writes}
        found = [
            {writer[b] for b in task.reads if b in writer} | set(task.after) for task in self.tasks
        ]
        object.__setattr__(self, "predecessors", [p - {t} for t, p in enumerate(found)])


def lifetimes(problem: Problem, order: Sequence[int]) -> list[tuple[int, int]]:
    """(first, last) position at which each buffer is live; -1 is before the first task."""
    first: list[int | None] = [None] * len(problem.sizes)
    last = [-1] * len(problem.sizes)
    for position, t in enumerate(order):
        task = problem.tasks[t]
        for b in task.reads:
            if first[b] is None:
                first[b] = -1
            last[b] = position
        for b in task.writes:  # a buffer may be written again in place: its first write counts
            if first[b] is None:
                first[b] = position
            last[b] = position
    for b in problem.keep:
        last[b] = len(order)
    return [(-1 if f is None else f, end) for f, end in zip(first, last, strict=True)]


def peak(problem: Problem, order: Sequence[int]) -> int:
    """The most bytes live at once, workspace included."""
    change = [0] * (len(order) + 2)
    for size, (begin, end) in zip(problem.sizes, lifetimes(problem, order), strict=True):
        change[max(begin, 0)] += size
        change[end + 1] -= size
    live = most = 0
    for position, t in enumerate(order):
        live += change[position]
        most = max(most, live + problem.tasks[t].workspace)
    return most


def schedule(problem: Problem) -> list[int]:
    """The best of several orders: as written, frees taken early, least growth first."""
    rules: tuple[Rule, ...] = (
        lambda t, growth: (0, t),
        lambda t, growth: (0 if growth < 0 else 1, t),
        lambda t, growth: (growth, t),
    )
    candidates = [_list_schedule(problem, rule) for rule in rules]
    return min(candidates, key=lambda order: peak(problem, order))


def _list_schedule(problem: Problem, rule: Rule) -> list[int]:
    """Always the ready task that `rule(task, bytes it makes less bytes it frees)` puts first."""
    tasks = problem.tasks
    successors: list[list[int]] = [[] for _ in tasks]
    waiting = [len(p) for p in problem.predecessors]
    for t, before in enumerate(problem.predecessors):
        for p in before:
            successors[p].append(t)
    readers = [0] * len(problem.sizes)
    reading: list[list[int]] = [[] for _ in problem.sizes]  # ready tasks that read a buffer
    for task in tasks:
        for b in set(task.reads):
            readers[b] += 1

    def growth(t: int) -> int:
        made = sum(problem.sizes[b] for b in tasks[t].writes)
        freed = sum(
            problem.sizes[b]
            for b in set(tasks[t].reads)
            if readers[b] == 1 and b not in problem.keep
        )
        return made - freed

    def key(t: int) -> tuple[int, int]:
        return rule(t, growth(t))

    ready: list[tuple[tuple[int, int], int]] = []

    def offer(t: int) -> None:
        for b in set(tasks[t].reads):
            reading[b].append(t)
        heapq.heappush(ready, (key(t), t))

    for t, count in enumerate(waiting):
        if count == 0:
            offer(t)
    done = [False] * len(tasks)
    order: list[int] = []
    while ready:
        old, t = heapq.heappop(ready)
        if done[t] or old != key(t):  # done, or its growth has changed and it was offered again
            continue
        done[t] = True
        order.append(t)
        touched: set[int] = set()
        for b in set(tasks[t].reads):
            readers[b] -= 1
            if readers[b] == 1:
                touched.update(r for r in reading[b] if not done[r])
        for other in touched:
            heapq.heappush(ready, (key(other), other))
        for s in successors[t]:
            waiting[s] -= 1
            if waiting[s] == 0:
                offer(s)
    assert len(order) == len(tasks), "the tasks wait for each other in a circle"
    return order
