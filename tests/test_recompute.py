"""Recomputation under a budget: against brute force, closed forms, and what must always hold."""

from __future__ import annotations

import dataclasses
import json
import random
from math import comb
from pathlib import Path
from typing import Any

import pytest

from megbrain_py import _planner  # noqa: TID251
from megbrain_py.cli.main import main
from megbrain_py.planning import benchmark_graphs
from megbrain_py.planning.benchmark_graphs import never_again, random_training
from megbrain_py.planning.memplan import MemoryGraph, Task, from_json, read, to_json
from megbrain_py.planning.recompute import (
    LIMITS,
    Planner,
    Schedule,
    events,
    lower_bound,
    measure,
    native,
    plan,
    vanilla_peak,
)
from megbrain_py.planning.replay import ReplayError, highest_byte, replay
from megbrain_py.planning.stages import solve_stages
from tests.data_files import real
from tests.memory_graphs import least_cost, random_graph, with_updates

NEVER = float("inf")


def check(graph: MemoryGraph, schedules: list[Schedule]) -> None:
    """What holds for every answer; `schedules` by rising budget."""
    before = NEVER
    for schedule in schedules:
        if schedule.runs is None:
            assert before == NEVER, "a smaller budget had a schedule"
            assert schedule.least_feasible > schedule.budget
            continue
        seen = replay(graph, events(graph, schedule.runs))
        assert seen.peak == schedule.peak
        assert seen.peak <= schedule.budget
        assert schedule.cost is not None
        assert seen.cost == pytest.approx(schedule.cost)
        assert schedule.lower_bound is not None
        assert schedule.base_cost <= schedule.lower_bound <= schedule.cost <= before
        before = schedule.cost


@pytest.mark.parametrize("seed", range(60))
def test_small_graphs_are_optimal_at_every_budget(seed: int) -> None:
    graph = random_graph(seed)
    top = max(vanilla_peak(graph), sum(graph.sizes))
    budgets = list(range(max(1, top // 4), top + 1, 2))
    schedules = plan(graph, budgets)
    assert [s.cost for s in schedules] == [least_cost(graph, b) for b in budgets]
    check(graph, schedules)


@pytest.mark.parametrize("seed", range(60))
def test_tasks_that_run_once_are_never_run_again(seed: int) -> None:
    """Against brute force: the exact search, the heuristics without it, bound and floor."""
    graph = random_graph(seed, once=(0.2, 0.5, 0.9)[seed % 3])
    top = max(vanilla_peak(graph), sum(graph.sizes))
    budgets = list(range(max(1, top // 4), top + 1, 2))
    least = [least_cost(graph, b) for b in budgets]
    schedules = plan(graph, budgets)
    assert [s.cost for s in schedules] == least
    check(graph, schedules)
    limits = dataclasses.replace(LIMITS["default"], exact_tensors=0, work=300_000)
    heuristic = Planner(graph, limits, lambda _: None)
    check(graph, [heuristic.at(b) for b in budgets])
    for budget, cost in zip(budgets, least, strict=True):
        found, bound = heuristic.at(budget), lower_bound(graph, budget, "optimal")
        if cost is not None:
            assert bound is not None
            assert bound <= cost + 1e-6
            assert found.cost == cost


@pytest.mark.parametrize("seed", range(6))
def test_random_trainings_with_such_tasks(seed: int) -> None:
    graph = random_training(90 + 30 * seed, seed)
    graph = never_again(graph, 0.2, seed)
    peak = vanilla_peak(graph)
    schedules = plan(graph, [int(share * peak) for share in (0.4, 0.6, 0.8, 1.0)], "fast")
    check(graph, schedules)
    assert schedules[-1].cost == schedules[-1].base_cost
    assert any(s.cost != s.base_cost for s in schedules if s.feasible), "too easy"


@pytest.mark.parametrize("slots", [0, 700])
def test_feeds_updates_and_tokens_do_not_make_plans_worse(slots: int) -> None:
    """`slots` 700: the chain of blocks alone."""
    plain = benchmark_graphs.resnet(2 + 9 * 6)
    graph = with_updates(plain)
    budgets = [int(share * vanilla_peak(plain)) for share in (0.4, 0.6)]
    for budget, usual in zip(budgets, plan(plain, budgets), strict=True):
        assert usual.cost is not None
        if slots:
            part = native(graph, graph.needed)
            order = _planner.order(part, 1)
            runs = _planner.chain(part, order, budget, slots)
            seen = replay(graph, events(graph, [graph.needed[o] for o in runs]))
            assert seen.peak <= budget
            cost = seen.cost
        else:
            (schedule,) = plan(graph, [budget])
            check(graph, [schedule])
            assert schedule.cost is not None
            cost = schedule.cost
        again = cost / sum(t.cost for t in graph.tasks) - 1
        assert again < usual.cost / usual.base_cost - 1 + (0.03 if slots else 0.01)


def test_the_least_feasible_budget_is_that_of_the_whole_call() -> None:
    graph = random_training(150, 1)
    peak = vanilla_peak(graph)
    low, high = plan(graph, [peak // 20, int(0.35 * peak)], "fast")
    assert not low.feasible
    assert high.peak is not None
    assert low.least_feasible <= high.peak


def test_the_replayer_refuses_a_second_run() -> None:
    tasks = (Task("a", 1, (), (0,), once=True), Task("b", 1, (0,), (1,)))
    graph = MemoryGraph("twice", (1, 1), frozenset(), frozenset([1]), tasks)
    with pytest.raises(ReplayError, match="the task never runs a second time"):
        replay(graph, [["run", 0, []], ["free", 0], ["run", 0, []], ["run", 1, []]])


def test_the_integer_programme_runs_them_once() -> None:
    pytest.importorskip("highspy")
    for seed in range(20):
        graph = random_graph(seed, permits=False, once=0.4)
        order = graph.needed
        for budget in range(sum(graph.sizes) // 3, sum(graph.sizes), 3):
            runs = solve_stages(graph, order, budget, NEVER, 60)
            if runs:
                assert replay(graph, events(graph, runs)).peak <= budget


@pytest.mark.parametrize("seed", range(60, 100))
def test_the_slice_bound_is_a_bound_and_the_floor_too(seed: int) -> None:
    graph = random_graph(seed)
    for budget in range(1, sum(graph.sizes), 3):
        least = least_cost(graph, budget)
        if least is None:
            continue
        bound = lower_bound(graph, budget, "optimal")
        assert bound is not None
        assert bound <= least + 1e-6


def test_the_slice_bound_is_tight_where_one_cut_dominates() -> None:
    graph = benchmark_graphs.unit_chain(100)
    for budget in (40, 50, 60, 80):
        (schedule,) = plan(graph, [budget])
        bound = lower_bound(graph, budget, "optimal")
        assert schedule.cost == pytest.approx(bound, abs=1e-3)
        assert schedule.cost > graph_cost(graph)


def graph_cost(graph: MemoryGraph) -> float:
    return sum(task.cost for task in graph.tasks)


@pytest.mark.parametrize(
    ("length", "budget", "again"), [(10, 4, 11), (30, 6, 40), (100, 12, 123), (300, 20, 391)]
)
def test_unit_chains_have_the_closed_form(length: int, budget: int, again: int) -> None:
    """Griewank and Walther (2000): t(l, c) = r l - C(c + r, c + 1) forward steps."""
    assert closed_form(length, budget) == again
    graph = benchmark_graphs.unit_chain(length)
    (schedule,) = plan(graph, [budget])
    check(graph, [schedule])
    assert schedule.cost == 3 * length + 1 + again


def closed_form(length: int, budget: int) -> int:
    slots = budget - 2
    r = next(r for r in range(length) if comb(slots + r, slots) >= length)
    return r * length - comb(slots + r, slots + 1) - (length - 1)


@pytest.mark.parametrize("seed", range(8))
def test_random_trainings_keep_their_promises(seed: int) -> None:
    graph = benchmark_graphs.random_training(60 + 30 * seed, seed)
    peak = vanilla_peak(graph)
    shares = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    schedules = plan(graph, [int(share * peak) for share in shares], "fast")
    check(graph, schedules)
    assert schedules[-1].cost == schedules[-1].base_cost, "what fits needs nothing made again"
    assert all(s.feasible for s in schedules[4:])
    assert any(s.cost != s.base_cost for s in schedules if s.feasible)


def test_a_residual_network_is_close_to_its_bound() -> None:
    graph = benchmark_graphs.resnet(2 + 9 * 6)
    peak = vanilla_peak(graph)
    schedules = plan(graph, [int(share * peak) for share in (0.3, 0.5, 0.8)])
    check(graph, schedules)
    gaps = [s.gap for s in schedules]
    assert all(gap is not None and gap < 0.02 for gap in gaps), gaps


def test_an_order_that_fits_is_found_where_program_order_does_not() -> None:
    """Two branches, one after the other, need less than both at once."""
    sizes = (8, 8, 1, 1, 1)
    tasks = (
        Task("a", 1, (), (0,)),
        Task("b", 1, (), (1,)),
        Task("a2", 1, (0,), (2,)),
        Task("b2", 1, (1,), (3,)),
        Task("join", 1, (2, 3), (4,)),
    )
    graph = MemoryGraph("branches", sizes, frozenset(), frozenset([4]), tasks)
    assert vanilla_peak(graph) == 17
    assert [s.cost for s in plan(graph, [10, 9])] == [5, None]


def test_numbers_of_tensors_and_answers_do_not_depend_on_each_other() -> None:
    for seed in range(10):
        graph = random_graph(seed, permits=False)
        names = list(range(len(graph.sizes)))
        random.Random(seed).shuffle(names)
        data = to_json(graph)
        moved = {
            **data,
            "tensor_bytes": [graph.sizes[names.index(t)] for t in range(len(names))],
            "base": [names[t] for t in data["base"]],
            "keep": [names[t] for t in data["keep"]],
            "ops": [
                {**op, "inp": [names[t] for t in op["inp"]], "out": [names[t] for t in op["out"]]}
                for op in data["ops"]
            ],
        }
        budgets = range(1, sum(graph.sizes), 4)
        other = from_json(moved, "moved")
        costs = [s.cost for s in plan(graph, list(budgets))]
        assert costs == [s.cost for s in plan(other, list(budgets))]


def test_budgets_of_one_call_may_come_in_any_order_and_twice() -> None:
    graph = benchmark_graphs.random_training(150, 3)
    peak = vanilla_peak(graph)
    budgets = [peak, int(0.4 * peak), int(0.6 * peak), int(0.4 * peak)]
    answers = plan(graph, budgets, "fast")
    assert [s.budget for s in answers] == budgets
    assert answers[1].runs == answers[3].runs
    check(graph, sorted(answers, key=lambda s: s.budget))


def test_tasks_that_nothing_needs_are_left_out() -> None:
    graph = MemoryGraph(
        "spare", (1, 1), frozenset(), frozenset([0]),
        (Task("a", 2, (), (0,)), Task("unused", 5, (), (1,))),
    )  # fmt: skip
    (schedule,) = plan(graph, [1])
    assert (schedule.runs, schedule.cost) == ((0,), 2)


def test_the_integer_programme_finds_the_least_cost_of_an_order() -> None:
    pytest.importorskip("highspy")
    graph = benchmark_graphs.unit_chain(6)
    order = range(len(graph.tasks))
    for budget in (4, 5):
        best = 3 * 6 + 1 + closed_form(6, budget)
        cost, peak = measure(graph, solve_stages(graph, order, budget, NEVER, 60))
        assert (cost, peak <= budget) == (best, True)
        assert solve_stages(graph, order, budget, best, 60) == []
    assert solve_stages(graph, order, 2, NEVER, 60) == []


def test_the_exact_points() -> None:
    file = real("memory") / "tiny_exact_pareto.json"
    for graph, data in zip(read(file), json.loads(file.read_text()), strict=True):
        points = {p["budget"]: p["opt_cost"] for p in data["pareto"]}
        schedules = plan(graph, [min(points) - 1, *sorted(points)])
        assert [s.cost for s in schedules] == [None, *(points[b] for b in sorted(points))]
        assert schedules[0].least_feasible == min(points)
        check(graph, schedules)


def run_program(tmp_path: Path, graphs: list[MemoryGraph], *words: str) -> list[dict[str, Any]]:
    source, out = tmp_path / "in.json", tmp_path / "out.json"
    source.write_text(json.dumps([to_json(g) for g in graphs]), encoding="utf-8")
    assert main(["plan", "--graph", str(source), "--out", str(out), *words]) == 0
    result: list[dict[str, Any]] = json.loads(out.read_text())
    return result


def test_the_program_writes_what_the_replayer_accepts(tmp_path: Path) -> None:
    graphs = [benchmark_graphs.unit_chain(30), benchmark_graphs.random_training(60, 1)]
    entries = run_program(tmp_path, graphs, "--budget", "0.5,0.8,1", "--effort", "fast")
    assert [e["name"] for e in entries] == [g.name for g in graphs for _ in range(3)]
    for entry, graph in zip(entries, (g for g in graphs for _ in range(3)), strict=True):
        if entry["budget"] == 1:
            assert entry["status"] == "infeasible"
            assert entry["least_feasible"] > 1
            continue
        seen = replay(graph, entry["events"])
        assert (seen.cost, seen.peak) == (entry["cost"], entry["peak"])
        assert entry["lower_bound"] <= entry["cost"]
        assert entry["gap"] == pytest.approx(entry["cost"] / entry["lower_bound"] - 1)


def test_the_arena_keeps_the_budget(tmp_path: Path) -> None:
    graph = benchmark_graphs.random_training(80, 2)
    entries = run_program(tmp_path, [graph], "--budget", "0.5,0.7,0.9", "--arena")
    for entry in entries:
        assert entry["status"] == "ok"
        assert entry["arena"] <= entry["budget"]
        assert highest_byte(graph, entry["events"]) == entry["arena"]
    costs = [entry["cost"] for entry in entries]
    assert costs == sorted(costs, reverse=True)


def test_budgets_that_are_no_budgets_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "g.json"
    source.write_text(json.dumps(to_json(benchmark_graphs.unit_chain(5))), encoding="utf-8")
    for budget, message in (
        ("all", "graph chain5 has no list budgets"),
        ("half", "expected bytes or a share such as 0.5, found 'half'"),
        ("0", "expected more than nothing"),
    ):
        words = ["plan", "--graph", str(source), "--out", str(tmp_path / "o"), "--budget", budget]
        assert main(words) == 2
        assert message in capsys.readouterr().err
