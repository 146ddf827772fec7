"""Ranks as processes of MPI (MPICH from PyPI): the same numbers, and errors that end."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import numpy as np
import pytest
from rank_programs import Arrays, batch_norm, train

import megbrain_py as mb
from megbrain_py import debug, distributed
from megbrain_py.op_testing import relative_error

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = Path(__file__).parent / "rank_programs.py"


def _wheel(name: str) -> Path | None:
    """A file of the installed package mpich."""
    try:
        found = [Path(str(f.locate())) for f in files("mpich") or [] if f.name == name]
    except PackageNotFoundError:
        return None
    return found[0].resolve() if found else None


MPIEXEC = _wheel("mpiexec")
needs_mpi = pytest.mark.skipif(MPIEXEC is None, reason="mpich is not installed (extra [mpi])")


def mpi(
    ranks: int, file: Path, name: str, *arguments: object, limit: str = "60", threads: str = "1"
) -> str:
    """Run a program of rank_programs.py; its exit must be clean. Gives stderr otherwise."""
    environment = {**os.environ, "MB_NUM_THREADS": threads, "MB_COLLECTIVE_TIMEOUT": limit}
    done = subprocess.run(
        [str(MPIEXEC), "-n", str(ranks), sys.executable, str(PROGRAM), str(file), name,
         json.dumps(arguments)],
        capture_output=True, text=True, check=False, timeout=100, env=environment, cwd=ROOT,
    )  # fmt: skip
    return "" if done.returncode == 0 else done.stderr or f"exit code {done.returncode}"


def results(ranks: int, folder: Path, name: str, *arguments: object) -> list[Arrays]:
    """What every rank returns."""
    file = folder / "results.pickle"
    assert mpi(ranks, file, name, *arguments) == ""
    found: list[Arrays] = pickle.loads(file.read_bytes())
    return found


@needs_mpi
@pytest.mark.parametrize("shards", [(4, 4), (3, 0, 5)], ids=str)
def test_batch_norm_is_that_of_threads(shards: tuple[int, ...], tmp_path: Path) -> None:
    """Bit by bit where every rank merges for itself; sums may add in MPI's order."""
    threads = distributed.run(lambda: batch_norm(shards), len(shards))
    processes = results(len(shards), tmp_path, "batch_norm", shards)
    for one, other in zip(processes, threads, strict=True):
        for name in ("y", "mean", "var"):
            np.testing.assert_array_equal(one[name], other[name])
        assert max(relative_error(one[n], other[n]) for n in one) <= 1e-5


@needs_mpi
@pytest.mark.parametrize("shards", [(4, 4), (3, 0, 5)], ids=str)
def test_training_is_that_of_one_rank_and_repeats(shards: tuple[int, ...], tmp_path: Path) -> None:
    whole = train("convolutions", 3, [sum(shards)])
    found = results(len(shards), tmp_path, "train", "convolutions", 3, shards)
    again = results(len(shards), tmp_path, "train", "convolutions", 3, shards)
    for name, expected in whole.items():
        assert relative_error(found[0][name], expected) <= 1e-4, name
        for one, other in zip(found, again, strict=True):
            assert np.array_equal(one[name], found[0][name]), f"{name} differs between ranks"
            assert np.array_equal(one[name], other[name]), f"{name} does not repeat"


@needs_mpi
def test_groups(tmp_path: Path) -> None:
    shards, colors = [2, 1, 3, 2], [0, 1, 0, 1]
    threads = distributed.run(lambda: batch_norm(shards, False, colors), 4)
    processes = results(4, tmp_path, "batch_norm", shards, False, colors)
    for one, other in zip(processes, threads, strict=True):
        np.testing.assert_array_equal(one["mean"], other["mean"])
        assert max(relative_error(one[n], other[n]) for n in one) <= 1e-5


@needs_mpi
def test_processes_share_the_processors(tmp_path: Path) -> None:
    file = tmp_path / "threads"
    assert mpi(2, file, "threads", threads="") == ""
    assert pickle.loads(file.read_bytes()) == [max(1, len(os.sched_getaffinity(0)) // 2)] * 2
    assert mpi(2, file, "threads", threads="3") == ""
    assert pickle.loads(file.read_bytes()) == [3, 3]


@needs_mpi
def test_a_missing_rank_is_named_and_all_end(tmp_path: Path) -> None:
    """Rank 1 goes on to the end of the program; the others wait for it elsewhere."""
    started = time.monotonic()
    text = mpi(3, tmp_path / "none", "other_graphs", "sleep", limit="1")
    assert "before a run that begins with all_reduce" in text
    assert "waited 1 s (MB_COLLECTIVE_TIMEOUT) for rank 1 in an all-gather" in text
    assert time.monotonic() - started < 20


@needs_mpi
def test_a_rank_that_does_not_start_what_overlaps_is_named(tmp_path: Path) -> None:
    started = time.monotonic()
    text = mpi(3, tmp_path / "none", "overlap_without_rank_1", limit="1")
    assert "EngineError: all_reduce_later at" in text
    assert "waited 1 s (MB_COLLECTIVE_TIMEOUT) for rank 1 in an all-reduce" in text
    assert time.monotonic() - started < 20


@needs_mpi
@pytest.mark.parametrize(
    ("what", "line"),
    [
        ("reduction", "rank 1: all_reduce(colors=(0, 0), reduction='max')"),
        ("group", "rank 0: all_reduce(colors=(0, 0), reduction='sum')"),  # rank 1 has none
        ("count", "rank 1: all_reduce(colors=(0, 0), reduction='sum')"),
    ],
)
def test_mismatched_graphs_are_told_apart(what: str, line: str, tmp_path: Path) -> None:
    started = time.monotonic()
    text = mpi(2, tmp_path / "none", "other_graphs", what)
    assert "the ranks run different programs" in text
    assert line in text
    assert time.monotonic() - started < 60


@needs_mpi
def test_an_exception_of_one_rank_ends_all(tmp_path: Path) -> None:
    started = time.monotonic()
    assert "ValueError: rank 1 fails" in mpi(3, tmp_path / "none", "other_graphs", "exception")
    assert time.monotonic() - started < 20


@needs_mpi
def test_the_abi_is_that_of_the_header(tmp_path: Path) -> None:
    """Types, values and signatures of engine/src/mpi_functions.h; two planted mistakes are seen."""
    header, tool = _wheel("mpi_abi.h"), shutil.which(debug.compiler() or "c++")
    if header is None or tool is None:
        pytest.skip("no mpi_abi.h or no compiler")

    def compile_with(text: str) -> str:
        (tmp_path / "mpi_functions.h").write_text(text)
        done = subprocess.run(
            [tool, "-std=c++20", "-O2", "-c", "-o", str(tmp_path / "out.o"), f"-I{header.parent}",
             f"-I{tmp_path}", str(ROOT / "tests" / "mpi_abi_check.cpp")],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        return "" if done.returncode == 0 else done.stderr

    ours = (ROOT / "engine" / "src" / "mpi_functions.h").read_text()
    assert compile_with(ours) == ""
    other_type = ours.replace("F(Abort, Comm, int)", "F(Abort, Comm, long)")
    assert "MPI_Abort has another type" in compile_with(other_type)
    other_value = ours.replace("kFloat = 0x210", "kFloat = 0x211")
    assert "a handle has another value" in compile_with(other_value)


def test_without_mpi_the_error_says_what_to_install() -> None:
    """In a Python that finds no package mpich and no library."""
    code = (
        "import importlib.metadata as m\n"
        "from megbrain_py.distributed import start\n"
        "start.files_of = lambda *_: []\n"
        "start._LIBRARY = 'libmpi_that_nobody_has.so'\n"
        "start.init('mpi')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert (
        "EngineError: init: no MPI library was found; install one: pip install megbrain_py[mpi]"
        in (done.stderr)
    )


def test_unknown_backends_are_refused() -> None:
    with pytest.raises(mb.EngineError, match="init: unknown backend gloo; known: mpi"):
        distributed.init("gloo")
