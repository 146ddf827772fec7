"""Starts the workers of a comparison and talks to them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from megbrain_py import debug
from megbrain_py.errors import DataError

HERE = Path(__file__).resolve().parent
OURS = "megbrain_py.bench.ours"
TORCH = "torch_peer"  # found beside worker.py, outside of the package

# Best known settings of torch on a CPU: tensors on huge pages, and freed memory kept by malloc,
# so that a step does not fault its pages in again.
TUNED = {
    "THP_MEM_ALLOC_ENABLE": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
}


@dataclass(frozen=True)
class Turn:
    """What a turn of some steps took: seconds of all, page faults of all, memory since the model.

    memory_bytes: the most that was resident so far, less what was when the model had been built.
    resident_bytes: the same of the whole process.
    """

    seconds: float
    page_faults: int
    memory_bytes: int
    resident_bytes: int


class Side:
    """A worker process that has built one workload; close it, or use it in a `with`."""

    def __init__(
        self,
        module: str,
        workload: str,
        options: Mapping[str, Any],
        *,
        python: str = sys.executable,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = f"{workload} ({module})"
        words = [python, str(HERE / "worker.py"), module, workload, json.dumps(dict(options))]
        ours = {"PYTHONPATH": str(HERE.parent.parent)} if module == OURS else {}
        self._process = subprocess.Popen(
            words,
            env=debug.child_environment({**ours, **(environment or {})}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.facts: dict[str, Any] = self._answer()["facts"]

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise DataError(f"bench: {self.name} ended with code {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def work(self, steps: int = 1) -> Turn:
        """Make some steps."""
        assert self._process.stdin is not None
        print(steps, file=self._process.stdin, flush=True)
        return Turn(**self._answer())

    def timed(self, steps: int) -> float:
        """Seconds of one step, from a turn of several."""
        return self.work(steps).seconds / steps

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def __enter__(self) -> Side:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
