"""Every environment variable, in one table; docs/environment.md is kept complete by a test."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path

from megbrain_py.errors import CompileError, EngineError

VARIABLES = {
    "MB_NUM_THREADS": "threads of the kernels; default: the CPUs this process may use",
    "MB_ISA": "force the kernels' instruction set: base, v3 (AVX2) or v4 (AVX-512)",
    "MB_DUMP": "folder: the graph after each pass, the plan and its memory picture are written",
    "MB_PASSES": "comma-separated: -name switches a pass off, to bisect a miscompile",
    "MB_POISON": "1: memory is filled with NaN before it is written",
    "MB_CHECK": "1: every run is checked for NaN, Inf and overwritten values; 2: more often",
    "MB_TRACE": "file: a timeline of the process is written there, for Perfetto",
    "MB_COLLECTIVE_TIMEOUT": "seconds a rank waits for the others in a collective; default: 300",
    "MB_CACHE": "folder: what was measured on this machine; default: ~/.cache/megbrain_py",
    "MB_COSTS": "what memory planning takes instructions to cost: measured (default) or roofline",
    "MB_TEST_DATA": "folder with real data sets for the tests",
    "CXX": "the C++ compiler of `megbrain build-op`; default: the one that built the engine",
}

# Set by launchers of MPI in every process that they start: a sign, and what says how many.
LAUNCHERS = {
    "PMI_SIZE": "PMI_SIZE",  # MPICH, Intel MPI, srun --mpi=pmi2
    "OMPI_COMM_WORLD_SIZE": "OMPI_COMM_WORLD_SIZE",  # Open MPI
    "PMIX_RANK": "SLURM_STEP_NUM_TASKS",  # srun --mpi=pmix
}

_set_by_us: set[str] = set()  # variables that the user did not set


def _get(name: str) -> str | None:
    assert name in VARIABLES, name
    return os.environ.get(name) or None


def num_threads() -> int | None:
    """MB_NUM_THREADS as a number; EngineError when it is none."""
    text = _get("MB_NUM_THREADS")
    if text is None:
        return None
    if not text.isdigit() or int(text) < 1:
        raise EngineError(f"MB_NUM_THREADS: expected a number >= 1, found {text!r}")
    return int(text)


def collective_timeout() -> float:
    """MB_COLLECTIVE_TIMEOUT in seconds; EngineError when it is no positive number."""
    text = _get("MB_COLLECTIVE_TIMEOUT") or "300"
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.0 < seconds < math.inf:
        raise EngineError(f"MB_COLLECTIVE_TIMEOUT: expected seconds > 0, found {text!r}")
    return seconds


def launched() -> int | None:
    """How many processes the launcher of MPI started, 0 if it does not say; None without one."""
    for sign, count in LAUNCHERS.items():
        if sign in os.environ:
            text = os.environ.get(count, "")
            return int(text) if text.isdecimal() else 0
    return None


def isa() -> str | None:
    """MB_ISA."""
    return _get("MB_ISA")


def dump_folder() -> Path | None:
    """MB_DUMP, which exists then; CompileError when it cannot be made."""
    text = _get("MB_DUMP")
    if text is None:
        return None
    try:
        Path(text).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CompileError(f"MB_DUMP: {text} cannot be made: {error.strerror}") from None
    return Path(text)


def passes_off() -> frozenset[str]:
    """Names of passes switched off by MB_PASSES=-fold,-cse; CompileError for other words."""
    words = [w.strip() for w in (_get("MB_PASSES") or "").split(",") if w.strip()]
    for word in words:
        if not word.startswith("-"):
            raise CompileError(f"MB_PASSES: expected -name of a pass, found {word!r}")
    return frozenset(w[1:] for w in words)


def poison() -> bool:
    """MB_POISON."""
    return _get("MB_POISON") == "1"


def check() -> int:
    """MB_CHECK as 0 (off), 1 or 2; EngineError for anything else."""
    text = _get("MB_CHECK") or "0"
    if text not in ("0", "1", "2"):
        raise EngineError(f"MB_CHECK: expected 0, 1 or 2, found {text!r}")
    return int(text)


def trace_file() -> Path | None:
    """MB_TRACE."""
    text = _get("MB_TRACE")
    return Path(text) if text else None


def cache_folder() -> Path:
    """MB_CACHE."""
    return Path(_get("MB_CACHE") or Path.home() / ".cache" / "megbrain_py")


def costs() -> str:
    """MB_COSTS: "measured" or "roofline"; CompileError for anything else."""
    text = _get("MB_COSTS") or "measured"
    if text not in ("measured", "roofline"):
        raise CompileError(f"MB_COSTS: expected measured or roofline, found {text!r}")
    return text


def test_data() -> Path | None:
    """MB_TEST_DATA."""
    text = _get("MB_TEST_DATA")
    return Path(text) if text else None


def compiler() -> str | None:
    """CXX."""
    return _get("CXX")


def child_environment(more: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process that we start: ours, as the user set it, and `more`."""
    own = {name: text for name, text in os.environ.items() if name not in _set_by_us}
    return {**own, **more}


def set_openmp_patience() -> None:
    """Before the engine is loaded: threads that wait for others give their core up sooner.

    gomp's default spins so long that a second busy process makes a step several times slower;
    10,000 rounds cost 3 % of a small detector's step on an idle machine. Your own settings win.
    """
    if "OMP_WAIT_POLICY" not in os.environ and "GOMP_SPINCOUNT" not in os.environ:
        os.environ["GOMP_SPINCOUNT"] = "10000"
        _set_by_us.add("GOMP_SPINCOUNT")
