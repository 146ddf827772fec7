"""`megbrain launch`: processes that train as one; when one ends, all do, and it says which."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rank_training import STEPS
from test_mpi import needs_mpi
from test_training_ranks import CLOCK, detector_config

from megbrain_py import debug
from megbrain_py.cli.main import main
from megbrain_py.cli.train import run
from megbrain_py.data.digit_scenes import make_digit_scenes
from megbrain_py.distributed import start
from megbrain_py.op_testing import relative_error
from megbrain_py.training import checkpoint, settings
from megbrain_py.training.devices import on_devices
from megbrain_py.training.log import read_log

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = ROOT / "tests" / "rank_training.py"


def launch(ranks: int, *words: object, limit: str = "60") -> subprocess.Popen[str]:
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    return subprocess.Popen(
        [sys.executable, "-m", "megbrain_py", "launch", "-n", str(ranks), *map(str, words)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path, "MB_NUM_THREADS": "1",
             "MB_COLLECTIVE_TIMEOUT": limit},
    )  # fmt: skip


def finished(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code, output, errors."""
    out, errors = process.communicate(timeout=300)
    return process.returncode, out, errors


def saved(folder: Path, step: int = STEPS) -> checkpoint.Checkpoint:
    return checkpoint.load(checkpoint.path_of(folder / "checkpoints", step))


@needs_mpi
def test_processes_train_as_logical_devices_do(tmp_path: Path) -> None:
    data = make_digit_scenes(tmp_path / "data", 16, 12, seed=0)
    config = detector_config(data, tmp_path / "threads", "devices=2", "seed=4")
    on_devices(config, run)
    file = tmp_path / "settings.toml"
    file.write_text(settings.to_toml(replace(config, output=str(tmp_path / "mpi"), devices=1)))
    code, out, errors = finished(launch(2, "train", file))
    assert code == 0, errors
    assert "2 processes, each with 2 pictures of a batch; batch norm over all of the batch" in out
    assert out.count("done: ") == 1
    one, other = saved(tmp_path / "mpi", 3), saved(tmp_path / "threads", 3)
    for name, array in other.model.items():
        assert relative_error(one.model[name], array) <= 1e-3 or not np.any(array), name
    assert one.config["devices"] == 2
    logs = [read_log(tmp_path / name / "log.jsonl") for name in ("mpi", "threads")]
    for line, expected in zip(*logs, strict=True):
        assert list(line) == list(expected)
        for name, value in expected.items():
            if isinstance(value, float) and name not in CLOCK:
                assert line[name] == pytest.approx(value, rel=1e-3, abs=1e-6)


@needs_mpi
@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("raise", "ValueError: rank 1 fails"),
        ("exit", "rank 1 leaves"),
        ("kill", r"megbrain launch: rank 1 \(process \d+ on \S+\) was killed by signal 9"),
    ],
)
def test_when_a_rank_ends_all_do_and_the_training_goes_on(
    way: str, message: str, tmp_path: Path
) -> None:
    """Its words come first; the checkpoint before it is continued to the same bits."""
    started = time.monotonic()
    found, _, errors = finished(launch(3, PROGRAM, tmp_path / "run", way))
    assert time.monotonic() - started < 60
    assert found == 1
    assert re.search(message, errors)
    assert errors.count("Traceback") == (way == "raise")
    assert [p.name for p in checkpoint.files(tmp_path / "run" / "checkpoints")][-1] == (
        "step_00000004.safetensors"
    )
    for name in ("run", "whole"):
        again, out, errors = finished(launch(3, PROGRAM, tmp_path / name))
        assert again == 0, errors
        assert ("resuming after step 4 of 12" in out) == (name == "run")
    one, other = saved(tmp_path / "run"), saved(tmp_path / "whole")
    for name, array in other.model.items():
        np.testing.assert_array_equal(one.model[name], array)
    lines = read_log(tmp_path / "run" / "log.jsonl")
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))


@needs_mpi
def test_a_rank_that_hangs_or_has_left_is_named(tmp_path: Path) -> None:
    code, _, errors = finished(launch(3, PROGRAM, tmp_path / "a", "wait", limit="1"))
    assert code != 0
    assert "waited 1 s (MB_COLLECTIVE_TIMEOUT) for rank 1 in " in errors
    code, _, errors = finished(launch(3, PROGRAM, tmp_path / "b", "leave", limit="1"))
    assert code != 0


@needs_mpi
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_passed_on_and_saves(number: signal.Signals, tmp_path: Path) -> None:
    process = launch(2, PROGRAM, tmp_path / "run", "wait")
    log = tmp_path / "run" / "log.jsonl"
    deadline = time.monotonic() + 60
    while not (log.exists() and log.read_text().count("\n") >= 2):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    code, out, errors = finished(process)
    assert code == 0, errors  # the program itself went on to its end
    step = int(re.search(rf"{number.name}: saved after step (\d+)", out)[1])  # type: ignore[index]
    assert saved(tmp_path / "run", step).step == step < 5


@needs_mpi
def test_what_all_ranks_refuse_is_said_once(tmp_path: Path) -> None:
    code, out, errors = finished(launch(3, "train", "data.train=nothing.json"))
    assert (code, out) == (2, "")
    assert errors == "megbrain train: nothing.json: cannot be read: No such file or directory\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("-n", "0", "train"), "launch: -n expects at least 1, found 0"),
        (("-n", "2"), "launch: expected a command such as train, or a program.py"),
    ],
)
def test_refuses(words: tuple[str, ...], message: str) -> None:
    with contextlib.redirect_stderr(io.StringIO()) as said:
        assert main(["launch", *words]) == 2
    assert message in said.getvalue()


def test_without_mpiexec_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "files_of", lambda *_: [])
    monkeypatch.setenv("PATH", "")
    with contextlib.redirect_stderr(io.StringIO()) as said:
        assert main(["launch", "-n", "2", "train"]) == 2
    assert "no mpiexec was found; install one: pip install megbrain_py[mpi]" in said.getvalue()


@pytest.mark.parametrize(
    ("variables", "count"),
    [
        ({}, None),
        ({"PMI_SIZE": "4", "PMI_RANK": "1"}, 4),
        ({"OMPI_COMM_WORLD_SIZE": "3"}, 3),
        ({"PMIX_RANK": "0", "SLURM_STEP_NUM_TASKS": "8"}, 8),
        ({"PMIX_RANK": "0"}, 0),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, None),  # a batch script itself
    ],
)
def test_launchers_are_known_by_what_they_set(
    variables: dict[str, str], count: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [*debug.LAUNCHERS, *debug.LAUNCHERS.values()]:
        monkeypatch.delenv(name, raising=False)
    for name, text in variables.items():
        monkeypatch.setenv(name, text)
    assert debug.launched() == count
