"""compile(memory_budget=...): the arena keeps it, no bit changes, what cannot be says so."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import megbrain_py as mb
from megbrain_py import functional as F
from megbrain_py import nn, optim
from megbrain_py.graph import Graph
from megbrain_py.lowering import lower_within
from megbrain_py.lowering.memory_graph import memory_problem
from megbrain_py.lowering.program import Program
from megbrain_py.lowering.updates import place_updates
from megbrain_py.models.resnet import resnet
from megbrain_py.plan import Instruction, Plan
from megbrain_py.planning.memory import ALIGNMENT
from megbrain_py.planning.sizes import parse_size, show_size

IMAGES, SIDE = 8, 96


def training_step(**options: Any) -> tuple[mb.Function, list[mb.Parameter]]:
    """A step of SGD with momentum on a ResNet-18, with batch norm's statistics and dropout."""
    net = resnet("resnet18", rng=0)
    x = mb.placeholder("x", (IMAGES, 3, SIDE, SIDE))
    y, key = mb.placeholder("y", (IMAGES,), "int64"), mb.placeholder("key", (1,), "int64")
    with nn.train_mode() as statistics:
        logits = F.dropout(net(x), key, 0.3)
        loss = F.cross_entropy(logits, y)
    sgd = optim.SGD(net.parameters(), momentum=0.9, weight_decay=1e-4)
    updates = {**statistics, **sgd.updates(loss, 0.05)}
    return mb.compile({"loss": loss}, updates=updates, **options), list(updates)


def feeds() -> Mapping[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "x": rng.standard_normal((IMAGES, 3, SIDE, SIDE)).astype(np.float32),
        "y": rng.integers(0, 1000, IMAGES),
        "key": np.array([12345]),
    }


def results(step: mb.Function, updated: list[mb.Parameter]) -> list[bytes]:
    losses = [step(**feeds())["loss"].tobytes() for _ in range(2)]
    return losses + [p.value.tobytes() for p in updated]


def test_budgets_are_kept_and_change_no_bit() -> None:
    vanilla, updated = training_step()
    expected = results(vanilla, updated)
    assert vanilla.plan.budget is None
    assert not vanilla.plan.memory.again
    extra = []
    for share in (0.9, 0.75, 0.65):
        step, updated = training_step(memory_budget=share)
        record = step.plan.budget
        assert record is not None
        assert step.peak_bytes <= share * vanilla.peak_bytes
        assert record.bound is not None
        assert record.bound <= record.seconds + 1e-12
        assert step.plan.memory.again, "it fits without making anything again: too easy"
        assert results(step, updated) == expected
        extra.append(record.extra)
    assert extra == sorted(extra)
    assert extra[0] > 0


def test_what_runs_once() -> None:
    x, key = mb.placeholder("x", (4, 3, 8, 8)), mb.placeholder("key", (1,), "int64")
    net = nn.Sequential(nn.Conv2d(3, 8, 3, rng=0), nn.BatchNorm2d(8), nn.ReLU())
    with nn.train_mode() as statistics:
        loss = F.mean(F.dropout(net(x), key, 0.3))
    updates = {**statistics, **optim.SGD(net.parameters()).updates(loss, 0.1)}
    program = Program(Graph({"loss": loss}, updates))
    place_updates(program)
    tasks = memory_problem(program, lambda *_, **__: 1.0).graph.tasks
    once = {task.name for task in tasks if task.once}
    free = {task.name for task in tasks if not task.once}
    assert {"channel_moments", "sgd_update"} <= once - free
    assert {"conv2d", "channel_normalise", "relu", "dropout"} <= free - once


def test_equal_steps_are_priced_once() -> None:
    x = mb.placeholder("x", (2, 3))
    program = Program(Graph({"y": F.exp(F.relu(F.relu(x)))}))
    priced: list[str] = []

    def price(instruction: Instruction, *_: Any, **__: Any) -> float:
        priced.append(instruction.kernel)
        return float(len(priced))

    tasks = memory_problem(program, price).graph.tasks
    assert priced == ["relu", "exp"]
    assert [task.cost for task in tasks] == [0.0, 1.0, 1.0, 2.0]


def test_runs_under_a_budget_are_in_place_where_they_may() -> None:
    """A gradient is written over the value that the budgeted step reads last, as without one."""

    def in_place(plan: Plan) -> int:
        slots = plan.slots
        return sum(
            bool({slots[s].offset for s in i.outputs} & {slots[s].offset for s in i.inputs})
            for i in plan.instructions
            if i.kernel in {"channel_relu_affine_sum", "channel_affine_sum"}
        )

    vanilla, _ = training_step()
    step, _ = training_step(memory_budget=0.75)
    assert step.plan.memory.again
    assert in_place(vanilla.plan) > 10
    assert in_place(step.plan) > 0.8 * in_place(vanilla.plan)


def test_state_counts_in_a_budget_of_bytes() -> None:
    vanilla, _ = training_step()
    wanted = vanilla.plan.state_bytes + int(0.8 * vanilla.peak_bytes)
    step, _ = training_step(memory_budget=wanted, effort="fast")
    assert step.plan.state_bytes + step.peak_bytes <= wanted
    assert "of parameters and constants" in str(step.plan.memory)
    assert step.plan.memory.to_json()["budget_bytes"] == wanted - step.plan.state_bytes


def test_a_budget_that_is_large_enough_changes_nothing() -> None:
    vanilla, _ = training_step()
    step, _ = training_step(memory_budget="16GiB")
    assert [s.kernel for s in step.plan.instructions] == [
        s.kernel for s in vanilla.plan.instructions
    ]
    assert step.plan.budget is not None
    assert step.plan.budget.extra == 0
    assert "as without a budget" in str(step.plan.memory)


def test_where_all_fits_nothing_is_priced() -> None:
    x = mb.placeholder("x", (2, 3))

    def price(*_: Any, **__: Any) -> float:
        raise AssertionError("measured though it fits")

    graph = Graph({"y": x + 1.0})
    (plan,) = lower_within(graph, lambda *_: 0, price, price, ["1GiB"])
    assert isinstance(plan, Plan)
    assert plan.budget is not None
    assert plan.budget.seconds == 0


def test_the_least_budget_that_is_named_can_be_kept() -> None:
    with pytest.raises(mb.CompileError) as refused:
        training_step(memory_budget=0.05)
    text = str(refused.value)
    assert re.search(r"\n  peak: .* at instruction \d+, .*; live there:\n", text)
    assert text.count("resnet.py:") >= 10  # largest tensors, with the user's lines
    least = re.search(r"\((\d+) bytes\)", text)
    assert least is not None
    step, _ = training_step(memory_budget=int(least[1]))
    assert step.plan.state_bytes + step.peak_bytes <= int(least[1])


@pytest.mark.parametrize("budget", [0.0, 1.5, -1.0, True, "much", "3 parsec", [1]])
def test_what_is_no_budget(budget: Any) -> None:
    with pytest.raises(mb.CompileError, match="memory_budget"):
        mb.compile(mb.placeholder("x", (2,)) + 1.0, memory_budget=budget)


def test_sizes() -> None:
    assert parse_size("3GiB") == 3 * 2**30
    assert parse_size(" 1.5 mb ") == 1_500_000
    assert parse_size("4096") == 4096
    assert show_size(3 * 2**29) == "1.50 GiB"
    assert show_size(12) == "12 bytes"


@pytest.mark.parametrize("seed", range(12))
def test_random_graphs(seed: int) -> None:
    """Equal bits and a kept budget for a chain with branches, its gradient and its updates."""
    rng = np.random.default_rng(seed)
    weights = [mb.Parameter(rng.standard_normal((16, 16)).astype(np.float32) / 4, f"w{i}")
               for i in range(4)]  # fmt: skip
    before = [p.value.copy() for p in weights]

    def build(**options: Any) -> mb.Function:
        values = [mb.placeholder("x", (64, 16))]
        draw = np.random.default_rng(seed + 100)
        for i in range(10):
            a = values[-1 - int(draw.integers(min(3, len(values))))]
            kind = int(draw.integers(3))
            made = F.tanh(a @ weights[i % 4]) if kind == 0 else F.sigmoid(a) * values[-1]
            values.append(made if kind < 2 else F.relu(a + values[0]))
        loss = F.mean(values[-1] * values[-1])
        gradients = mb.gradients(loss, weights)
        updates = {p: p - 0.1 * g for p, g in zip(weights, gradients, strict=True)}
        return mb.compile({"loss": loss}, updates=updates, **options)

    def run(step: mb.Function) -> list[bytes]:
        for p, value in zip(weights, before, strict=True):
            p.set(value)
        x = np.random.default_rng(1).standard_normal((64, 16)).astype(np.float32)
        found = [step(x=x)["loss"].tobytes() for _ in range(2)]
        return found + [p.value.tobytes() for p in weights]

    vanilla = build()
    expected = run(vanilla)
    kept = 0
    for share in (0.95, 0.8, 0.65, 0.5):
        try:
            step = build(memory_budget=share)
        except mb.CompileError:
            continue
        kept += 1
        assert step.peak_bytes <= share * vanilla.peak_bytes
        assert step.peak_bytes % ALIGNMENT == 0
        assert run(step) == expected
    assert kept or vanilla.peak_bytes < 10 * 64 * 16 * 4
