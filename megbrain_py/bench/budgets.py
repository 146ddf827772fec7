"""Training steps under a byte budget: what was promised, what is resident, what comes out."""

from __future__ import annotations

import functools
import hashlib
import resource
import time
from collections.abc import Callable, Mapping
from typing import Any
from unittest import mock

import numpy as np

import megbrain_py as mb
from megbrain_py import engine
from megbrain_py.bench.steps import STEPS, Built, TrainingStep
from megbrain_py.bench.worker import status_bytes
from megbrain_py.plan import Plan
from megbrain_py.plan_check import check_plan

STEPS_TO_DIGEST = 3  # outputs and parameters after so many are compared


def _budgeted(
    name: str, built: Built, memory_budget: int | float | None = None, **sizes: Any
) -> tuple[Callable[[], object], dict[str, Any]]:
    """A workload whose facts are what benchmarks/memory_budget.py judges, or why it is refused."""
    described = STEPS[name](built, **sizes)
    start = time.perf_counter()
    try:
        step, resident = _watched(described, memory_budget)
    except mb.CompileError as error:
        return lambda: None, {"refused": str(error).splitlines()[0]}
    facts = {
        "compile_seconds": time.perf_counter() - start,
        "committed_bytes": engine.arena_bytes(),
        "resident_before_arena": resident,
        "digest": _digest(step, described),
        **_promises(step.plan),
    }
    facts["most_resident"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10  # from KiB
    return lambda: step(**described.feeds), facts


def _watched(described: TrainingStep, memory_budget: int | float | None) -> tuple[mb.Function, int]:
    """The compiled step, and what was resident just before its arena was committed."""
    resident: list[int] = []

    def checked(plan: Plan) -> None:  # the last that happens before the engine loads it
        check_plan(plan)
        resident.append(status_bytes("VmRSS"))

    with mock.patch.object(engine, "check_plan", checked):
        step = described.compile(memory_budget=memory_budget)
    return step, resident[0]


def _digest(step: mb.Function, described: TrainingStep) -> str:
    """Of the outputs of some steps and of every updated parameter after them."""
    found = hashlib.blake2b(digest_size=16)
    for _ in range(STEPS_TO_DIGEST):
        for value in step(**described.feeds).values():
            found.update(value.tobytes())
    for parameter in described.updates:
        found.update(np.ascontiguousarray(parameter.value).data)
    return found.hexdigest()


def _promises(plan: Plan) -> dict[str, Any]:
    """What the plan says of its memory and its time."""
    found: dict[str, Any] = {
        "planned_bytes": plan.scratch_bytes,
        "state_bytes": plan.state_bytes,
        "most_live_bytes": plan.lower_bound,
        "instructions": len(plan.instructions),
        "made_again": len(plan.memory.again),
    }
    record = plan.budget
    if record is not None:
        found |= {
            "budget_bytes": record.budget,
            "vanilla_bytes": record.vanilla_bytes,
            "predicted_seconds": record.seconds,
            "vanilla_seconds": record.vanilla_seconds,
            "least_extra": record.least_extra,
            "planning_seconds": record.planning_seconds,
        }
    return found


WORKLOADS: Mapping[str, Callable[..., Any]] = {
    name: functools.partial(_budgeted, name) for name in STEPS
}
