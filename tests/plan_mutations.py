"""Edits plans and operators at random: each must run, or be refused by one of our errors.

    python tests/plan_mutations.py COUNT [SEED [FIRST]]

Ends with 0 when all did. Each has a process of its own, so that a crash is one failure. With the
engine of `make sanitize` a kernel that reads or writes beyond its slots is one too.
"""

from __future__ import annotations

import dataclasses
import faulthandler
import os
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

import megbrain_py as mb
from megbrain_py import engine, op_testing
from megbrain_py.dtypes import Array, DType, TensorType
from megbrain_py.errors import MegBrainError
from megbrain_py.graph import Graph, Node
from megbrain_py.op_testing import Case
from megbrain_py.plan import Plan

Random = np.random.Generator
MOST_SECONDS = 60  # of the processor for one plan
MOST_BYTES = 1 << 26  # larger plans are valid, but slow
NUMBERS: list[Any] = [-(2**31), -2, -1, 0, 1, 2, 3, 7, 64, 1000, 2**31, 2**40, 2**63 - 1]
FACTORS: list[Any] = [float("nan"), float("inf"), -1.0, 0.0, 1e-30, 0.5, 1e30]


def _pick(rng: Random, among: Sequence[Any]) -> Any:
    return among[int(rng.integers(len(among)))]


def _odd(value: Any, rng: Random) -> Any:
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, DType):
        return _pick(rng, list(DType))
    if isinstance(value, int):
        return _pick(rng, NUMBERS)
    if isinstance(value, float):
        return _pick(rng, FACTORS)
    if isinstance(value, str):
        return _pick(rng, ["", "none", "relu", "nearest", "bilinear", "rows", "ä\0"])
    if isinstance(value, tuple):
        items = list(value)
        if items and rng.random() < 0.8:
            at = int(rng.integers(len(items)))
            items[at] = _odd(items[at], rng)
        elif items and rng.random() < 0.5:
            items.pop()
        else:
            items.append(_pick(rng, items) if items else 1)
        return tuple(items)
    return _pick(rng, NUMBERS)


def odd_type(type: TensorType, rng: Random) -> TensorType:
    """Another size, rank, element type or layout."""
    what = int(rng.integers(4))
    if what == 0 and type.shape:
        return replace(type, shape=_odd(type.shape, rng))
    if what == 1:
        return replace(type, shape=(*type.shape, _pick(rng, [1, 2, 0])))
    if what == 2:
        return replace(type, dtype=_pick(rng, list(DType)))
    return replace(type, layout="rows" if type.layout == "channels_last" else "channels_last")


def odd_plan(plan: Plan, rng: Random) -> Plan:
    """One thing in it changed by hand."""
    steps, slots = list(plan.instructions), list(plan.slots)
    if steps and rng.random() < 0.5:
        at = int(rng.integers(len(steps)))
        step, other = steps[at], int(rng.integers(len(slots)))
        numbers = _odd(step.inputs, rng) if rng.random() < 0.3 else (*step.inputs[1:], other)
        changes: list[dict[str, Any]] = [
            {"inputs": numbers}, {"outputs": (other, *step.outputs[1:])}, {"workspace": other},
            {"workspace": None}, {"inputs": step.inputs[::-1]}, {"kernel": _pick(rng, KERNELS)},
            {"kernel": _pick(rng, KERNELS), "op": None}, {"op": None},
            {"attrs": {k: _odd(v, rng) for k, v in step.attrs.items()}, "op": None},
        ]  # fmt: skip
        steps[at] = replace(step, **_pick(rng, changes))
    else:
        at = int(rng.integers(len(slots)))
        offset = 64 * int(rng.integers(-1, plan.scratch_bytes // 64 + 2))
        changes = [
            {"type": odd_type(slots[at].type, rng)}, {"offset": offset},
            {"arena": "state" if slots[at].arena == "scratch" else "scratch", "offset": 0},
        ]  # fmt: skip
        slots[at] = replace(slots[at], **_pick(rng, changes))
    return replace(plan, instructions=tuple(steps), slots=tuple(slots))


def odd_array(type: TensorType, rng: Random) -> Array:
    """Values of a type: usual, or with NaN, infinities, indices out of range."""
    if type.dtype.is_float:
        values = rng.standard_normal(type.shape) * float(_pick(rng, [1, 1, 100, 1e30]))
        if rng.random() < 0.5:
            values = np.where(rng.random(type.shape) < 0.2, _pick(rng, FACTORS), values)
        return np.asarray(values, type.dtype.numpy)
    if type.dtype is DType.bool:
        return rng.random(type.shape) < 0.5
    high = _pick(rng, [3, 3, 100])
    low = 0 if type.dtype is DType.uint8 else _pick(rng, [0, 0, -3])
    return rng.integers(low, high, type.shape).astype(type.dtype.numpy)


def run(plan: Plan, rng: Random) -> None:
    """Load and run, with odd values."""
    sizes = [size for slot in plan.slots for size in slot.type.shape]  # of empty values too
    if plan.scratch_bytes > MOST_BYTES or max(sizes, default=0) > MOST_BYTES:
        raise mb.CompileError("too large to try")
    loaded = engine.Executable(plan)
    feeds = {name: odd_array(plan.slots[n].type, rng) for name, n in plan.feeds.items()}
    types = {name: plan.slots[n].type for name, n in plan.fetches.items()}
    loaded.run(feeds, {name: np.empty(t.shape, t.dtype.numpy) for name, t in types.items()})


def graph_of(case: Case) -> Graph:
    """The operator's graph, of `gradient` checks where there are some."""
    if case.differentiated:
        return op_testing.gradient_graph_of(case)
    return op_testing.graph_of(case)


def odd_operator(node: Node, rng: Random) -> Graph:
    """One node alone with an odd attribute or odd inputs, as a program could write it."""
    op, types = node.op, [v.type.with_layout("rows") for v in node.inputs]
    fields = dataclasses.fields(op)  # type: ignore[arg-type]
    if fields and rng.random() < 0.7:
        name = _pick(rng, fields).name
        op = replace(op, **{name: _odd(getattr(op, name), rng)})  # type: ignore[type-var]
    if types and rng.random() < 0.5:
        at = int(rng.integers(len(types)))
        types[at] = odd_type(types[at], rng).with_layout("rows")
    made = op(*(mb.placeholder(f"x{i}", t.shape, t.dtype) for i, t in enumerate(types)))
    outputs = made if isinstance(made, tuple) else (made,)
    if sum(v.type.nbytes for v in outputs) + sum(t.nbytes for t in types) > MOST_BYTES:
        raise mb.CompileError("too large to try")
    return Graph({f"y{i}": v for i, v in enumerate(outputs)})


def attempt(case: Case, rng: Random) -> None:
    """A plan of a case edited, or one of its operators made odd and compiled."""
    graph = graph_of(case)
    if rng.random() < 0.5:
        run(odd_plan(mb.compile(graph.outputs).plan, rng), rng)
        return
    node = _pick(rng, [node for node in graph.nodes if not node.op.source])
    try:
        plan = mb.compile(odd_operator(node, rng).outputs).plan
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # Operators are made by public functions, which look at their arguments first.
        raise mb.GraphError(str(error)) from error
    run(plan, rng)


CASES = [(room, case) for room in op_testing.rooms() for case in op_testing.cases_of(room)[0]]
KERNELS = engine.kernel_names()


def attempt_alone(number: int, seed: int) -> str:
    """One attempt in a process of its own; what became of it."""
    rng = np.random.default_rng([seed, number])
    room, case = CASES[int(rng.integers(len(CASES)))]
    sys.stdout.flush()
    child = os.fork()  # nothing has run in this process: it has no threads
    if child == 0:
        signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)  # its signal ends the process
        code = 1
        try:
            attempt(case, rng)
            code = 0
        except MegBrainError:
            code = 10
        except Exception:  # noqa: BLE001 - the error that must not be
            traceback.print_exc(limit=-6)
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code not in (0, 10):
        print(f"plan {number} ({room}, {case.name}): exit code {code}", file=sys.stderr)
    return {0: "ran", 10: "refused"}.get(code, "failed")


def main(count: int, seed: int = 0, first: int = 0) -> int:
    """`count` plans; 0 when all ran or were refused."""
    faulthandler.enable()
    seen = Counter(attempt_alone(number, seed) for number in range(first, first + count))
    print(f"mutations: {count} plans: {seen['ran']} ran, {seen['refused']} refused")
    print(f"mutations: {seen['failed']} failures (seed {seed})")
    return 1 if seen["failed"] else 0


if __name__ == "__main__":
    raise SystemExit(main(*map(int, sys.argv[1:])))
