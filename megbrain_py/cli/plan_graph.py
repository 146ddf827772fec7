"""`megbrain plan --graph`: schedules under byte budgets, as JSON; and graphs to try it with."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from megbrain_py.errors import DataError
from megbrain_py.planning.memplan import MemoryGraph

_GENERATED = ("resnet200", "resnet1001", "chain", "random")


def add_graph_options(parser: argparse.ArgumentParser, source: Any) -> None:
    """The options of the command; `source` is the group of which one must be given."""
    source.add_argument(
        "--graph", metavar="FILE.json", help="one memplan-v1 graph, or a list (docs/recomputation)"
    )
    source.add_argument(
        "--generate", choices=_GENERATED, help="write a benchmark graph instead of planning"
    )
    parser.add_argument(
        "--budget", metavar="N[,N...]|all",
        help="bytes, or below 1 a share of the peak in program order; all: each graph's own list",
    )  # fmt: skip
    parser.add_argument("--effort", choices=("fast", "default", "optimal"), default="default")
    parser.add_argument(
        "--arena", action="store_true", help="plan offsets too; the budget then binds the arena"
    )
    parser.add_argument("--ops", type=int, default=300, help="of the random graph")
    parser.add_argument("--length", type=int, default=100, help="of the chain")
    parser.add_argument("--seed", type=int, default=0, help="of the random graph")


def plan_graphs(arguments: argparse.Namespace) -> int:
    """Plan each graph for each budget, or write a generated graph."""
    out = Path(arguments.out)
    if arguments.generate is not None:
        return _generate(arguments, out)
    from megbrain_py.planning.memplan import read

    if arguments.budget is None:
        raise DataError("--graph needs --budget: bytes, shares of the vanilla peak, or all")
    graphs = read(Path(arguments.graph))
    asked = [_budgets(arguments.budget, graph) for graph in graphs]
    out.touch()  # a mistake in the path shows now, not after the planning
    results = []
    for graph, budgets in zip(graphs, asked, strict=True):
        results += _plan(graph, budgets, arguments)
    out.write_text(json.dumps(results), encoding="utf-8")
    return 0


def _plan(
    graph: MemoryGraph, budgets: Sequence[int], arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    from megbrain_py.planning.recompute import plan
    from megbrain_py.planning.report import plan_with_arena, report

    progress = _progress(graph.name)
    results = []
    if arguments.arena:
        results = plan_with_arena(graph, budgets, arguments.effort, progress)
    else:
        schedules = plan(graph, budgets, arguments.effort, progress)
        results = [report(graph, schedule) for schedule in schedules]
    progress("")
    for result in results:
        print(_line(graph, result))
    return results


def _progress(name: str) -> Any:
    """One line on a terminal that tells what is being done; nothing elsewhere."""

    def show(text: str) -> None:
        if sys.stderr.isatty():
            line = f"{name}: {text}"[:79] if text else ""
            print(f"\r{line:79}\r", end="", file=sys.stderr, flush=True)

    return show


def _line(graph: MemoryGraph, result: dict[str, Any]) -> str:
    head = f"{graph.name:14} {result['budget']:>16,}"
    if result["status"] == "infeasible":
        return (
            f"{head}  infeasible: the least budget that a schedule is known for is "
            f"{result['least_feasible']:,}, {result['limited_by']} sets it"
        )
    extra = result["cost"] / result["base_cost"] - 1 if result["base_cost"] else 0.0
    place = f"  arena {result['arena']:,}" if "arena" in result else ""
    return (
        f"{head}  peak {result['peak']:>16,}{place}  cost +{extra:.2%}"
        f"  gap {result['gap']:.2%}  {result['seconds']:.2f} s"
    )


def _budgets(text: str, graph: MemoryGraph) -> list[int]:
    from megbrain_py.planning.recompute import vanilla_peak

    if text == "all":
        if not graph.budgets:
            raise DataError(f"--budget all: graph {graph.name} has no list budgets")
        values: list[float] = list(graph.budgets)
    else:
        values = [_number(part) for part in text.split(",")]
    shares = any(isinstance(value, float) and value < 1 for value in values)
    peak = vanilla_peak(graph) if shares else 0
    return [
        int(value * peak) if isinstance(value, float) and value < 1 else int(value)
        for value in values
    ]


def _number(text: str) -> float:
    try:
        value = float(text) if "." in text else int(text)
    except ValueError:
        raise DataError(
            f"--budget: expected bytes or a share such as 0.5, found {text!r}"
        ) from None
    if value <= 0:
        raise DataError(f"--budget: expected more than nothing, found {text}")
    return value


def _generate(arguments: argparse.Namespace, out: Path) -> int:
    from megbrain_py.planning import benchmark_graphs
    from megbrain_py.planning.memplan import to_json

    if arguments.generate == "random":
        graph = benchmark_graphs.random_training(arguments.ops, arguments.seed)
    elif arguments.generate == "chain":
        graph = benchmark_graphs.unit_chain(arguments.length)
    else:
        graph = benchmark_graphs.resnet(int(arguments.generate.removeprefix("resnet")))
    out.write_text(json.dumps(to_json(graph)), encoding="utf-8")
    print(f"{graph.name}: {len(graph.tasks)} ops, {len(graph.sizes)} tensors")
    return 0
