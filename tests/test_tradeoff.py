"""mb.pareto: plans for several budgets of one function, as a table, as JSON, as a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import megbrain_py as mb
from megbrain_py import functional as F
from megbrain_py.tradeoff import Tradeoff

WIDTH, LAYERS = 32, 10


@pytest.fixture(autouse=True)
def _costs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MB_COSTS", "roofline")


def step() -> tuple[mb.Var, dict[mb.Parameter, mb.Var]]:
    """A loss and updates: a chain of layers, whose activations the backward pass reads."""
    rng = np.random.default_rng(0)
    weights = [
        mb.Parameter(rng.standard_normal((WIDTH, WIDTH)).astype(np.float32) / 6, f"w{i}")
        for i in range(LAYERS)
    ]
    value = mb.placeholder("x", (256, WIDTH))
    for w in weights:
        value = F.tanh(value @ w)
    loss = F.mean(value * value)
    gradients = mb.gradients(loss, weights)
    return loss, {p: p - 0.1 * g for p, g in zip(weights, gradients, strict=True)}


def curve(**options: Any) -> Tradeoff:
    loss, updates = step()
    return mb.pareto({"loss": loss}, updates=updates, **options)


def entries(found: Tradeoff) -> list[Mapping[str, Any]]:
    return [dict(p) for p in json.loads(json.dumps(found.to_json()))["points"]]


def test_the_default_budgets_reach_from_all_to_the_least() -> None:
    found = curve()
    points = entries(found)
    assert points[0]["share"] == 1.0 and points[0]["extra"] == 0 == points[0]["made_again"]
    tenths = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4]
    assert [p["share"] for p in points[1:-1]] == pytest.approx(tenths, abs=1e-3)
    assert points[-1]["budget_bytes"] == points[-1]["arena_bytes"] == found.least
    assert all(p["feasible"] and p["arena_bytes"] <= p["budget_bytes"] for p in points)
    extra, seconds = [p["extra"] for p in points], [p["seconds"] for p in points]
    assert extra == sorted(extra) and extra[-1] > 0.02
    assert all(p["bound_seconds"] <= s + 1e-12 for p, s in zip(points, seconds, strict=True))
    assert all(p["gap"] == pytest.approx(p["seconds"] / p["bound_seconds"] - 1) for p in points)
    assert points[-1]["made_again"] > 0


def test_each_point_is_what_compile_gives_for_its_budget() -> None:
    loss, updates = step()
    found = mb.pareto({"loss": loss}, updates=updates, budgets=[0.6])
    (point,) = found.points
    compiled = mb.compile({"loss": loss}, updates=updates, memory_budget=0.6)
    assert point.plan is not None
    assert str(point.plan) == str(compiled.plan)
    total = found.to_json()["points"][0]["total_budget_bytes"]
    by_bytes = mb.compile({"loss": loss}, updates=updates, memory_budget=total)
    assert by_bytes.peak_bytes == compiled.peak_bytes


def test_budgets_that_cannot_be_kept_name_the_least() -> None:
    found = curve(budgets=["1KiB", 0.9, 0.02, "1GiB", 0.9])
    points = entries(found)
    assert [p["feasible"] for p in points] == [True, True, False, False]
    assert found.least is not None
    least = found.least + found.plain.state_bytes
    text = str(found)
    assert text.count("cannot be kept") == 2
    assert text.endswith(f"({least} bytes)")
    kept = curve(budgets=[least])
    assert kept.points[0].plan is not None
    assert kept.least is None  # nobody asked


def test_the_table_has_a_row_for_each_budget() -> None:
    lines = str(curve(effort="fast")).splitlines()
    assert lines[0].startswith("time against memory on cpu")
    assert "effort fast" in lines[0] and "KiB of parameters" in lines[0]
    assert " ".join(lines[1].split()) == "budget share arena step extra no less than gap made again"
    assert lines[2].split()[2] == "100.0%"
    assert len({len(line) for line in lines[1:]}) == 1  # aligned


def test_a_function_without_memory_and_one_without_state() -> None:
    p = mb.Parameter(np.ones(4, np.float32), "p")
    nothing = mb.pareto({"p": p})  # not even an instruction
    assert [point.budget for point in nothing.points] == [0]
    assert "100.0%" not in str(nothing)  # a share of nothing
    chain = mb.pareto(F.exp(F.exp(mb.placeholder("x", (64,)))))
    assert chain.points[0].plan is not None and chain.plain.state_bytes == 0


def test_pictures(tmp_path: Path) -> None:
    for number, options in enumerate([{}, {"budgets": [1]}, {"budgets": [1.0]}]):
        path = tmp_path / f"{number}.png"
        curve(effort="fast", **options).draw(path)
        pixels = np.asarray(Image.open(path).convert("RGB"))
        assert pixels.shape[0] > 400
        points = (pixels == (0, 114, 178)).all(-1).any()  # the colour of plans
        assert points == (number != 1)


@pytest.mark.parametrize("budgets", [[], "3GiB", [0.0], [1.5], [True], ["much"], [None]])
def test_what_are_no_budgets(budgets: Any) -> None:
    with pytest.raises(mb.CompileError, match=r"memory_budget|expected a list of budgets"):
        mb.pareto(mb.placeholder("x", (2,)) + 1.0, budgets=budgets)


def test_a_plans_picture_shows_what_runs_again_and_the_memory_without(tmp_path: Path) -> None:
    loss, updates = step()
    colours = {}
    for name, budget in (("plain", None), ("roomy", 1.0), ("tight", 0.6)):
        compiled = mb.compile({"loss": loss}, updates=updates, memory_budget=budget, effort="fast")
        compiled.plan.memory.draw(tmp_path / f"{name}.png")
        pixels = np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB"))
        again, without = (0, 158, 115), (102, 102, 102)
        drawn = [int((pixels == colour).all(-1).sum()) for colour in (again, without)]
        colours[name] = [count > 300 for count in drawn]  # fewer: edges of letters
    assert colours == {"plain": [False, False], "roomy": [False, False], "tight": [True, True]}
