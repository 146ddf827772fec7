"""Every example runs and does what it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parent.parent / "examples"


def _run(name: str, seconds: float) -> str:
    """The output of an example, run as a user would run it."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name)],
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
