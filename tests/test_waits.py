"""Where waits go: planning/waits.py on random problems, and the plans of graphs with such work."""

from __future__ import annotations

import random
import time

import numpy as np
import pytest
from asynchronous import copy_later

import megbrain_py as mb
from megbrain_py import engine, reference
from megbrain_py import functional as F
from megbrain_py.graph import Graph, placeholder
from megbrain_py.plan import Plan
from megbrain_py.planning.schedule import Problem, Task, peak, schedule
from megbrain_py.planning.waits import delay
from megbrain_py.viz.memory import memory_profile


def random_problem(seed: int) -> tuple[Problem, set[int]]:
    """A DAG in which some tasks are asynchronous: a wait, right after each, reads all it uses."""
    rng = random.Random(seed)
    tasks: list[Task] = []
    sizes: list[int] = []
    behind: dict[int, int] = {}  # buffer -> the wait that its readers come after
    waits: set[int] = set()
    while len(tasks) < 30:
        reads = tuple(sorted(rng.sample(range(len(sizes)), min(len(sizes), rng.randint(0, 2)))))
        after = tuple(behind[b] for b in reads if b in behind)
        sizes.append(rng.randint(0, 9))
        made = len(sizes) - 1
        tasks.append(Task(reads, (made,), rng.choice((0, 0, 4)), after))
        if rng.random() < 0.3:
            behind[made] = len(tasks)
            waits.add(len(tasks))
            tasks.append(Task((*reads, made), (), 0, (len(tasks) - 1,)))
    return Problem(tasks, sizes, frozenset({len(sizes) - 1})), waits


@pytest.mark.parametrize("seed", range(200))
def test_delay_keeps_dependences_memory_and_the_order_of_waits(seed: int) -> None:
    problem, waits = random_problem(seed)
    order = schedule(problem)
    for limit in (0, peak(problem, order), peak(problem, order) + 10, 10**9):
        late = delay(problem, order, waits, limit)
        assert sorted(late) == sorted(order)
        place = {t: position for position, t in enumerate(late)}
        assert all(place[p] < place[t] for t in late for p in problem.predecessors[t])
        assert [t for t in late if t in waits] == [t for t in order if t in waits]
        assert peak(problem, late) <= max(limit, peak(problem, order))
        if limit == 0:
            assert late == order


@pytest.mark.parametrize("seed", range(50))
def test_with_memory_to_spare_only_dependent_tasks_come_after_a_wait(seed: int) -> None:
    problem, waits = random_problem(seed)
    late = delay(problem, schedule(problem), waits, 10**9)
    behind: set[int] = set()
    for t in late:
        if t in waits or behind & problem.predecessors[t]:
            behind.add(t)
        else:
            assert not behind, "an independent task runs after a wait"


def places(plan: Plan) -> list[str]:
    return [plan.title(step) for step in plan.instructions]


def _with_room(y: mb.Var) -> mb.Function:
    """A function whose peak lies elsewhere, so that waits may come late."""
    large = F.sum(F.tanh(mb.placeholder("large", (1 << 16,)) + 1.0))
    return mb.compile({"y": y, "large": large})


LARGE = np.zeros(1 << 16, np.float32)


def test_work_that_does_not_depend_on_it_runs_before_the_wait() -> None:
    x = mb.placeholder("x", (40, 40))
    later = copy_later(x + 1.0)
    y = x
    for _ in range(3):
        y = y @ x
    shown = places(_with_room(later @ y).plan)
    start, wait = shown.index("copy_later"), shown.index("wait (copy_later)")
    assert shown[start:wait].count("matmul") == 3, shown
    assert shown[wait + 1] == "matmul"


def test_the_time_of_the_work_is_hidden() -> None:
    x = mb.placeholder("x", (16, 16))
    both = _with_room(copy_later(x + 1.0, 0.15) + copy_later(x + 2.0, 0.15))
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        both(x=np.zeros((16, 16)), large=LARGE)
        best = min(best, time.perf_counter() - start)
    assert 0.14 < best < 0.28


def test_waiting_later_takes_no_more_memory() -> None:
    """Where memory is at its peak the wait comes early."""
    x = mb.placeholder("x", (1000,))
    later = copy_later(x * 2.0)
    small = F.sum(later)
    wide = [F.exp(x * float(k)) for k in range(2, 8)]
    step = mb.compile({"small": small, **{f"w{k}": w for k, w in enumerate(wide)}})
    plain = mb.compile({"small": F.sum(F.exp(x * 2.0)), **{f"w{k}": w for k, w in enumerate(wide)}})
    assert step.peak_bytes <= plain.peak_bytes + 4096, "the copy's input is kept by its wait"


@pytest.mark.parametrize("staged", [False, True])
def test_slots_live_until_the_wait(staged: bool) -> None:
    x = mb.placeholder("x", (64, 64))
    later = copy_later(x @ x, staged=staged)
    plan = mb.compile({"y": later @ x, "z": F.tanh(x) @ x}).plan
    (wait,) = [t for t, step in enumerate(plan.instructions) if step.waits_for is not None]
    started = plan.instructions[plan.instructions[wait].waits_for or 0]
    slots = [*started.inputs, *started.outputs]
    assert (started.workspace is not None) == staged
    if started.workspace is not None:
        slots.append(started.workspace)
    assert all(plan.slots[s].last >= wait for s in slots)
    assert memory_profile(plan).peak_bytes <= plan.scratch_bytes


def test_an_update_waits_for_who_still_reads_the_parameter() -> None:
    p = mb.Parameter(np.arange(4.0, dtype=np.float32), "p")
    old = copy_later(p, 0.1)
    step = mb.compile({"old": old}, updates={p: p + 1.0})
    for k in range(3):
        np.testing.assert_array_equal(step()["old"], np.arange(4) + k)


def test_an_update_that_is_written_later() -> None:
    p = mb.Parameter(np.zeros(4, np.float32), "p")
    x = mb.placeholder("x", (4,))
    step = mb.compile({"twice": p * 2.0}, updates={p: copy_later(x + p, 0.05)})
    np.testing.assert_array_equal(step(x=np.ones(4))["twice"], 0)
    np.testing.assert_array_equal(step(x=np.ones(4))["twice"], 2)
    np.testing.assert_array_equal(p.value, 2)


def test_gradients_go_through() -> None:
    p = mb.Parameter(np.ones((8, 8), np.float32), "p")
    x = mb.placeholder("x", (8, 8))
    (dp,) = mb.gradients(F.sum(F.square(copy_later(x @ p, 0.01))), [p])
    (expected,) = mb.gradients(F.sum(F.square(x @ p)), [p])
    found = mb.compile({"a": dp, "b": expected})(x=np.arange(64).reshape(8, 8))
    np.testing.assert_array_equal(found["a"], found["b"])


@pytest.mark.parametrize("seed", range(40))
def test_random_graphs_with_copies_give_the_references_values(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On poisoned memory, with values checked after each instruction."""
    monkeypatch.setenv("MB_POISON", "1")
    monkeypatch.setenv("MB_CHECK", "2" if seed % 2 else "0")
    rng = np.random.default_rng(seed)
    values = [placeholder("x", mb.TensorType((30, 30), mb.DType.float32))]
    for _ in range(20):
        a, b = (values[rng.integers(len(values))] for _ in range(2))
        kind = rng.integers(5)
        if kind < 2:
            values.append(copy_later(a, float(rng.choice([0, 0.002])), staged=bool(kind)))
        else:
            values.append((F.tanh(a), a + b, F.tanh(a @ b))[kind - 2])
    outputs = {f"y{n}": v for n, v in enumerate(values[-4:])}
    p = mb.Parameter(np.ones((30, 30), np.float32), "p")
    function = mb.compile(outputs, updates={p: values[5] + p})
    feed = rng.uniform(-1, 1, (30, 30)).astype(np.float32)
    wanted = reference.evaluate(Graph(outputs), {"x": feed})
    for _ in range(2):
        found = function(x=feed)
        for name, value in wanted.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-5)
    assert any(step.waits_for is not None for step in function.plan.instructions)
    assert engine.arena_bytes() >= function.peak_bytes
