"""All-reduces that go on while ranks compute: the same bits, real overlap, errors that end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from rank_programs import overlapped

import megbrain_py as mb
from megbrain_py import _engine, distributed, nn  # noqa: TID251  (sets the limit)
from megbrain_py import functional as F
from megbrain_py.dtypes import Array
from megbrain_py.op_testing import normal
from megbrain_py.plan import Plan


@pytest.fixture
def limit() -> Any:
    """A short limit for ranks that never come."""
    _engine.set_collective_limit(1.0)
    yield
    _engine.set_collective_limit(300.0)


def started_and_awaited(plan: Plan) -> list[tuple[int, int]]:
    """Positions of each overlapped all-reduce and of its wait."""
    return [(step.waits_for, at) for at, step in enumerate(plan.instructions)
            if step.waits_for is not None]  # fmt: skip


# --- the same numbers -----------------------------------------------------------------------------


@pytest.mark.parametrize("ranks", [2, 3, 4])
@pytest.mark.parametrize("grouped", [False, True])
def test_the_same_bits_as_the_blocking_one(ranks: int, grouped: bool) -> None:
    """Between start and wait: other work, a blocking collective, another overlapped one."""

    def program(overlap: bool) -> list[Array]:
        rank = distributed.current().rank
        group = distributed.Group(tuple(r % 2 for r in range(ranks))) if grouped else None
        x, y = mb.placeholder("x", (70_001,)), mb.placeholder("y", (33, 5))

        def summed(*values: mb.Var) -> list[mb.Var]:
            return F.all_reduce_together(list(values), group, overlap=overlap)

        first = summed(F.exp(x), F.exp(y))
        second = summed(F.tanh(x))
        between = F.all_reduce(F.tanh(y))
        function = mb.compile([*first, *second, between, F.exp(first[0]) + second[0]])
        feeds = {"x": normal(70_001, seed=rank), "y": normal(33, 5, seed=10 + rank)}
        runs = [list(function(**feeds).values()) for _ in range(3)]
        for other in runs[1:]:
            for a, b in zip(runs[0], other, strict=True):
                np.testing.assert_array_equal(a, b)
        return runs[0]

    blocking = distributed.run(lambda: program(False), ranks)
    for ours, theirs in zip(distributed.run(lambda: program(True), ranks), blocking, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)


def test_buckets_start_within_backward_and_end_before_the_updates() -> None:
    def program() -> Plan:
        x = mb.placeholder("x", (4, 30))
        net = nn.Sequential(*[nn.Linear(30, 30) for _ in range(6)])
        weights = net.parameters()
        gradients = mb.gradients(F.sum(F.square(net(x))), weights)
        summed = distributed.data_parallel(gradients, bucket_bytes=6000)
        updates = {w: w - 0.1 * g for w, g in zip(weights, summed, strict=True)}
        return mb.compile({}, updates=updates).plan

    plan = distributed.run(program, 2)[0]
    kernels = [step.kernel for step in plan.instructions]
    pairs = started_and_awaited(plan)
    assert len(pairs) == kernels.count("all_reduce_later") > 2
    backward = [at for at, name in enumerate(kernels) if "matmul" in name or "linear" in name]
    hidden = [start for start, end in pairs if any(start < at < end for at in backward)]
    assert len(hidden) >= len(pairs) // 2, "all but those at the end have work to hide behind"
    for start, end in pairs:
        outputs = plan.instructions[start].outputs
        readers = [at for at, step in enumerate(plan.instructions)
                   if not set(outputs).isdisjoint(step.inputs) and at != start]  # fmt: skip
        assert end < min(readers)


# --- it goes on meanwhile -------------------------------------------------------------------------


def test_under_a_byte_budget_it_still_overlaps_and_no_bit_changes() -> None:
    def program(**options: Any) -> tuple[Plan, list[bytes]]:
        x = mb.placeholder("x", (256, 32))
        layers = [nn.Sequential(nn.Linear(32, 32, rng=i), nn.Sigmoid()) for i in range(8)]
        net = nn.Sequential(*layers)
        weights = net.parameters()
        gradients = mb.gradients(F.sum(F.square(net(x))), weights)
        summed = distributed.data_parallel(gradients, bucket_bytes=9000)
        updates = {w: w - 0.001 * g for w, g in zip(weights, summed, strict=True)}
        step = mb.compile({}, updates=updates, **options)
        for seed in range(2):
            step(x=normal(256, 32, seed=10 * distributed.current().rank + seed))
        return step.plan, [w.value.tobytes() for w in weights]

    vanilla, expected = distributed.run(program, 2)[0]
    for share in (0.8, 0.6):
        for plan, found in distributed.run(partial(program, memory_budget=share), 2):
            assert plan.scratch_bytes <= share * vanilla.scratch_bytes
            assert plan.memory.again
            assert found == expected
            apart = [end - start for start, end in started_and_awaited(plan)]
            assert len(apart) == len(started_and_awaited(vanilla)) > 1
            assert max(apart) > 3


def test_a_rank_computes_while_the_other_has_not_come() -> None:
    """Rank 1 starts its part only when rank 0 is past its own: a blocking call would never end."""
    passed = threading.Event()

    def act(kernel: str) -> None:
        if distributed.current().rank == 0 and kernel == "tanh":
            passed.set()
        if distributed.current().rank == 1 and kernel == "all_reduce_later":
            assert passed.wait(20), "rank 0 waits for rank 1"

    for found in distributed.run(lambda: overlapped(act), 2):
        np.testing.assert_array_equal(found, np.full(5, 2))


# --- what goes wrong ------------------------------------------------------------------------------


def _error(act: Callable[[str], None], kind: type[Exception] = mb.EngineError) -> str:
    started = time.monotonic()
    with pytest.raises(kind) as raised:
        distributed.run(lambda: overlapped(act), 3)
    assert time.monotonic() - started < 10
    return str(raised.value)


@pytest.mark.usefixtures("limit")
def test_a_rank_that_does_not_start_is_named() -> None:
    def act(kernel: str) -> None:
        if distributed.current().rank == 1 and kernel == "all_reduce_later":
            time.sleep(2.5)

    text = _error(act)
    assert text.startswith("all_reduce_later at ")
    assert "rank_programs.py:" in text
    assert (
        "waited 1 s (MB_COLLECTIVE_TIMEOUT) for rank 1 in an all-reduce of 5 float32, sum" in text
    )


@pytest.mark.parametrize("at", ["all_reduce_later", "tanh", "wait (all_reduce_later)"])
def test_an_exception_frees_the_others(at: str) -> None:
    """Before the start, while it is pending, before the wait."""

    def act(kernel: str) -> None:
        if distributed.current().rank == 2 and kernel == at:
            raise KeyError("rank two")

    assert "rank two" in _error(act, KeyError)


def test_after_an_error_the_next_world_is_sound() -> None:
    test_an_exception_frees_the_others("tanh")
    test_a_rank_computes_while_the_other_has_not_come()


def test_kinds_that_do_not_agree_are_told_apart() -> None:
    """One rank overlaps, the other does not: known before anything is exchanged."""

    def program() -> None:
        x = mb.placeholder("x", (4,))
        own = distributed.current().rank == 1
        (y,) = F.all_reduce_together([F.exp(x)], overlap=own)
        mb.compile(y)(x=np.zeros(4, np.float32))

    with pytest.raises(mb.EngineError, match="the ranks run different programs") as raised:
        distributed.run(program, 2)
    assert "rank 0: all_reduce(" in str(raised.value)
    assert "rank 1: all_reduce_later(" in str(raised.value)


def test_a_group_of_one_overlaps_too() -> None:
    """And the observer, on which these tests stand, sees start, other work, wait."""
    seen: list[str] = []
    np.testing.assert_array_equal(overlapped(seen.append), np.ones(5))
    assert "tanh" in seen[seen.index("all_reduce_later") : seen.index("wait (all_reduce_later)")]
