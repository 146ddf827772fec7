"""Every example runs and does what it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from megbrain_py.data.digit_scenes import SceneStyle, make_digit_scenes

EXAMPLES = Path(__file__).parent.parent / "examples"


def _run(name: str, seconds: float, *words: object) -> str:
    """The output of an example, run as a user would run it."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *map(str, words)],
        capture_output=True, text=True, timeout=seconds, cwd=EXAMPLES.parent, check=False,
        env={**os.environ, "PYTHONPATH": str(EXAMPLES.parent)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_define_and_compile() -> None:
    found = re.search(r"held-back accuracy (\d\.\d+)", _run("define_and_compile.py", 120))
    assert found is not None and float(found[1]) > 0.97


def test_write_an_operator() -> None:
    printed = _run("write_an_operator.py", 120)
    assert "3 cases and 1 error hold" in printed
    assert "loss 99307, gradient 1.0" in printed


def test_continuity_of_pooling(tmp_path: Path) -> None:
    """Rounding jumps, samples have kinks, integrals neither; the readout errs in that order."""
    printed = _run("continuity_of_pooling.py", 120, tmp_path / "curve.png")
    rows = re.findall(r"^(RoI|Precise).*?([\d.]+) +([\d.]+) +([\d.]+) px$", printed, re.MULTILINE)
    jump, kink, error = np.array([row[1:] for row in rows], float).T
    assert len(rows) == 5 and (tmp_path / "curve.png").exists()
    assert min(jump[:2]) > 3 and max(jump[2:]) < 1.1
    assert kink[3] > 2 * kink[4]
    assert (np.diff(error[1:]) < 0).all() and error[4] < 0.01 and error[1] > 0.1


def test_train_detector(tmp_path: Path) -> None:
    train, val = make_digit_scenes(tmp_path / "data", 8, 4, style=SceneStyle(size=64))
    printed = _run(
        "train_detector.py", 120, train, val, tmp_path / "run", "steps=3", "batch_size=4",
        "data.short_side=64", "model.fpn_channels=16", "model.roi.hidden=32",
    )  # fmt: skip
    assert "3 steps, AP50 0." in printed
    assert "'boxes': (4, 50, 4)" in printed
    assert "bbox AP50" in printed
    assert (tmp_path / "run" / "curves.png").exists()
