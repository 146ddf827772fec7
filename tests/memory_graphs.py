"""Random memory graphs, and the least cost of a schedule by brute force."""

from __future__ import annotations

import heapq
import itertools
import random
from dataclasses import replace

from megbrain_py.planning.memplan import MemoryGraph, Task


def random_graph(
    seed: int, tensors: int = 9, permits: bool = True, once: float = 0.0
) -> MemoryGraph:
    """A random DAG with base tensors, workspaces, several outputs and permits.

    once: the share of tasks that never run a second time.
    """
    rng = random.Random(seed)
    sizes = [rng.randint(0, 6) for _ in range(tensors)]
    base = rng.randint(0, 2)
    made = list(range(base))
    tasks: list[Task] = []
    while len(made) < tensors:
        outputs = tuple(range(len(made), min(tensors, len(made) + rng.choice((1, 1, 1, 2)))))
        inputs = tuple(sorted(rng.sample(made, min(len(made), rng.randint(1, 3)))))
        allowed = [(outputs[0], t) for t in inputs if permits and rng.random() < 0.3]
        workspace = rng.choice((0, 0, 0, rng.randint(1, 5)))
        cost, never = rng.randint(0, 9), once > 0 and rng.random() < once
        tasks.append(
            Task(f"t{len(tasks)}", cost, inputs, outputs, workspace, tuple(allowed), once=never)
        )
        made += outputs
    kept = {tensors - 1, *rng.sample(range(tensors), rng.randint(0, 2))}
    return MemoryGraph(
        f"random{seed}", tuple(sizes), frozenset(range(base)), frozenset(kept), tuple(tasks)
    )


State = tuple[frozenset[int], frozenset[int]]  # resident tensors; once-tasks that have run


def least_cost(graph: MemoryGraph, budget: int) -> float | None:
    """Dijkstra's algorithm over what is resident, straight from the rules; None: no way.

    Permits over base tensors are not used, and of several for one output only the first is.
    """
    start: State = frozenset(graph.base), frozenset()
    best = {start: 0.0}
    queue: list[tuple[float, int, State]] = [(0.0, 0, start)]
    ticket = itertools.count(1)
    while queue:
        cost, _, state = heapq.heappop(queue)
        if cost > best[state]:
            continue
        resident, done = state
        if graph.keep <= resident:
            return cost
        moves: list[tuple[float, State]]
        moves = [(cost, (resident - {t}, done)) for t in resident - graph.base]
        for number, task in enumerate(graph.tasks):
            if number in done:
                continue
            now = done | {number} if task.once else done
            moves += [(cost + task.cost, (s, now)) for s in _after(graph, task, resident, budget)]
        for total, reached in moves:
            if total < best.get(reached, float("inf")):
                best[reached] = total
                heapq.heappush(queue, (total, next(ticket), reached))
    return None


def _after(
    graph: MemoryGraph, task: Task, resident: frozenset[int], budget: int
) -> list[frozenset[int]]:
    if not resident.issuperset(task.inputs):
        return []
    missing = [t for t in task.outputs if t not in resident]
    live = sum(graph.sizes[t] for t in resident)
    first = dict(reversed(task.permits))
    usable = [(o, i) for o, i in first.items() if o in missing and i not in graph.base]
    result = []
    for count in range(len(usable) + 1):
        for takes in itertools.combinations(usable, count):
            gone = [i for _, i in takes]
            saved = sum(min(graph.sizes[o], graph.sizes[i]) for o, i in takes)
            peak = live + sum(graph.sizes[t] for t in missing) + task.workspace - saved
            if len(set(gone)) == len(gone) and peak <= budget:
                result.append(resident.union(missing).difference(gone))
    return result


def with_updates(graph: MemoryGraph) -> MemoryGraph:
    """A training graph as a compiler makes it: what it kept is read by updates, which run once.

    An input is fed by a task; each forward task has a token of no bytes that an update of its
    parameter waits for, and a statistic that is updated in the forward pass.
    """
    sizes, tasks, keep = list(graph.sizes), [], set()

    def token() -> int:
        sizes.append(0)
        return len(sizes) - 1

    label = token()
    sizes[label] = 5
    tasks.append(Task("feed", 0.0, (), (label,), once=True))
    tokens: list[int] = []
    for task in graph.tasks:
        first_backward = not tasks[-1].backward and task.backward
        tokens += [] if task.backward else [token()]
        own = () if task.backward else (tokens[-1],)
        reads = (*task.inputs, label) if first_backward else task.inputs
        tasks.append(replace(task, inputs=reads, outputs=task.outputs + own))
        if not task.backward and len(task.outputs) > 1:
            keep.add(token())
            tasks.append(
                Task("statistic", task.cost / 9, task.outputs[1:2], (max(keep),), once=True)
            )
    for t in sorted(graph.keep):
        after = tokens[t % len(tokens)]
        keep.add(token())
        tasks.append(Task("update", 1.0, (t, after), (max(keep),), backward=True, once=True))
    return MemoryGraph(f"{graph.name}+", tuple(sizes), graph.base, frozenset(keep), tuple(tasks))
