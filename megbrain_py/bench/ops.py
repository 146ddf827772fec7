"""`megbrain bench ops`: the kernels of operator rooms on sizes that matter, beside the roof."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from megbrain_py import op_testing
from megbrain_py.compiler import Function, compile
from megbrain_py.instruments.profile import Row
from megbrain_py.instruments.roof import Roof, roof
from megbrain_py.op_testing import Benchmark

RUNS = 12  # the first two warm up


def bench_ops(rooms: Sequence[str | Path], runs: int = RUNS) -> None:
    """Print a table for each room that has BENCHMARKS."""
    top = roof()
    print(f"roof: {top}")
    print(f"{'ms':>9} {'GFLOP/s':>8} {'GB/s':>6} {'roof':>13}  operator: case, kernel")
    for room in rooms:
        for benchmark in op_testing.benchmarks_of(room):
            for row in time_kernels(room, benchmark, runs):
                print(_line(row, top, f"{room}: {benchmark.name}, {row.kernel}"))


def _line(row: Row, top: Roof, title: str) -> str:
    flops = f"{row.gflops:8.1f}" if row.flops else f"{'':8}"
    share = f"{100 * row.roof_share:.0f} % {top.bound(row.flops, row.bytes)}"
    return f"{1e3 * row.seconds:9.3f} {flops} {row.gbytes:6.1f} {share:>13}  {title}"


def time_kernels(room: str | Path, benchmark: Benchmark, runs: int = RUNS) -> list[Row]:
    """The room's kernels in a benchmark; those around them (a sum, a change of layout) not."""
    inputs = benchmark.inputs()
    function = compile(op_testing.benchmark_graph(benchmark, inputs).outputs)
    used: dict[str, Any] = {name: inputs[name] for name in function.plan.feeds}
    for _ in range(runs):
        function(profile=True, **used)
    own = kernels_of(room, function)
    found = function.profile(last=max(1, runs - 2)).by_kernel()
    return [row for row in found if row.kernel in own]


def kernels_of(room: str | Path, function: Function) -> set[str]:
    """Kernels of a function whose operators lie in the room."""
    home = op_testing.module_of(room)
    own = [n.op for n in function.graph.nodes if type(n.op).__module__.startswith(home)]
    return {kernel for op in own for kernel in (op.kernel, *op.variants)}
