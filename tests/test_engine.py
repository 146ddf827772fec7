"""The engine alone: hand-written plans, errors with their origin, poisoned memory, threads."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import numpy as np
import pytest

import megbrain_py as mb
from megbrain_py import engine
from megbrain_py import functional as F
from megbrain_py.plan import Instruction, Plan, Slot

VECTOR = mb.TensorType((8,), mb.DType.float32)


def slot(offset: int) -> Slot:
    return Slot(VECTOR, "scratch", offset, 0, 1)


PLAN = Plan(
    slots=(slot(0), slot(64), slot(128)),
    instructions=(
        Instruction("add", (0, 1), (2,), {}, "hand.py:1"),
        Instruction("mul", (2, 2), (2,), {}, "hand.py:2"),
    ),
    feeds={"a": 0, "b": 1},
    fetches={"c": 2},
    state=(),
    scratch_bytes=192,
    lower_bound=192,
)


def run(plan: Plan) -> np.ndarray:
    a, b = np.arange(8, dtype=np.float32), np.ones(8, np.float32)
    c = np.empty(8, np.float32)
    engine.Executable(plan).run({"a": a, "b": b}, {"c": c})
    return c


def test_a_hand_written_plan_runs() -> None:
    np.testing.assert_array_equal(run(PLAN), (np.arange(8) + 1.0) ** 2)


BROKEN = [
    (replace(PLAN, scratch_bytes=150), "outside the scratch arena"),
    (replace(PLAN, slots=(slot(-64), *PLAN.slots[1:])), "outside the scratch arena"),
    (replace(PLAN, fetches={"c": 7}), "slot 7 of 3"),
    (replace(PLAN, slots=(*PLAN.slots[:2], replace(slot(0), arena="state"))), "state block 0 of 0"),
    (
        replace(PLAN, instructions=(Instruction("nonesuch", (0,), (1,), {}, "hand.py:9"),)),
        "nonesuch at hand.py:9: no kernel for operator nonesuch",
    ),
]


@pytest.mark.parametrize(("plan", "message"), BROKEN)
def test_a_broken_plan_is_refused_at_load(plan: Plan, message: str) -> None:
    with pytest.raises(mb.EngineError, match=message):
        engine.Executable(plan)


def test_missing_feed() -> None:
    with pytest.raises(mb.EngineError, match="input b was not fed"):
        engine.Executable(PLAN).run({"a": np.zeros(8, np.float32)}, {})


def test_profile_times_every_instruction() -> None:
    function = mb.compile(F.softmax(mb.placeholder("x", (100_000,)) * 2.0, 0))
    function(x=np.zeros(100_000), profile=True)
    rows = function.profile().rows
    assert [(r.kernel, "test_engine.py" in r.origin) for r in rows] == [
        ("mul", True),
        ("softmax", True),
    ]
    assert all(row.seconds > 0 for row in rows)


def test_a_run_lets_other_threads_work() -> None:
    x = mb.placeholder("x", (1024, 1024))
    y = x
    for _ in range(40):
        y = y @ x
    function = mb.compile(y * 0.0)
    took: list[float] = []

    def run() -> None:
        start = time.perf_counter()
        function(x=np.zeros((1024, 1024), np.float32))
        took.append(time.perf_counter() - start)

    worker = threading.Thread(target=run)
    worker.start()
    longest, last = 0.0, time.perf_counter()
    while not took:
        time.sleep(0)
        now = time.perf_counter()
        longest, last = max(longest, now - last), now
    worker.join()
    assert longest < took[0] / 2, f"the interpreter was held for {longest:.2f} of {took[0]:.2f} s"


def test_runs_from_several_threads_take_turns() -> None:
    function = mb.compile(mb.placeholder("x", (50_000,)) * 2.0 + 1.0)
    wrong: list[int] = []

    def work(number: int) -> None:
        value = np.full(50_000, number, np.float32)
        for _ in range(20):
            if not (function(x=value)["output"] == number * 2 + 1).all():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_profile_is_read_while_another_thread_runs() -> None:
    function = mb.compile(mb.placeholder("x", (50_000,)) * 2.0 + 1.0)
    value = np.zeros(50_000, np.float32)
    function(x=value, profile=True)

    def work() -> None:
        for _ in range(50):
            function(x=value, profile=True)

    thread = threading.Thread(target=work)
    thread.start()
    while thread.is_alive():
        assert len(function.profile().rows) == len(function.plan.instructions)
    thread.join()
