"""The recomputation planner: against others at equal budgets, its promises on many pairs, its time.

python benchmarks/recompute.py compare
python benchmarks/recompute.py promises --pairs 10000 [--arena]
python benchmarks/recompute.py exact --data FOLDER
python benchmarks/recompute.py time
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from recompute_baselines import Point, cheapest, segments, thresholds, vanilla

from megbrain_py.planning.benchmark_graphs import (
    never_again,
    random_training,
    resnet,
    unit_chain,
)
from megbrain_py.planning.memplan import MemoryGraph, read
from megbrain_py.planning.recompute import (
    Effort,
    Schedule,
    events,
    lower_bound,
    plan,
    vanilla_peak,
)
from megbrain_py.planning.replay import highest_byte, replay
from megbrain_py.planning.report import plan_with_arena

SHARES = (0.9, 0.7, 0.5, 0.342, 0.25, 0.2, 0.138)


def compare(_: argparse.Namespace) -> None:
    """Extra cost at shares of the vanilla peak, and the bound."""
    for graph in (resnet(200), resnet(1001), random_training(300), random_training(3000)):
        base = vanilla(graph)
        others: dict[str, list[Point]] = {
            "segments": list(segments(graph)),
            "threshold+GA": list(thresholds(graph)),
        }
        print(f"\n{graph.name}: {len(graph.tasks)} ops, vanilla peak {base.peak:,}")
        schedules = plan(graph, [int(share * base.peak) for share in SHARES])
        for share, schedule in zip(SHARES, schedules, strict=True):
            row = f"  {share:5.1%}  bound {_extra(schedule.lower_bound, schedule.base_cost)}"
            row += f"  ours {_extra(schedule.cost, schedule.base_cost)}"
            for name, points in others.items():
                found = cheapest(points, schedule.budget)
                row += f"  {name} {_extra(found and found.cost, base.cost)}"
            print(row, flush=True)


def _extra(cost: float | None, base: float) -> str:
    return "   none" if cost is None else f"{cost / base - 1:+7.2%}"


def promises(arguments: argparse.Namespace) -> None:
    """Peak within budget, replayer, bound, cost over budgets, nothing made again when it fits.

    In every third graph a fifth of the tasks may not run a second time.
    """
    pairs = feasible = seed = 0
    while pairs < arguments.pairs:
        graph = random_training(20 + seed * 37 % 180, seed)
        if seed % 3 == 0:
            graph = never_again(graph, 0.2, seed)
        peak = vanilla_peak(graph)
        budgets = [int(peak * i / 25) for i in range(2, 28)]
        effort: Effort = "fast" if seed % 40 else "default"
        if arguments.arena:
            entries = plan_with_arena(graph, budgets, effort, lambda _: None)
            broken, count = (
                _broken_arenas(graph, entries),
                sum(e["status"] == "ok" for e in entries),
            )
        else:
            schedules = plan(graph, budgets, effort)
            broken, count = _broken(graph, schedules), sum(s.feasible for s in schedules)
        for message in broken:
            raise SystemExit(f"{graph.name} {message}")
        pairs += len(budgets)
        feasible += count
        seed += 1
        if seed % 20 == 0:
            print(f"{pairs} pairs, {feasible} feasible", flush=True)
    print(f"{pairs} pairs, {feasible} feasible: every promise kept")


def _broken(graph: MemoryGraph, schedules: list[Schedule]) -> list[str]:
    found, before = [], float("inf")
    fits = vanilla_peak(graph)
    for s in schedules:
        if s.runs is None or s.cost is None or s.lower_bound is None:
            if before < float("inf") or s.budget >= fits:
                found.append(f"{s.budget}: nothing, though there is a schedule")
            continue
        seen = replay(graph, events(graph, s.runs))
        if seen.peak > s.budget or seen.peak != s.peak:
            found.append(f"{s.budget}: peak {seen.peak}, said {s.peak}")
        if abs(seen.cost - s.cost) > 1e-9 * s.cost:
            found.append(f"{s.budget}: costs {seen.cost}, said {s.cost}")
        if s.lower_bound > s.cost or s.cost > before:
            found.append(f"{s.budget}: bound {s.lower_bound}, cost {s.cost}, before {before}")
        if s.budget >= fits and s.cost > s.base_cost:
            found.append(f"{s.budget}: something is made again, though all fits")
        before = s.cost
    return found


def _broken_arenas(graph: MemoryGraph, entries: list[dict[str, Any]]) -> list[str]:
    found, before = [], float("inf")
    for e in entries:
        if e["status"] != "ok":
            if before < float("inf"):
                found.append(f"{e['budget']}: nothing, though there is a schedule")
            continue
        seen = replay(graph, e["events"])
        if not seen.peak <= e["arena"] <= e["budget"]:
            found.append(f"{e['budget']}: peak {seen.peak}, arena {e['arena']}")
        if abs(seen.cost - e["cost"]) > 1e-9 * e["cost"]:
            found.append(f"{e['budget']}: costs {seen.cost}, said {e['cost']}")
        if e["lower_bound"] > e["cost"] or e["cost"] > before:
            found.append(
                f"{e['budget']}: bound {e['lower_bound']}, cost {e['cost']} after {before}"
            )
        if highest_byte(graph, e["events"]) > e["arena"]:
            found.append(f"{e['budget']}: a tensor ends after the arena")
        before = e["cost"]
    return found


def exact(arguments: argparse.Namespace) -> None:
    """The points of tiny_exact_pareto.json, and unit chains against their closed form."""
    file = Path(arguments.data) / "tiny_exact_pareto.json"
    fronts = [graph["pareto"] for graph in json.loads(file.read_text())]
    for effort in ("fast", "default", "optimal"):
        start, equal, worst, count, refused = time.perf_counter(), 0, 1.0, 0, 0
        for graph, front in zip(read(file), fronts, strict=True):
            below, *schedules = plan(
                graph, [front[0]["budget"] - 1, *(p["budget"] for p in front)], effort
            )
            refused += not below.feasible
            ratios = [s.cost / p["opt_cost"] for s, p in zip(schedules, front, strict=True)]
            equal += sum(ratio == 1 for ratio in ratios)
            worst, count = max(worst, *ratios), count + len(front)
        seconds = time.perf_counter() - start
        print(f"{effort}: {equal} of {count} equal, worst {worst:.3f}, {refused} refused below")
        print(f"   {seconds:.1f} s")
    for length, budget, again in ((100, 12, 123), (1000, 34, 1406), (1000, 64, 937)):
        (schedule,) = plan(unit_chain(length), [budget])
        print(f"chain {length}, {budget}: {schedule.cost - schedule.base_cost} again, best {again}")


def times(_: argparse.Namespace) -> None:
    """One budget at default effort, everything included."""
    for graph in (random_training(300), random_training(3000), random_training(7700), resnet(1001)):
        budget = vanilla_peak(graph) // 2
        start = time.perf_counter()
        lower_bound(graph, budget)
        bound = time.perf_counter() - start
        start = time.perf_counter()
        (schedule,) = plan(graph, [budget])
        seconds = time.perf_counter() - start
        gap = "" if schedule.gap is None else f"gap {schedule.gap:.2%}"
        print(f"{graph.name}: {len(graph.tasks)} ops  {seconds:.2f} s (bound {bound:.2f})  {gap}")


def main() -> None:
    """Runs the part that is named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("compare", "promises", "exact", "time"))
    parser.add_argument("--pairs", type=int, default=10_000)
    parser.add_argument("--arena", action="store_true", help="promises of offsets too")
    parser.add_argument("--data", default=".", help="the folder of tiny_exact_pareto.json")
    arguments = parser.parse_args()
    parts = {"compare": compare, "promises": promises, "exact": exact, "time": times}
    parts[arguments.part](arguments)


if __name__ == "__main__":
    main()
