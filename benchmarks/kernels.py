"""Kernels one by one against the machine's roof, on warm and on cold caches.

python benchmarks/kernels.py [words]     only rows whose name holds one of the words

Each kernel is loaded alone, as a plan of one instruction. cold: another kernel has just walked
through 128 MB; warm: it runs on what its last run left in the caches. The fewest bytes are counted
(each input read once, each output written once), against what a copy through both threads reaches.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from kernel_cases import CASES, KernelCase

import megbrain_py as mb
from megbrain_py import engine
from megbrain_py import functional as F
from megbrain_py.dtypes import Array, DType, TensorType
from megbrain_py.graph import Node, Var
from megbrain_py.parameter import Parameter, aligned_copy
from megbrain_py.plan import Instruction, Plan, Slot, StateBlock

LARGE = 1 << 25  # floats of a buffer that no cache holds: 128 MB


class Bench:
    """One node of a graph as a plan: a sweep of the caches, if wanted, then its kernel."""

    def __init__(self, node: Node, *, cold: bool, in_place: bool = False) -> None:
        self.bytes = sum(v.type.nbytes for v in (*node.inputs, *node.outputs))
        self._slots: list[Slot] = []
        self._state: list[StateBlock] = []
        self._scratch = 0
        steps = [self._sweep()] if cold else []
        plan = self._plan([*steps, self._kernel(node, in_place)])
        self._executable = engine.Executable(plan)

    def seconds(self) -> float:
        """Of one run of the kernel alone."""
        self._executable.run({}, {}, profile=True)
        start, end = self._executable.times()[-1]
        return end - start

    def _add_state(self, array: Array, type: TensorType) -> int:
        self._slots.append(Slot(type, "state", len(self._state), -1, 2))
        self._state.append(StateBlock("input", type, aligned_copy(array)))
        return len(self._slots) - 1

    def _add_scratch(self, type: TensorType) -> int:
        self._slots.append(Slot(type, "scratch", self._scratch, 0, 1))
        self._scratch += -(-type.nbytes // 4096) * 4096
        return len(self._slots) - 1

    def _sweep(self) -> Instruction:
        slot = self._add_state(np.zeros(LARGE, np.float32), TensorType((LARGE,), DType.float32))
        return Instruction("abs", (slot,), (slot,), {}, "sweep")

    def _kernel(self, node: Node, in_place: bool) -> Instruction:
        op, types = node.op, [v.type for v in node.inputs]
        images = op.kernel != "relayout"  # which starts from rows here
        last = [t.with_layout("channels_last") if t.rank == 4 and images else t for t in types]
        wanted, given = op.layouts(last)
        ins = [t.with_layout(layout) for t, layout in zip(types, wanted, strict=True)]
        outs = [v.type.with_layout(g) for v, g in zip(node.outputs, given, strict=True)]
        values = mb.compile({str(i): v for i, v in enumerate(node.inputs)})()
        slots = [self._add_state(_laid_out(values[str(i)], t), t) for i, t in enumerate(ins)]
        shared = dict(op.may_overwrite(ins, outs)) if in_place else {}
        targets = [slots[shared[o]] if o in shared else self._add_scratch(t)
                   for o, t in enumerate(outs)]  # fmt: skip
        call = Instruction(
            op.kernel_for(ins, outs), tuple(slots), tuple(targets), op.attrs(), node.origin, op=op
        )
        memory = engine.workspace_bytes(call, ins, outs)
        if memory == 0:
            return call
        return replace(call, workspace=self._add_scratch(TensorType((memory,), DType.uint8)))

    def _plan(self, steps: list[Instruction]) -> Plan:
        return Plan(
            tuple(self._slots), tuple(steps), {}, {}, tuple(self._state), self._scratch, 0
        )  # fmt: skip


def _laid_out(value: Array, type: TensorType) -> Array:
    """The elements in the order in which they lie in memory, under the logical shape."""
    if type.layout == "rows":
        return value
    return np.ascontiguousarray(value.transpose(0, 2, 3, 1)).reshape(value.shape)


def node_of(case: KernelCase) -> Node:
    """The last node that runs the case's kernel."""
    inputs = [Parameter(value) for value in case.inputs().values()]
    found: list[Node] = []
    stack = [v.node for v in _listed(case.build(*inputs))]
    while stack:
        node = stack.pop()
        if node.op.kernel == case.kernel:
            found.append(node)
        stack += [v.node for v in node.inputs]
    if not found:
        raise SystemExit(f"{case.name}: no node runs the kernel {case.kernel}")
    return max(found, key=lambda node: node.order)


def _listed(made: Var | tuple[Var, ...]) -> list[Var]:
    return [made] if isinstance(made, Var) else list(made)


def measured(bench: Bench, most: float = 0.6) -> float:
    """Median seconds of as many runs as fit into `most` seconds, at least 5 and at most 60."""
    bench.seconds()
    times = [bench.seconds()]
    while len(times) < 5 or (sum(times) < most and len(times) < 60):
        times.append(bench.seconds())
    return float(np.median(times))


@dataclass(frozen=True)
class Roof:
    """Bytes and floating-point operations a second that this machine reaches now."""

    copy: float
    multiply: float


def roof() -> Roof:
    """Of an elementwise copy with ordinary stores, and of a matrix product."""
    x = Parameter(np.ones(LARGE, np.float32))
    moved = Bench(F.neg(x).node, cold=False)
    a = Parameter(np.ones((1536, 1536), np.float32))
    product = Bench(F.matmul(a, a).node, cold=False)
    return Roof(moved.bytes / measured(moved), 2 * 1536**3 / measured(product))


def rows(words: list[str]) -> Iterator[KernelCase]:
    """The cases whose name holds one of the words; all without words."""
    for case in CASES:
        if not words or any(word in case.name for word in words):
            yield case


def table(cases: Iterator[KernelCase]) -> None:
    """Print a line for each case."""
    top = roof()
    print(f"{engine.num_threads()} threads, {engine.instruction_set()}; "
          f"copy {top.copy / 1e9:.0f} GB/s, product {top.multiply / 1e9:.0f} GFLOP/s")  # fmt: skip
    print(f"{'':44} {'warm ms':>9} {'cold ms':>9} {'MB':>7} {'GB/s':>6} {'GFLOP/s':>8} {'roof':>6}")
    for case in cases:
        node = node_of(case)
        warm, cold = (Bench(node, cold=c, in_place=case.in_place) for c in (False, True))
        warm_time, cold_time = measured(warm), measured(cold)
        moved, work = case.bytes or cold.bytes, case.flop
        floor = max(moved / top.copy, work / top.multiply)
        print(
            f"{case.name:44} {warm_time * 1e3:9.3f} {cold_time * 1e3:9.3f} {moved / 1e6:7.1f} "
            f"{moved / cold_time / 1e9:6.1f} {work / cold_time / 1e9:8.1f} {floor / cold_time:6.0%}"
        )


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*")
    table(rows(parser.parse_args().words))


if __name__ == "__main__":
    main()
