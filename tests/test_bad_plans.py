"""A plan edited by hand is refused when it is loaded, with what and where; it never crashes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import megbrain_py as mb
from megbrain_py import engine
from megbrain_py import functional as F
from megbrain_py.plan import Instruction, Plan, Slot


def _made() -> Plan:
    """A convolution in channels_last, views, an in-place write, two outputs, an update."""
    x = mb.placeholder("x", (2, 3, 8, 8))
    w = mb.Parameter(np.ones((16, 3, 3, 3), np.float32), "w")
    means = F.mean(F.relu(F.conv2d(x, w, padding=1)), (2, 3))
    values, places = F.top_k(means, 4)
    return mb.compile({"values": values, "places": places}, updates={w: w * 0.5}).plan


PLAN = _made()
KERNELS = [instruction.kernel for instruction in PLAN.instructions]
CONV, RELU, MEAN, TOP_K, MUL = (
    KERNELS.index(kernel) for kernel in ("conv2d", "relu", "mean", "top_k", "mul")
)


def step(at: int, **changes: Any) -> Plan:
    """The plan with one instruction changed."""
    steps = list(PLAN.instructions)
    steps[at] = replace(steps[at], **changes)
    return replace(PLAN, instructions=tuple(steps))


def slot(number: int, plan: Plan = PLAN, **changes: Any) -> Plan:
    """A plan with one slot changed."""
    slots = list(plan.slots)
    slots[number] = replace(slots[number], **changes)
    return replace(plan, slots=tuple(slots))


def typed(number: int, **changes: Any) -> Plan:
    """The plan with one slot's type changed."""
    return slot(number, type=replace(PLAN.slots[number].type, **changes))


def output(at: int, which: int = 0) -> int:
    return PLAN.instructions[at].outputs[which]


def source(at: int, which: int = 0) -> int:
    return PLAN.instructions[at].inputs[which]


def workspace(at: int) -> int:
    number = PLAN.instructions[at].workspace
    assert number is not None
    return number


def by_hand(at: int, **changes: Any) -> Plan:
    """The plan with an instruction that has attributes but no operator."""
    return step(at, op=None, attrs={**PLAN.instructions[at].attrs, **changes})


def moved(number: int, onto: int) -> Plan:
    return slot(number, offset=PLAN.slots[onto].offset)


def as_state(number: int, block: int) -> Plan:
    return slot(number, arena="state", offset=block)


def with_scratch(size: int) -> Plan:
    """One more slot, of this size."""
    big = Slot(mb.TensorType((size,), mb.DType.uint8), "scratch", 0, 0, 0)
    return replace(PLAN, slots=(*PLAN.slots, big), scratch_bytes=size)


def orphan() -> Plan:
    """An instruction between slots of its own, before which nothing was written."""
    vector = mb.TensorType((16,), mb.DType.float32)
    n, end = len(PLAN.slots), PLAN.scratch_bytes
    slots = tuple(Slot(vector, "scratch", end + 64 * i, 0, 9) for i in range(2))
    one = Instruction("add", (n, n), (n + 1,), {}, "hand.py:1")
    two = Instruction("add", (n + 1, n + 1), (n,), {}, "hand.py:2")
    return replace(
        PLAN,
        slots=PLAN.slots + slots,
        instructions=(*PLAN.instructions, one, two),
        scratch_bytes=end + 128,
    )


BAD: dict[str, tuple[Callable[[], Plan], str]] = {
    "a kernel that does not exist": (
        lambda: step(RELU, kernel="rule", op=None), "rule at .*: no kernel for operator rule"),
    "another kernel": (lambda: step(RELU, kernel="exp"), "exp at .* are not those of relu"),
    "an operator without kernel": (
        lambda: step(RELU, kernel="stop_gradient", op=None), "stop_gradient at .*: is a view"),
    "an input too few": (lambda: step(CONV, inputs=(source(CONV),)), "conv2d at .*argument"),
    "an input too many": (
        lambda: step(RELU, inputs=(source(RELU),) * 2), "relu at .* positional argument"),
    "no output": (lambda: step(RELU, outputs=()), "relu at .*: gives .*, its slots are nothing"),
    "inputs exchanged": (
        lambda: step(CONV, inputs=PLAN.instructions[CONV].inputs[::-1]), "conv2d at .*x"),
    "outputs exchanged": (
        lambda: step(TOP_K, outputs=PLAN.instructions[TOP_K].outputs[::-1]), "top_k at .*gives"),
    "a slot that does not exist": (lambda: step(RELU, inputs=(99,)), "relu at .*: slot 99 of"),
    "a slot by name": (lambda: step(RELU, inputs=("s1",)), "relu at .*: slot s1 of"),
    "a negative slot": (lambda: step(RELU, inputs=(-1,)), "relu at .*: slot -1 of"),
    "another element type": (
        lambda: typed(output(TOP_K, 1), dtype=mb.DType.int32), "top_k at .*gives .*int64"),
    "another shape": (lambda: typed(output(RELU), shape=(2, 16, 8, 9)), "relu at .*: gives"),
    "a negative size": (lambda: typed(output(RELU), shape=(2, -16, 8, 8)), "impossible sizes"),
    "sizes that overflow": (
        lambda: typed(output(RELU), shape=(2**32, 2**32, 8, 8)), "impossible sizes"),
    "a size that is no integer": (lambda: typed(output(RELU), shape=(2, 16, 8, 8.0)), "impossible"),
    "another layout": (lambda: typed(output(RELU), layout="rows"), "relu at .*layouts"),
    "a layout that does not exist": (lambda: typed(0, layout="nhwc"), "s0: unknown layout nhwc"),
    "channels_last of rank 2": (
        lambda: typed(source(TOP_K), layout="channels_last"), "only rank 4 can be channels_last"),
    "an arena that does not exist": (lambda: slot(0, arena="heap"), "s0: unknown arena heap"),
    "outside of the arena": (
        lambda: slot(0, offset=PLAN.scratch_bytes), "slot s0: bytes .* outside the scratch arena"),
    "before the arena": (lambda: slot(0, offset=-64), "slot s0: bytes .* outside the scratch"),
    "an odd offset": (lambda: slot(0, offset=2), "slot s0: offset 2 is no multiple of 64"),
    "a smaller arena": (lambda: replace(PLAN, scratch_bytes=64), "outside the scratch arena of 64"),
    "more memory than there is": (lambda: with_scratch(1 << 46), "bytes of scratch"),
    "an output over an input": (
        lambda: moved(output(TOP_K), source(TOP_K)), "top_k at .*is written over .*, which it"),
    "two outputs in one place": (
        lambda: moved(output(TOP_K, 1), output(TOP_K)), "top_k at .*are written over each other"),
    "a workspace over an input": (
        lambda: moved(source(CONV), workspace(CONV)), "conv2d at .*is written over"),
    "a workspace over an output": (
        lambda: moved(workspace(CONV), output(CONV)), "conv2d at .*written over each other"),
    "too little workspace": (
        lambda: slot(workspace(CONV), type=mb.TensorType((8,), mb.DType.uint8)),
        "conv2d at .*: the plan gives 8 bytes of workspace, the kernel needs"),
    "no workspace": (lambda: step(TOP_K, workspace=None), "top_k at .*gives 0 bytes of workspace"),
    "instructions turned round": (
        lambda: replace(PLAN, instructions=PLAN.instructions[::-1]), "is read before it is"),
    "an instruction left out": (
        lambda: replace(PLAN, instructions=PLAN.instructions[1:]), "relu at .*is read before"),
    "a circle": (orphan, "add at hand.py:1: slot s12 .*is read before it is written"),
    "a value that was overwritten": (
        lambda: replace(PLAN, fetches={"x": PLAN.feeds["x"], "y": output(CONV)}),
        "output .*: slot .*is read before it is written"),
    "a feed into a parameter": (
        lambda: replace(PLAN, feeds={"x": source(CONV, 1)}), "input x: slot .*the state arena"),
    "an output that does not exist": (
        lambda: replace(PLAN, fetches={"y": 50}), "output y: slot 50 of 12"),
    "a block that does not exist": (
        lambda: as_state(source(CONV, 1), 7), "slot s2: state block 7 of 2"),
    "a block of another size": (lambda: as_state(source(CONV, 1), 1), "s2: .*is bound to constant"),
    "attributes of another call": (
        lambda: step(CONV, attrs={**PLAN.instructions[CONV].attrs, "groups": 3}),
        "conv2d at .*: kernel and attributes .* are not"),
    "an attribute out of range": (lambda: by_hand(TOP_K, k=17), "top_k at .*k"),
    "an attribute of another type": (lambda: by_hand(TOP_K, k="4"), "top_k at .*"),
    "an attribute that is no number": (lambda: by_hand(CONV, stride=(0, 0)), "conv2d at .*stride"),
    "an unknown attribute": (lambda: by_hand(TOP_K, sorted=True), "top_k at .*sorted"),
    "an attribute left out": (lambda: step(TOP_K, op=None, attrs={"k": 4}), "top_k at .*"),
    "an attribute too short": (lambda: by_hand(CONV, stride=(1,)), "conv2d at .*"),
    "a negative axis": (lambda: by_hand(MEAN, axes=(-9, 3)), "mean at .*ax"),
    "an axis twice": (lambda: by_hand(MEAN, axes=(3, 3)), "mean at .*gives"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_is_refused(name: str) -> None:
    make, message = BAD[name]
    with pytest.raises(mb.EngineError, match=rf"^load: (.|\n)*{message}"):
        engine.Executable(make())


def test_the_plan_itself_runs() -> None:
    x = np.ones((2, 3, 8, 8), np.float32)
    values, places = np.empty((2, 4), np.float32), np.empty((2, 4), np.int64)
    engine.Executable(PLAN).run({"x": x}, {"values": values, "places": places})
    assert np.ptp(values) == 0
    by_attributes = [by_hand(at) for at in (RELU, MEAN, TOP_K, MUL)]
    for plan in by_attributes:
        engine.Executable(plan)


def test_plans_edited_at_random_run_or_are_refused() -> None:
    program = Path(__file__).with_name("plan_mutations.py")
    done = subprocess.run(
        [sys.executable, str(program), "200"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "mutations: 200 plans: " in done.stdout
