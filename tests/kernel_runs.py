"""Runs one operator's kernel and measures its rounding errors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import megbrain_py as mb
from megbrain_py import engine
from megbrain_py.graph import Operator


def run(op: Operator, *arrays: np.ndarray) -> np.ndarray:
    """The operator's kernel on these arrays, in poisoned memory."""
    names = "abc"[: len(arrays)]
    inputs = [mb.placeholder(n, a.shape) for n, a in zip(names, arrays, strict=True)]
    compiled = mb.compile(op(*inputs))
    shape = compiled.plan.slots[compiled.plan.fetches["output"]].type.shape
    out = {"output": np.empty(shape, np.float32)}
    compiled._executable.run(dict(zip(names, arrays, strict=True)), out, poison=True)
    return out["output"]


def run_with_threads(threads: int, op: Operator, *arrays: np.ndarray) -> np.ndarray:
    """As `run`, compiled for and run on so many threads."""
    before = engine.num_threads()
    try:
        engine.set_num_threads(threads)
        return run(op, *arrays)
    finally:
        engine.set_num_threads(before)


def run_at_level(isa: str, program: str) -> None:
    """Run a program, which may import the tests, at an instruction set; skip without it."""
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    last = "from megbrain_py import engine\nprint(engine.instruction_set())\n"
    done = subprocess.run(
        [sys.executable, "-c", program + last],
        env={**os.environ, "MB_ISA": isa, "PYTHONPATH": path},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    if "is not available" in done.stderr or "was not built for" in done.stderr:
        pytest.skip(f"no {isa} here")
    assert done.stdout.strip() == isa, done.stderr


def error(found: np.ndarray, exact: np.ndarray) -> float:
    """Relative, in the 2-norm."""
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))


def wide(*arrays: np.ndarray) -> list[np.ndarray]:
    """The arrays in float64."""
    return [a.astype(np.float64) for a in arrays]
