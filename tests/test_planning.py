"""Planning on plain integers against brute force."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from megbrain_py.planning.memory import ALIGNMENT, Buffer, allocate, round_up
from megbrain_py.planning.schedule import Problem, Task, lifetimes, peak, schedule

buffers_strategy = st.lists(
    st.builds(
        lambda size, first, length: Buffer(size, first, first + length),
        st.integers(0, 1000),
        st.integers(-1, 12),
        st.integers(0, 6),
    ),
    max_size=30,
)


@given(buffers_strategy)
@settings(max_examples=200, deadline=None)
def test_live_buffers_never_overlap(buffers: list[Buffer]) -> None:
    allocation = allocate(buffers)
    for (a, x), (b, y) in itertools.combinations(zip(buffers, allocation.offsets, strict=True), 2):
        together = a.first <= b.last and b.first <= a.last
        apart = x + a.size <= y or y + b.size <= x
        assert apart or not together or a.size == 0 or b.size == 0
    for buffer, offset in zip(buffers, allocation.offsets, strict=True):
        assert offset % ALIGNMENT == 0
        assert offset + buffer.size <= allocation.height
    assert allocation.lower_bound <= allocation.height


@given(buffers_strategy)
@settings(max_examples=100, deadline=None)
def test_lower_bound_is_the_most_live_bytes(buffers: list[Buffer]) -> None:
    positions = range(-1, 20)
    live = [sum(round_up(b.size) for b in buffers if b.first <= p <= b.last) for p in positions]
    assert allocate(buffers).lower_bound == max(live)


def best_height(buffers: list[Buffer]) -> int:
    """The least height by trying every order of lowest-gap placement (optimal for some order)."""
    best = sum(round_up(b.size) for b in buffers)
    for order in itertools.permutations(buffers):
        placed: list[tuple[Buffer, int]] = []
        for b in order:
            near = sorted((y, a.size) for a, y in placed if a.first <= b.last and b.first <= a.last)
            at = 0
            for y, size in near:
                if at + round_up(b.size) <= y:
                    break
                at = max(at, y + round_up(size))
            placed.append((b, at))
        best = min(best, max(y + round_up(b.size) for b, y in placed))
    return best


@given(
    st.lists(
        st.builds(
            lambda size, first, length: Buffer(64 * size, first, first + length),
            st.integers(1, 6),
            st.integers(0, 6),
            st.integers(0, 4),
        ),
        min_size=1,
        max_size=6,
    )
)
@settings(max_examples=60, deadline=None)
def test_height_against_brute_force(buffers: list[Buffer]) -> None:
    allocation = allocate(buffers)
    optimum = best_height(buffers)
    assert allocation.lower_bound <= optimum <= allocation.height
    assert allocation.height <= 1.5 * optimum


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    count = draw(st.integers(1, 7))
    tasks: list[Task] = []
    sizes: list[int] = [draw(st.integers(1, 9))]  # buffer 0 is an input
    for t in range(count):
        reads = tuple(sorted(draw(st.sets(st.integers(0, len(sizes) - 1), min_size=1, max_size=3))))
        after = tuple(draw(st.sets(st.integers(0, t - 1), max_size=1))) if t else ()
        tasks.append(Task(reads, (len(sizes),), draw(st.integers(0, 4)), after))
        sizes.append(draw(st.integers(1, 9)))
    keep = frozenset(draw(st.sets(st.integers(0, len(sizes) - 1), max_size=2)))
    return Problem(tasks, sizes, keep)


def is_valid(problem: Problem, order: tuple[int, ...]) -> bool:
    position = {t: p for p, t in enumerate(order)}
    return all(
        position[p] < position[t] for t, before in enumerate(problem.predecessors) for p in before
    )


def peak_by_hand(problem: Problem, order: list[int]) -> int:
    """Simulate: a buffer is live from its writer (or the start) to its last reader (or the end)."""
    lives = lifetimes(problem, order)
    most = 0
    for position, t in enumerate(order):
        live = sum(
            size for size, (a, b) in zip(problem.sizes, lives, strict=True) if a <= position <= b
        )
        most = max(most, live + problem.tasks[t].workspace)
    return most


@given(problems())
@settings(max_examples=80, deadline=None)
def test_schedule_is_valid_and_near_the_best_order(problem: Problem) -> None:
    order = schedule(problem)
    assert sorted(order) == list(range(len(problem.tasks)))
    assert is_valid(problem, tuple(order))
    reached = peak(problem, order)
    # A buffer that dies before position 0 counts at position 0 in `peak`, as it does in memory.
    assert reached >= peak_by_hand(problem, order)
    orders = itertools.permutations(range(len(problem.tasks)))
    best = min(peak(problem, o) for o in orders if is_valid(problem, o))
    assert reached <= 1.6 * best
    assert reached <= peak(problem, range(len(problem.tasks)))


def test_updates_are_made_as_soon_as_their_gradient_is_complete() -> None:
    # a chain of ten layers; each gradient (buffer 10 bytes) feeds an update that frees it
    tasks = [Task((0,), (1,))]
    sizes = [1, 1]
    for _ in range(10):
        tasks.append(Task((1,), (len(sizes),)))
        sizes.append(10)
    for layer in range(10):
        tasks.append(Task((2 + layer,), ()))
    problem = Problem(tasks, sizes)
    assert peak(problem, range(len(tasks))) > 100
    assert peak(problem, schedule(problem)) < 30


def test_many_buffers_take_little_time() -> None:
    rng = np.random.default_rng(0)
    first = rng.integers(0, 2000, 2000)
    buffers = [
        Buffer(int(s), int(f), int(f + n))
        for s, f, n in zip(
            rng.integers(1, 1 << 20, 2000), first, rng.integers(0, 300, 2000), strict=True
        )
    ]
    allocation = allocate(buffers)
    assert allocation.height <= 1.25 * allocation.lower_bound
