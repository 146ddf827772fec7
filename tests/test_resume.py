"""A training that is killed (-9) anywhere and resumed ends bit-equal to one that was not."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from training_child import CHECKPOINT_EVERY, STEPS

from megbrain_py.training import checkpoint
from megbrain_py.training.checkpoint import Checkpoint
from megbrain_py.training.log import read_log

HERE = Path(__file__).resolve().parent


def start(folder: Path, *words: object) -> subprocess.Popen[str]:
    command = [sys.executable, str(HERE / "training_child.py"), str(folder), *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=HERE.parent,
                            env=_environment())  # fmt: skip


def _environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": f"{HERE.parent}{os.pathsep}{HERE}", "MB_NUM_THREADS": "1"}


def finish(folder: Path) -> tuple[Checkpoint, list[dict[str, object]]]:
    """Run to the end; the final state and the log without what depends on the clock."""
    process = start(folder)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    path = checkpoint.path_of(folder / "checkpoints", STEPS)
    timed = ("seconds", "rate")
    lines = [
        {k: v for k, v in line.items() if k not in timed} for line in read_log(folder / "log.jsonl")
    ]
    return checkpoint.load(path), lines


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoint, list[dict[str, object]]]:
    return finish(tmp_path_factory.mktemp("whole") / "run")


def check_equal(folder: Path, whole: tuple[Checkpoint, list[dict[str, object]]]) -> None:
    expected, lines = whole
    found, found_lines = finish(folder)
    assert found.step == expected.step == STEPS
    for section in ("model", "optimizer", "average"):
        old, new = getattr(expected, section), getattr(found, section)
        assert old and set(old) == set(new)
        for name in old:
            assert old[name].tobytes() == new[name].tobytes(), name
    assert found_lines == lines
    assert len(lines) == STEPS
    assert not list((folder / "checkpoints").glob(".*"))


@pytest.mark.parametrize(
    ("place", "count"),
    [
        ("step", 2 * CHECKPOINT_EVERY - 3),  # before the first checkpoint, half way in a step
        ("half", 2),  # the first file written so is the configuration
        ("half", 4),
        ("before_rename", 3),
        ("after_rename", 2),
        ("log", 20),
    ],
)
def test_killed_at(
    place: str, count: int, tmp_path: Path, whole: tuple[Checkpoint, list[dict[str, object]]]
) -> None:
    process = start(tmp_path / "run", place, count)
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    if place == "half":
        assert list((tmp_path / "run" / "checkpoints").glob(".*"))  # it died while writing
    check_equal(tmp_path / "run", whole)


def test_killed_at_random_times_again_and_again(
    tmp_path: Path, whole: tuple[Checkpoint, list[dict[str, object]]]
) -> None:
    rng = np.random.default_rng(0)
    folder = tmp_path / "run"
    for wait in (0.0, *rng.uniform(0, 0.3, 3)):
        process = start(folder)
        assert process.stdout is not None
        process.stdout.readline()  # "ready"
        time.sleep(wait)
        process.kill()
        process.communicate(timeout=120)
    check_equal(folder, whole)
