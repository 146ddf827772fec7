"""When to wait for asynchronous tasks: as late as their readers and memory allow."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from megbrain_py.planning.schedule import Problem, lifetimes

_FARTHEST = 256  # tasks after a wait that are looked at: more than hides any work


def delay(problem: Problem, order: Sequence[int], waits: Collection[int], limit: int) -> list[int]:
    """The order with independent tasks moved before waits, so that work overlaps with them.

    A wait is a task that reads what the work that it ends reads and writes. Tasks that depend on
    it stay behind it, and no two waits change places. At most `limit` bytes are live at the tasks
    that were moved over; `order` itself may need more elsewhere.
    """
    result = list(order)
    for wait in reversed([t for t in order if t in waits]):
        at = result.index(wait)
        window = result[at : at + _FARTHEST]
        free = _independent(problem, window, waits)
        memory = _Window(problem, result, at, at + len(window))
        low, high = 0, len(free)
        while low < high:  # the most of them that fit; with none of them nothing changes
            middle = (low + high + 1) // 2
            if memory.most(_moved(window, free[:middle])) <= limit:
                low = middle
            else:
                high = middle - 1
        result[at : at + len(window)] = _moved(window, free[:low])
    return result


def _independent(problem: Problem, window: Sequence[int], waits: Collection[int]) -> list[int]:
    """The tasks of the window that neither depend on its first one nor are waits."""
    behind = {window[0]}
    free: list[int] = []
    for t in window[1:]:
        if t in waits or not behind.isdisjoint(problem.predecessors[t]):
            behind.add(t)
        else:
            free.append(t)
    return free


def _moved(window: Sequence[int], first: Sequence[int]) -> list[int]:
    early = set(first)
    return [*first, *(t for t in window if t not in early)]


class _Window:
    """Live bytes of a stretch of an order when its tasks run in another order."""

    def __init__(self, problem: Problem, order: Sequence[int], begin: int, end: int) -> None:
        self._problem = problem
        lives = lifetimes(problem, order)
        touched = {b for t in order[begin:end] for b in self._buffers(t)}
        # Those that were there before and those that are needed after it, whatever happens inside.
        self._before = {b for b in touched if lives[b][0] < begin}
        self._after = {b for b in touched if lives[b][1] >= end}
        self._beside = sum(
            size
            for b, (size, (first, last)) in enumerate(zip(problem.sizes, lives, strict=True))
            if b not in touched and first < begin and last >= end
        )

    def _buffers(self, t: int) -> Iterator[int]:
        task = self._problem.tasks[t]
        yield from task.reads
        yield from task.writes

    def most(self, tasks: Sequence[int]) -> int:
        sizes = self._problem.sizes
        last = {b: position for position, t in enumerate(tasks) for b in self._buffers(t)}
        there = set(self._before)
        live = self._beside + sum(sizes[b] for b in there)
        most = 0
        for position, t in enumerate(tasks):
            new = {b for b in self._buffers(t) if b not in there}
            there |= new
            live += sum(sizes[b] for b in new)
            most = max(most, live + self._problem.tasks[t].workspace)
            gone = {b for b in self._buffers(t) if last[b] == position and b not in self._after}
            there -= gone
            live -= sum(sizes[b] for b in gone)
        return most
