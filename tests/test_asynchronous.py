"""Instructions that start work and wait for it later: checked, overlapped, after errors."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from asynchronous import CopyLater, copy_later

import megbrain_py as mb
from megbrain_py import engine
from megbrain_py import functional as F
from megbrain_py.graph import Graph
from megbrain_py.instruments.check import Checker
from megbrain_py.instruments.profile import profile_of
from megbrain_py.instruments.roof import Roof
from megbrain_py.instruments.trace import Trace
from megbrain_py.lowering.memory_graph import memory_problem
from megbrain_py.lowering.program import Program
from megbrain_py.plan import WAIT, Instruction, Plan, Slot

VECTOR = mb.TensorType((8,), mb.DType.float32)
X = np.arange(8, dtype=np.float32)


def slot(place: int) -> Slot:
    return Slot(VECTOR, "scratch", 64 * place, 0, 9)


def later(source: int, target: int, seconds: float = 0.02, fails: str = "") -> Instruction:
    op = CopyLater(seconds, fails)
    return Instruction("copy_later", (source,), (target,), op.attrs(), "hand.py:1", op=op)


def wait(index: Any, **changes: Any) -> Instruction:
    return replace(Instruction(WAIT, (), (), {}, "hand.py:2", waits_for=index), **changes)


def add(a: int, b: int, target: int) -> Instruction:
    return Instruction("add", (a, b), (target,), {}, "hand.py:3")


def plan(*instructions: Instruction, fetch: int = 2) -> Plan:
    """Slots 0 (the input x), 1, 2 and 3 of eight numbers each; slot 4 lies where 1 lies."""
    slots = tuple(map(slot, (0, 1, 2, 3, 1)))
    return Plan(slots, instructions, {"x": 0}, {"y": fetch}, (), 256, 256)


def run(loaded: engine.Executable, **options: Any) -> np.ndarray:
    y = np.empty(8, np.float32)
    loaded.run({"x": X}, {"y": y}, **options)
    return y


GOOD = plan(later(0, 1), add(0, 0, 3), wait(0), add(1, 3, 2))


@pytest.mark.parametrize("poison", [False, True])
def test_the_copy_is_there_after_the_wait(poison: bool) -> None:
    loaded = engine.Executable(GOOD)
    for _ in range(3):
        np.testing.assert_array_equal(run(loaded, poison=poison), 3 * X)


def test_printed() -> None:
    lines = str(GOOD).splitlines()
    assert lines[-4:] == [
        "  0: s1 = copy_later(s0)   # hand.py:1",
        "  1: s3 = add(s0, s0)   # hand.py:3",
        "  2: wait for 0   # hand.py:2",
        "  3: s2 = add(s1, s3)   # hand.py:3",
    ]


REFUSED = {
    "never_waited_for": (plan(later(0, 1), add(0, 0, 2)), "copy_later at hand.py:1: instruction 0 "
                         "is never waited for"),
    "waited_for_twice": (plan(later(0, 2), wait(0), wait(0)), "wait at hand.py:2: instruction 0 is "
                         "not pending"),
    "wait_before": (plan(wait(1), later(0, 2)), "instruction 1 is not pending"),
    "wait_for_an_ordinary_one": (plan(add(0, 0, 2), wait(0)), "instruction 0 is not pending"),
    "wait_for_itself": (plan(add(0, 0, 2), wait(1)), "instruction 1 is not pending"),
    "wait_for_nothing": (plan(add(0, 0, 2), wait(-1)), "instruction -1 is not pending"),
    "wait_for_a_truth": (plan(later(0, 2), wait(False)), "instruction False is not pending"),
    "output_is_read": (plan(later(0, 1), add(0, 1, 2), wait(0)), "add at hand.py:3: s1 is read "
                       "while instruction 0 may be using s1"),
    "output_is_read_through_another_slot": (plan(later(0, 1), add(0, 4, 2), wait(0)), "s4 is read "
                                            "while instruction 0 may be using s1"),
    "output_is_written": (plan(later(0, 1), add(0, 0, 4), wait(0), add(0, 1, 2)), "s4 is written "
                          "while instruction 0 may be using s1"),
    "input_is_written": (plan(later(0, 1), add(0, 0, 0), wait(0), add(0, 1, 2)), "s0 is written "
                         "while instruction 0 may be using s0"),
    "two_write_one_slot": (plan(later(0, 2), later(0, 2), wait(0), wait(1)), "s2 is written while"),
    "fetched_while_pending": (plan(later(0, 2)), "is never waited for"),
    "wait_with_slots": (plan(later(0, 2), wait(0, inputs=(0,))), "neither slots nor attributes"),
    "wait_with_attributes": (plan(later(0, 2), wait(0, attrs={"a": 1})), "neither slots nor attr"),
    "another_kernel_waits": (plan(later(0, 2), replace(add(0, 0, 3), waits_for=0)), "only wait wa"),
    "wait_without_a_number": (plan(later(0, 2), wait(None)), "no kernel for operator wait"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_plans_that_touch_what_is_pending_are_refused(kind: str) -> None:
    broken, message = REFUSED[kind]
    with pytest.raises(mb.EngineError, match=re.escape(message)):
        engine.Executable(broken)


def test_several_read_a_pending_input() -> None:
    loaded = engine.Executable(plan(later(0, 1), later(0, 3), wait(1), wait(0), add(1, 3, 2)))
    np.testing.assert_array_equal(run(loaded), 2 * X)


def test_in_place() -> None:
    loaded = engine.Executable(plan(add(0, 0, 2), later(2, 2), wait(1)))
    np.testing.assert_array_equal(run(loaded, poison=True), 2 * X)


def test_work_overlaps() -> None:
    """Three copies that take 0.2 s each are done after one's time."""
    starts = [later(0, 1, 0.2), later(0, 3, 0.2), later(0, 2, 0.2)]
    loaded = engine.Executable(plan(*starts, wait(0), wait(1), wait(2)))
    best = float("inf")
    for _ in range(5):  # a busy machine may delay some
        start = time.perf_counter()
        run(loaded)
        best = min(best, time.perf_counter() - start)
    assert 0.19 < best < 0.35


def test_profile_and_trace_show_start_and_wait(tmp_path: Any) -> None:
    made = plan(later(0, 1, 0.1), wait(0), add(0, 1, 2))
    loaded = engine.Executable(made)
    run(loaded, profile=True)
    times = loaded.times()
    seconds = [end - start for start, end in times]
    rows = profile_of(made, [seconds], Roof(1e9, 1e9, 1)).rows
    assert [row.kernel for row in rows] == ["copy_later", "wait (copy_later)", "add"]
    assert rows[0].seconds < 0.05 < rows[1].seconds
    trace = Trace(tmp_path / "trace.json")
    trace.add_run(made, times)
    trace.write()
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    start, end, in_flight = (
        next(e for e in events if e["name"] == name and e["tid"] == track)
        for name, track in (("copy_later", 1), ("wait (copy_later)", 1), ("copy_later", 2))
    )
    assert in_flight["ts"] == start["ts"]
    assert in_flight["ts"] + in_flight["dur"] == pytest.approx(end["ts"] + end["dur"])


def test_an_error_of_the_work_is_reported_at_the_wait() -> None:
    loaded = engine.Executable(plan(later(0, 1, fails="work"), add(0, 0, 2), wait(0)))
    with pytest.raises(mb.EngineError, match=r"copy_later at hand.py:1: the work has failed"):
        run(loaded)
    np.testing.assert_array_equal(loaded.memory(2), 2 * X)  # the one between has run
    with pytest.raises(mb.EngineError, match="the work has failed"):
        run(loaded)


def test_an_error_of_the_start() -> None:
    loaded = engine.Executable(plan(later(0, 1, fails="start"), wait(0), add(0, 1, 2)))
    for _ in range(2):
        with pytest.raises(mb.EngineError, match=r"copy_later at hand.py:1: cannot be started"):
            run(loaded)


class Stops:
    """An observer that raises before an instruction."""

    def __init__(self, at: int) -> None:
        self.at = at

    def before(self, index: int) -> None:
        if index == self.at:
            raise ValueError("stop")

    def after(self, index: int) -> None:
        pass


@pytest.mark.parametrize("fails", ["", "work"])
def test_after_an_error_nothing_pending_touches_memory(fails: str) -> None:
    """The run's own error is reported; what was started has ended when the run returns."""
    copies = plan(later(0, 1, 0.2, fails), later(0, 3, 0.3), add(0, 0, 2), wait(0), wait(1))
    loaded = engine.Executable(copies)
    start = time.perf_counter()
    with pytest.raises(ValueError, match="stop"):
        run(loaded, observer=Stops(2))
    assert time.perf_counter() - start > 0.29  # the second had to end
    np.testing.assert_array_equal(loaded.memory(3), X)
    zeros = engine.Executable(plan(add(0, 0, 1), add(0, 0, 3), add(0, 0, 2)))
    y = np.empty(8, np.float32)
    zeros.run({"x": 0 * X}, {"y": y})
    time.sleep(0.35)
    np.testing.assert_array_equal(loaded.memory(1), 0)
    np.testing.assert_array_equal(loaded.memory(3), 0)


def test_checks_look_at_outputs_after_the_wait() -> None:
    loaded = engine.Executable(GOOD)
    for thorough in (False, True):
        checker = Checker(GOOD, loaded, thorough=thorough)
        np.testing.assert_array_equal(run(loaded, poison=True, observer=checker), 3 * X)


def test_measured_with_its_wait() -> None:
    seconds = engine.measured_seconds(later(0, 1, 0.05), [VECTOR], [VECTOR])
    assert 0.05 <= seconds < 0.5


def pending(made: Plan) -> list[tuple[int, int]]:
    """Positions of asynchronous instructions and of their waits."""
    waits = enumerate(made.instructions)
    return [(step.waits_for, t) for t, step in waits if step.waits_for is not None]


def training_step(seed: int, **options: Any) -> mb.Function:
    """Layers with copies between them, and copies of gradients before they are used."""
    rng = np.random.default_rng(seed)
    weights = [mb.Parameter(rng.standard_normal((32, 32)).astype(np.float32) / 5, f"w{i}")
               for i in range(4)]  # fmt: skip
    values = [mb.placeholder("x", (64, 32))]
    for i in range(12):
        a = values[-1 - int(rng.integers(min(2, len(values))))]
        kind = int(rng.integers(3))
        if kind == 0:
            a = copy_later(a, 0.001, staged=bool(rng.integers(2)))
        values.append(F.tanh(a @ weights[i % 4]) if kind < 2 else F.relu(a + values[-1]))
    loss = F.mean(values[-1] * values[-1])
    gradients = mb.gradients(loss, weights)
    updates = {p: p - 0.1 * copy_later(g, 0.001)
               for p, g in zip(weights, gradients, strict=True)}  # fmt: skip
    return mb.compile({"loss": loss}, updates=updates, **options)


def results(step: mb.Function) -> list[bytes]:
    x = np.random.default_rng(1).standard_normal((64, 32)).astype(np.float32)
    losses = [step(x=x)["loss"].tobytes() for _ in range(2)]
    blocks = [block.array for block in step.plan.state if not block.constant]
    return losses + [array.tobytes() for array in blocks]


@pytest.mark.parametrize("seed", range(8))
def test_under_a_budget(seed: int) -> None:
    """What is pending is neither moved nor given up, and no bit changes."""
    vanilla = training_step(seed)
    expected = results(vanilla)
    overlap = sum(end - start for start, end in pending(vanilla.plan))
    assert overlap
    kept = 0
    for share in (0.9, 0.75, 0.6, 0.5):
        try:
            step = training_step(seed, memory_budget=share, effort="fast")
        except mb.CompileError:
            continue
        kept += bool(step.plan.memory.again)
        assert step.peak_bytes <= share * vanilla.peak_bytes
        assert results(step) == expected
        made = step.plan
        assert sum(end - start for start, end in pending(made)) > overlap / 2
        for start, end in pending(made):
            started = made.instructions[start]
            assert not started.again
            slots = {*started.inputs, *started.outputs, started.workspace} - {None}
            for slot in [made.slots[number] for number in slots]:
                assert slot.first <= start
                assert slot.last >= end
    assert kept


def test_in_place_under_a_budget() -> None:
    """A copy over its input, if nobody else reads it."""
    x = mb.placeholder("x", (64, 32))
    for others in (False, True):
        y = F.exp(x)
        z = copy_later(y)
        program = Program(Graph({"z": F.tanh(z) + y if others else F.tanh(z)}))
        graph = memory_problem(program, lambda *_, **__: 1.0).graph
        start, wait = (graph.tasks[t] for t in (2, 3))
        ((taker, taken),) = start.permits
        assert (start.name, wait.name, taken) == ("copy_later", "wait", start.inputs[0])
        assert (taker == start.outputs[0]) is not others
        assert taken not in wait.inputs
        assert taker in wait.inputs
        assert graph.sizes[taker] == graph.sizes[taken]
        assert start.once
        assert wait.once
