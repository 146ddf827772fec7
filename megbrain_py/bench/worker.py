"""One side of a comparison in a process of its own: builds a workload, makes steps when asked.

python worker.py MODULE WORKLOAD OPTIONS: MODULE.WORKLOADS[WORKLOAD](built, **OPTIONS) gives a step
(a function) and facts (plain data), and calls `built()` as soon as the model exists. Each line of
the standard input holds a number of steps; the answer, a line of JSON, says what they took.

This file imports nothing of the package: the peer's process must hold the peer's libraries only.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import time
from typing import Any, TextIO


def status_bytes(field: str) -> int:
    """A memory figure of this process: VmRSS (resident now), VmHWM (the most so far)."""
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith(field + ":"))
    return int(line.split()[1]) * 1024


def serve(module: str, workload: str, options: dict[str, Any], answers: TextIO) -> None:
    """Build, say so, and work until the input ends."""

    def answer(**values: Any) -> None:
        print(json.dumps(values), file=answers, flush=True)

    at_model: list[int] = []
    build = importlib.import_module(module).WORKLOADS[workload]
    step, facts = build(lambda: at_model.append(status_bytes("VmRSS")), **options)
    answer(facts=facts)
    for line in sys.stdin:
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        start = time.perf_counter()
        for _ in range(int(line)):
            step()
        seconds = time.perf_counter() - start
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
        most = status_bytes("VmHWM")
        answer(
            seconds=seconds,
            page_faults=faults,
            memory_bytes=most - at_model[0],
            resident_bytes=most,
        )


if __name__ == "__main__":
    pipe = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not come between the answers
    serve(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), pipe)
