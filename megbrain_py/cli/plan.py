"""`megbrain plan`: memory planning for graphs and buffers that come from anywhere."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from megbrain_py.cli.plan_graph import add_graph_options, plan_graphs

# Steps of search: about 3 s, and 10 s where a capacity has to be met.
_WORK, _WORK_FOR_CAPACITY = 200_000_000, 600_000_000


def add_plan(commands: Any) -> None:
    """Add the command to the program's parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "plan", help="recomputation under a budget; offsets for buffers with fixed lifetimes"
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--intervals", metavar="FILE.csv",
        help="buffers: columns id,lower,upper,size; one is live on [lower, upper)",
    )  # fmt: skip
    add_graph_options(parser, source)
    parser.add_argument("--out", metavar="OUT", required=True, help="CSV with offsets, or JSON")
    parser.add_argument("--capacity", type=_bytes, metavar="N", help="bytes that must be enough")


def _bytes(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"expected a number of bytes, found {text}")
    return value


def plan(arguments: argparse.Namespace) -> int:
    """Plan what the file asks for; 1 when buffers need more than the given capacity."""
    if arguments.intervals is None:
        return plan_graphs(arguments)
    from megbrain_py.planning.intervals import read_intervals, write_placed
    from megbrain_py.planning.memory import max_live, place

    table = read_intervals(Path(arguments.intervals))
    capacity: int | None = arguments.capacity
    start = time.perf_counter()
    offsets, height, optimal = place(
        table.lower, table.upper, table.size,
        wanted=capacity or 0, work=_WORK if capacity is None else _WORK_FOR_CAPACITY,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    write_placed(Path(arguments.out), table, offsets)
    print(f"height    {height}{' (no placement is lower)' if optimal else ''}")
    print(f"max-live  {max_live(table.lower, table.upper, table.size)}")
    print(f"seconds   {seconds:.3f}")
    if capacity is None or height <= capacity:
        return 0
    print(f"capacity  {capacity}: exceeded by {height - capacity}")
    return 1
