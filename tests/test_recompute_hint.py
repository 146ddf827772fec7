"""recompute_hint: wishes change what is made again under a budget, and no number."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

import megbrain_py as mb
from megbrain_py import costs, nn, optim
from megbrain_py import functional as F

WIDTH, LAYERS, ROWS = 48, 12, 96


@pytest.fixture(autouse=True)
def _costs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MB_COSTS", "roofline")


def chain(hint: Any = None, **options: Any) -> tuple[mb.Function, list[mb.Parameter]]:
    """A step of a chain of products and tanh; hint(k, product, tanh) may replace values."""
    rng = np.random.default_rng(0)
    weights = [
        mb.Parameter(rng.standard_normal((WIDTH, WIDTH)).astype(np.float32) / 6, f"w{k}")
        for k in range(LAYERS)
    ]
    value = mb.placeholder("x", (ROWS, WIDTH))
    for k, w in enumerate(weights):
        value = F.tanh(value @ w)
        value = value if hint is None else hint(k, value)
    loss = F.mean(value * value)
    updates = {p: p - 0.1 * g for p, g in zip(weights, mb.gradients(loss, weights), strict=True)}
    return mb.compile({"loss": loss}, updates=updates, **options), weights


def results(step: mb.Function, weights: list[mb.Parameter]) -> list[bytes]:
    x = np.random.default_rng(1).standard_normal((ROWS, WIDTH)).astype(np.float32)
    losses = [step(x=x)["loss"].tobytes() for _ in range(2)]
    return losses + [p.value.tobytes() for p in weights]


def runs(step: mb.Function) -> Counter[str]:
    """How often the tanh of each layer runs, by the weight that its product reads."""
    slots, found, product = step.plan.slots, Counter[str](), {}
    for one in step.plan.instructions:
        if one.kernel == "matmul" and len(one.inputs) == 2:
            labels = [slots[s].label for s in one.inputs]
            product[one.outputs[0]] = next((n for n in labels if n.startswith("w")), "")
        if one.kernel == "tanh" and product.get(one.inputs[0]):
            found[product[one.inputs[0]]] += 1
    return found


def test_hints_decide_what_is_made_again_and_change_no_number() -> None:
    plain, weights = chain(memory_budget=0.75)
    expected = results(plain, weights)
    chosen = {name for name, count in runs(plain).items() if count > 1}
    others = {f"w{k}" for k in range(LAYERS - 1)} - chosen
    assert chosen and others
    assert plain.plan.budget is not None and plain.plan.budget.hints is None

    def keep(k: int, value: mb.Var) -> mb.Var:
        return mb.recompute_hint(value, keep=True) if f"w{k}" in chosen else value

    step, weights = chain(keep, memory_budget=0.75)
    assert results(step, weights) == expected
    again = {name for name, count in runs(step).items() if count > 1}
    assert again and not again & chosen
    record = step.plan.budget
    assert record is not None and record.hints is not None
    assert record.hints.keep == record.hints.kept == len(chosen) and record.hints.again == 0
    assert step.peak_bytes <= 0.75 * record.vanilla_bytes
    assert record.bound is not None and record.bound <= record.seconds + 1e-12
    text = str(step.plan.memory)
    assert (
        f"hints: 0 of 0 instructions run again as wished, {len(chosen)} of {len(chosen)} are"
        in text
    )
    assert "; without hints +" in text


def test_a_wish_to_make_again_is_followed_though_it_costs_more() -> None:
    plain, weights = chain(memory_budget=0.85)
    expected = results(plain, weights)
    untouched = [name for name in sorted(runs(plain)) if runs(plain)[name] == 1][:3]
    assert len(untouched) == 3

    def again(k: int, value: mb.Var) -> mb.Var:
        return mb.recompute_hint(value) if f"w{k}" in untouched else value

    step, weights = chain(again, memory_budget=0.85)
    assert results(step, weights) == expected
    record = step.plan.budget
    assert record is not None and record.hints is not None and plain.plan.budget is not None
    assert record.hints.again == 3 and record.hints.made_again > 0
    assert any(runs(step)[name] > 1 for name in untouched)
    assert record.hints.seconds == pytest.approx(plain.plan.budget.seconds)
    assert record.vanilla_seconds == pytest.approx(plain.plan.budget.vanilla_seconds)
    assert record.extra > 0
    assert step.plan.memory.to_json()["hints"]["again"] == 3


def test_seconds_without_hints_are_of_the_plan_as_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As all other seconds of the record, not the planner's prices alone."""
    monkeypatch.setattr(costs, "predict", lambda plan, device: 10.0)
    plain, _ = chain(memory_budget=0.75)
    step, _ = chain(lambda k, value: mb.recompute_hint(value), memory_budget=0.75)
    record = step.plan.budget
    assert record is not None and record.hints is not None and plain.plan.budget is not None
    assert record.hints.seconds == pytest.approx(plain.plan.budget.seconds)
    assert record.hints.seconds > 10.0


def test_without_need_hints_do_nothing() -> None:
    def everywhere(k: int, value: mb.Var) -> mb.Var:
        return mb.recompute_hint(value, keep=k % 2 == 0)

    plain, weights = chain()
    hinted, hinted_weights = chain(everywhere)
    kernels = [one.kernel for one in plain.plan.instructions]
    assert [one.kernel for one in hinted.plan.instructions] == kernels
    assert results(hinted, hinted_weights) == results(plain, weights)
    roomy, _ = chain(everywhere, memory_budget="1GiB")
    assert not roomy.plan.memory.again


def test_more_bytes_never_cost_more_with_hints_either() -> None:
    x = mb.placeholder("x", (ROWS, WIDTH))
    weights = [mb.Parameter(np.eye(WIDTH, dtype=np.float32), f"w{k}") for k in range(LAYERS)]
    value = x
    for k, w in enumerate(weights):
        value = mb.recompute_hint(F.tanh(value @ w), keep=k % 3 == 0)
    loss = F.mean(value)
    updates = {p: p - g for p, g in zip(weights, mb.gradients(loss, weights), strict=True)}
    found = mb.pareto({"loss": loss}, updates=updates)
    extra = [p["extra"] for p in found.to_json()["points"] if p["feasible"]]
    assert extra == sorted(extra) and extra[-1] > 0


def test_what_must_be_kept_beyond_the_budget_is_not() -> None:
    step, _ = chain(lambda k, value: mb.recompute_hint(value, keep=True), memory_budget=0.6)
    record = step.plan.budget
    assert record is not None and record.hints is not None
    assert step.peak_bytes <= 0.6 * record.vanilla_bytes
    assert record.hints.kept < record.hints.keep == LAYERS


def test_hints_stand_in_the_way_of_no_fusion() -> None:
    def training(hint: bool) -> mb.Function:
        hook = mb.recompute_hint if hint else F.identity
        convs = [nn.Conv2d(3 if k == 0 else 8, 8, 3, padding=1, rng=k) for k in range(3)]
        norms = [nn.BatchNorm2d(8) for _ in convs]
        value = mb.placeholder("x", (2, 3, 16, 16))
        with nn.train_mode() as statistics:
            for conv, norm in zip(convs, norms, strict=True):
                value = hook(F.relu(hook(norm(hook(conv(value))))))
            loss = F.mean(hook(value * value) + 1.0)
        weights = nn.Sequential(*convs, *norms).parameters()  # which gives them names
        updates = {**statistics, **optim.SGD(weights).updates(loss, 0.1)}
        return mb.compile({"loss": loss}, updates=updates)

    plain, hinted = training(False), training(True)
    assert [one.kernel for one in hinted.plan.instructions] == [
        one.kernel for one in plain.plan.instructions
    ]
    assert hinted.peak_bytes == plain.peak_bytes


@pytest.mark.parametrize("keep", [False, True])
def test_what_nothing_makes_takes_no_hint(keep: bool) -> None:
    parameter = mb.Parameter(np.ones(3, np.float32), "p")
    for value in (mb.placeholder("x", (3,)), parameter, mb.constant(1.0)):
        with pytest.raises(
            mb.GraphError, match="recompute_hint: expected a value that is computed"
        ):
            mb.recompute_hint(value, keep=keep)
    with pytest.raises(mb.GraphError, match="recompute_hint: expected a Var, found float"):
        mb.recompute_hint(1.0)  # type: ignore[arg-type]
