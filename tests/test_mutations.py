"""Damaged checkpoints, weights and annotations, a few; `make bars BARS_ARGS=mutations`: many."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_damaged_files_load_or_are_refused(tmp_path: Path) -> None:
    program = Path(__file__).with_name("mutations.py")
    done = subprocess.run(
        [sys.executable, str(program), str(tmp_path), "200", "1"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "200 checkpoint files" in done.stdout
    assert "200 weights files" in done.stdout
    assert "200 older weights files" in done.stdout
    assert "200 safetensors files" in done.stdout
    assert "200 annotation files" in done.stdout
