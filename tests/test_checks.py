"""MB_CHECK: planted faults are named, what is right passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

import megbrain_py as mb
from megbrain_py import engine, nn, optim
from megbrain_py import functional as F
from megbrain_py.bench import ours, steps
from megbrain_py.dtypes import Array
from megbrain_py.instruments.check import Checker
from megbrain_py.plan import Instruction, Plan, Slot

VECTOR = mb.TensorType((8,), mb.DType.float32)


def _slot(offset: int, first: int, last: int) -> Slot:
    return Slot(VECTOR, "scratch", offset, first, last)


# s2 = a + b; s3 = a * b; s4 = s2 + s3, written by hand
CHAIN = Plan(
    slots=tuple(
        _slot(64 * n, first, last)
        for n, (first, last) in enumerate([(-1, 1), (-1, 1), (0, 2), (1, 2), (2, 3)])
    ),
    instructions=(
        Instruction("add", (0, 1), (2,), {}, "hand.py:1"),
        Instruction("mul", (0, 1), (3,), {}, "hand.py:2"),
        Instruction("add", (2, 3), (4,), {}, "hand.py:3"),
    ),
    feeds={"a": 0, "b": 1},
    fetches={"c": 4},
    state=(),
    scratch_bytes=320,
    lower_bound=320,
)


def _run_checked(plan: Plan, *, thorough: bool = False) -> Array:
    executable = engine.Executable(plan)
    c = np.empty(8, np.float32)
    feeds = {"a": np.arange(8, dtype=np.float32), "b": np.full(8, 3, np.float32)}
    checker = Checker(plan, executable, thorough=thorough)
    executable.run(feeds, {"c": c}, observer=checker)
    return c


@pytest.mark.parametrize("thorough", [False, True])
def test_a_right_plan_passes(thorough: bool) -> None:
    np.testing.assert_array_equal(_run_checked(CHAIN, thorough=thorough), np.arange(8) * 4 + 3.0)


@pytest.mark.parametrize("thorough", [False, True])
@pytest.mark.parametrize("shift", [0, 28, -28])
def test_overlapping_slots_name_the_instruction_that_overwrote(
    shift: int, thorough: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "check_plan", lambda plan: None)  # which would refuse the plan
    slots = list(CHAIN.slots)
    slots[3] = replace(slots[3], offset=slots[2].offset + shift)
    with pytest.raises(mb.EngineError) as caught:
        _run_checked(replace(CHAIN, slots=tuple(slots)), thorough=thorough)
    first, second, *_ = str(caught.value).splitlines()
    assert first == "check: instruction 1, mul at hand.py:2"
    assert second.startswith("  overwrote slot s2 float32[8], written by instruction 0, add")


def test_an_overwritten_result_is_found_at_the_end() -> None:
    plan = replace(
        CHAIN,
        instructions=(
            *CHAIN.instructions[:2],
            Instruction("add", (2, 3), (4,), {}, "hand.py:3"),
            Instruction("mul", (2, 3), (5,), {}, "hand.py:4"),
        ),
        slots=(*CHAIN.slots, _slot(CHAIN.slots[4].offset, 3, 3)),
    )
    with pytest.raises(mb.EngineError, match=r"3, mul at hand\.py:4\n  overwrote slot s4"):
        _run_checked(plan)


class _FakeExecutable:
    """Memory of CHAIN's slots, into which a test writes as a wrong kernel would."""

    def __init__(self) -> None:
        self.slots = [np.full(8, n, np.float32) for n in range(len(CHAIN.slots))]

    def memory(self, slot: int) -> Array:
        return self.slots[slot]


@pytest.mark.parametrize("thorough", [False, True])
def test_a_kernel_that_writes_outside_of_its_outputs(thorough: bool) -> None:
    fake = _FakeExecutable()
    checker = Checker(CHAIN, fake, thorough=thorough)  # type: ignore[arg-type]
    message = (
        "check: instruction 1, mul at hand.py:2\n"
        if thorough
        else r"check: one of the instructions 1 to 1 writes outside .* \(MB_CHECK=2 names it\)\n"
    )
    with pytest.raises(mb.EngineError, match=message + "  overwrote slot s2"):
        for index in range(len(CHAIN.instructions)):
            checker.before(index)
            if index == 1:
                fake.slots[2][7] += 1  # s2 is none of its outputs
            checker.after(index)


def _hole(values: Sequence[float]) -> Array:
    return np.array(values, np.float32)


def test_nan_names_the_first_instruction(monkeypatch: pytest.MonkeyPatch) -> None:
    x = mb.placeholder("x", (4,))
    line = F.log(x)
    function = mb.compile({"y": F.max(line), "exp": F.exp(line * 2.0) + 1.0})
    monkeypatch.setenv("MB_CHECK", "1")
    function(x=_hole([1, 2, 3, 4]))
    with pytest.raises(mb.EngineError) as caught:
        function(x=_hole([1, -2, 3, -4]))
    lines = str(caught.value).splitlines()
    assert "log at" in lines[0] and "test_checks.py" in lines[0]
    assert lines[1] == "  output 0 float32[4]: 2 NaN and 0 Inf among 4 values, the first at [1]"
    assert lines[2] == "  input 0 float32[4]: finite"


def test_inf_counts_only_when_no_input_had_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MB_CHECK", "1")
    x = mb.placeholder("x", (4,))
    masked = mb.compile({"y": F.max(F.where(x > 2.0, x, -np.inf))})
    assert float(masked(x=_hole([1, 2, 3, 4]))["y"]) == 4
    passed = mb.compile({"y": x * 2.0})(x=_hole([1, np.inf, 3, 4]))["y"]
    assert np.isinf(passed[1])
    overflow = mb.compile({"y": F.exp(x)})
    with pytest.raises(mb.EngineError, match=r"exp at .*\n.*0 NaN and 1 Inf among 4 .* at \[3\]"):
        overflow(x=_hole([1, 2, 3, 1000]))
    with pytest.raises(mb.EngineError, match="sub at"):  # Inf - Inf: no input had NaN
        mb.compile({"y": x - x})(x=_hole([1, np.inf, 3, 4]))


def test_nan_in_inputs_and_parameters_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MB_CHECK", "1")
    x, w = mb.placeholder("x", (2, 2)), mb.Parameter(_hole([1, np.nan]), name="w")
    with pytest.raises(mb.EngineError, match=r"check: input x holds .*1 NaN .* at \[1, 0\]"):
        mb.compile(x * 2.0)(x=_hole([[1, 2], [np.nan, 3]]))
    with pytest.raises(mb.EngineError, match=r"check: w holds float32\[2\]: 1 NaN"):
        mb.compile(x * w)(x=np.ones((2, 2)))


def test_places_are_logical_in_channels_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MB_CHECK", "1")
    x = mb.placeholder("x", (2, 3, 4, 5))
    values = np.ones((2, 3, 4, 5), np.float32)
    values[1, 2, 0, 3] = -1
    y = F.max_pool2d(F.sqrt(F.max_pool2d(x, 1)), 1)
    function = mb.compile({"y": y})
    assert any(s.type.layout == "channels_last" for s in function.plan.slots)
    with pytest.raises(mb.EngineError, match=r"sqrt at .*\n.*channels_last.* at \[1, 2, 0, 3\]"):
        function(x=values)


@pytest.mark.parametrize("level", ["1", "2"])
def test_training_steps_pass(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MB_CHECK", level)
    x, y = mb.placeholder("x", (8, 3, 16, 16)), mb.placeholder("y", (8,), "int64")
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(),
        nn.Linear(8 * 16 * 16, 10),
    )  # fmt: skip
    with nn.train_mode() as updates:
        loss = F.cross_entropy(net(x), y)
    adam = optim.AdamW(net.parameters())
    updates |= adam.updates(loss, mb.placeholder("lr", ()))
    step = mb.compile({"loss": loss}, updates=updates)
    rng = np.random.default_rng(0)
    for _ in range(3):
        found = step(x=rng.standard_normal((8, 3, 16, 16)), y=np.arange(8), lr=0.01)
        assert np.isfinite(found["loss"])


def test_a_detector_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in it makes Inf or NaN on the way, nor reads what was overwritten."""
    monkeypatch.setenv("MB_CHECK", "2")
    step = steps.detector(lambda: None, batch=1, size=64, boxes=3, preset="laptop")
    step.compile()(**step.feeds)
    detect, _ = ours.detect(lambda: None, size=64, preset="laptop")
    detect()


def test_check_refuses_other_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MB_CHECK", "yes")
    with pytest.raises(mb.EngineError, match="MB_CHECK: expected 0, 1 or 2, found 'yes'"):
        mb.compile(mb.placeholder("x", ()) * 2.0)(x=1)
