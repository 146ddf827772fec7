"""A detector training, killed (-9) at random moments and resumed, must end with the same bits."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from megbrain_py.data.digit_scenes import make_digit_scenes
from megbrain_py.training import checkpoint

ROOT = Path(__file__).resolve().parent.parent
SEED = 0
STEPS = 30
CHECKPOINT_EVERY = 5
INSIDE_A_WRITE = 0.3  # this share of the kills waits for a checkpoint that is being written
AGAIN = 0.3  # this share of the resumed runs is killed too, and so on
SETTINGS = [  # small pictures, every augmentation, a loader that works ahead
    f"steps={STEPS}", f"checkpoint_every={CHECKPOINT_EVERY}", "keep=3", "batch_size=4",
    "data.short_side=64", "data.long_side=64", "data.scale_jitter=0.75,1.25", "data.flip=0.5",
    "data.brightness=0.3", "data.contrast=0.3", "data.saturation=0.3", "data.workers=2",
    "val_loss_images=0",
]  # fmt: skip


class Run:
    """A short training on digit scenes in a folder of its own."""

    settings: Sequence[str] = SETTINGS

    def __init__(self, annotations: Path, folder: Path) -> None:
        self.annotations = annotations
        self.folder = folder
        self.checkpoints = folder / "checkpoints"

    def start(self) -> subprocess.Popen[bytes]:
        """From the beginning, or from the newest checkpoint."""
        command = [sys.executable, "-m", "megbrain_py", *self.words()]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)

    def words(self) -> list[str]:
        """`train ...`"""
        if (self.folder / "config.toml").exists():
            return ["train", "--resume", str(self.folder)]
        own = [f"data.train={self.annotations}", "data.val=", f"output={self.folder}"]
        return ["train", "examples/demo.toml", *own, *self.settings]

    def finish(self) -> checkpoint.Checkpoint:
        """To the end; the last checkpoint."""
        code = self.start().wait()
        if code != 0:
            raise SystemExit(f"kills: a training in {self.folder} ended with {code}")
        return checkpoint.load(checkpoint.path_of(self.checkpoints, STEPS))

    def kill_after(self, seconds: float) -> str | None:
        """kill -9 after some seconds; says what was there, None when the run was faster."""
        process = self.start()
        try:
            process.wait(seconds)
            return None
        except subprocess.TimeoutExpired:
            _kill(process)
        return f"after {seconds:.1f} s, {len(checkpoint.files(self.checkpoints))} checkpoints"

    def kill_while_writing(self, write: int) -> str | None:
        """kill -9 while a later checkpoint is written; None when there was none to catch."""
        process = self.start()
        seen: set[Path] = set()
        while process.poll() is None and len(seen) <= write:
            seen.update(self.checkpoints.glob(".step_*"))
            time.sleep(0.0005)  # a write takes some milliseconds; the training needs the core
        _kill(process)
        half = [file.stat().st_size for file in self.checkpoints.glob(".step_*")]
        return f"inside a checkpoint write, {half[0]:,} bytes written" if half else None


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


def difference(a: checkpoint.Checkpoint, b: checkpoint.Checkpoint) -> str:
    """The first array of model and optimiser that is not bit-equal; empty when there is none."""
    for old, new in ((a.model, b.model), (a.optimizer, b.optimizer)):
        if set(old) != set(new):
            return "other names"
        for name in old:
            if old[name].tobytes() != new[name].tobytes():
                return name
    return ""


AnyRun = TypeVar("AnyRun", bound=Run)
Generator = np.random.Generator


def kill_again_and_again(
    kind: Callable[[Path, Path], AnyRun],
    folder: Path,
    count: int,
    kill: Callable[[AnyRun, Generator, float], str | None],
) -> tuple[bool, int]:
    """`count` kills; resumed runs are killed again; whether all end bit-equal, and how many ran.

    kill: says what it did to a run, None when the run came to its end first; it is told how many
    seconds a whole run takes.
    """
    annotations, _ = make_digit_scenes(folder / "data", 100, 0, seed=0)
    start = time.perf_counter()
    whole = kind(annotations, folder / "whole").finish()
    took = time.perf_counter() - start
    print(f"kills: {STEPS} steps uninterrupted: {took:.1f} s", flush=True)
    rng = np.random.default_rng(SEED)
    done = runs = 0
    good = True
    while done < count:
        run = kind(annotations, folder / f"run{runs}")
        runs += 1
        moments: list[str] = []
        while done < count and (not moments or rng.random() < AGAIN):
            what = kill(run, rng, took)
            if what is None:
                break
            moments.append(what)
            done += 1
        different = difference(run.finish(), whole)
        good = good and not different
        verdict = f"DIFFERENT in {different}" if different else "bit-equal"
        print(f"kills: {done}: {'; then '.join(moments) or 'missed'}: {verdict}", flush=True)
    return good, runs


def kills(folder: Path, count: int = 10) -> bool:
    """`count` kills at random moments, some inside a checkpoint write; all must end bit-equal."""
    inside = 0

    def kill(run: Run, rng: Generator, took: float) -> str | None:
        nonlocal inside
        writing = rng.random() < INSIDE_A_WRITE
        moment = rng.uniform(0.1, 1.0) * took
        which = int(rng.integers(STEPS // CHECKPOINT_EVERY))
        what = run.kill_while_writing(which) if writing else run.kill_after(moment)
        inside += writing and what is not None
        return what

    good, runs = kill_again_and_again(Run, folder, count, kill)
    print(f"kills: {count} in {runs} trainings, {inside} inside a checkpoint write")
    return good and inside * 5 >= count
