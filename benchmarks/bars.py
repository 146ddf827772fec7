"""The long measurements, outside the tests: `make bars BARS_ARGS="demo bccd kills"`.

demo: trains and scores the digit scenes. bccd: trains on blood cells (MB_TEST_DATA must point to
the data sets). kills: a demo training killed (-9) at ten moments; each must resume to equal bits.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from megbrain_py import debug
from megbrain_py.data.digit_scenes import make_digit_scenes
from megbrain_py.training import checkpoint
from megbrain_py.training.log import read_log

ROOT = Path(__file__).resolve().parent.parent
STEPS = 60
CHECKPOINT_EVERY = 10


def program(*words: str) -> list[str]:
    """The command line of `megbrain ...` with this Python."""
    return [sys.executable, "-m", "megbrain_py", *words]


def demo(folder: Path) -> bool:
    """val AP50 >= 0.80."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "megbrain_py.cli.demo", "--output", str(folder / "demo")]
    output = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    last = output.strip().splitlines()[-1]
    ap50 = float(last.removeprefix("val AP50 = "))
    print(f"demo: {last} (bar 0.80) in {time.perf_counter() - start:.0f} s")
    return ap50 >= 0.80


def bccd(folder: Path) -> bool:
    """WBC AP50 >= 0.85 and mean AP50 >= 0.55 on val within 25 minutes."""
    data = debug.test_data()
    if data is None:
        print("bccd: skipped, MB_TEST_DATA is not set")
        return True
    start = time.perf_counter()
    annotations = data / "bccd" / "annotations"
    words = [
        "examples/bccd.toml",
        f"data.train={annotations / 'instances_train.json'}",
        f"data.val={annotations / 'instances_val.json'}",
        f"output={folder / 'bccd'}",
    ]
    subprocess.run(program("train", *words), cwd=ROOT, check=True)
    minutes = (time.perf_counter() - start) / 60
    log = read_log(folder / "bccd" / "log.jsonl")
    figures = [line for line in log if line["kind"] == "eval"][-1]
    wbc = figures["AP50_per_class"]["WBC"]
    print(
        f"bccd: WBC AP50 = {wbc:.3f} (bar 0.85), mean AP50 = {figures['AP50']:.3f} (bar 0.55) "
        f"in {minutes:.1f} minutes (bar 25)"
    )
    return wbc >= 0.85 and figures["AP50"] >= 0.55 and minutes <= 25


class Run:
    """A short demo training in a folder of its own."""

    def __init__(self, data: tuple[Path, Path], folder: Path) -> None:
        self.data = data
        self.folder = folder
        self.checkpoints = folder / "checkpoints"

    def start(self) -> subprocess.Popen[bytes]:
        """From the beginning, or from the newest checkpoint."""
        if (self.folder / "config.toml").exists():
            words = ["train", "--resume", str(self.folder)]
        else:
            words = [
                "train", "examples/demo.toml", f"data.train={self.data[0]}",
                f"data.val={self.data[1]}", f"output={self.folder}", f"steps={STEPS}",
                f"checkpoint_every={CHECKPOINT_EVERY}", "keep=3",
            ]  # fmt: skip
        return subprocess.Popen(program(*words), cwd=ROOT, stdout=subprocess.DEVNULL)

    def finish(self) -> checkpoint.Checkpoint:
        """To the end; the last checkpoint."""
        code = self.start().wait()
        if code != 0:
            raise SystemExit(f"kills: a training in {self.folder} ended with {code}")
        return checkpoint.load(checkpoint.path_of(self.checkpoints, STEPS))

    def kill_after(self, seconds: float) -> str:
        """kill -9 after some seconds; says what was there."""
        process = self.start()
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
        return f"after {seconds:.1f} s, {len(checkpoint.files(self.checkpoints))} checkpoints"

    def kill_while_writing(self) -> str:
        """kill -9 while the temporary file of a checkpoint is there."""
        process = self.start()
        while process.poll() is None:
            if any(self.checkpoints.glob(".*")):
                process.send_signal(signal.SIGKILL)
                process.wait()
                break
        half = [f.stat().st_size for f in self.checkpoints.glob(".*")]
        if not half:
            return "missed"
        return f"inside a checkpoint write, {half[0]} bytes written"


def equal(a: checkpoint.Checkpoint, b: checkpoint.Checkpoint) -> bool:
    """Bit-equal model and optimiser."""
    return all(
        set(old) == set(new) and all(old[n].tobytes() == new[n].tobytes() for n in old)
        for old, new in ((a.model, b.model), (a.optimizer, b.optimizer))
    )


def kills(folder: Path) -> bool:
    """Ten kills: one before the first checkpoint, two inside a write, seven uniform in time."""
    data = make_digit_scenes(folder / "data", 300, 20, seed=0)
    start = time.perf_counter()
    whole = Run(data, folder / "whole").finish()
    took = time.perf_counter() - start
    print(f"kills: the uninterrupted training took {took:.1f} s")
    good = True
    moments = [None, None, 2.0, *np.linspace(0.25, 0.95, 7) * took]
    for number, moment in enumerate(moments):
        what = "missed"
        while what == "missed":
            run = Run(data, Path(tempfile.mkdtemp(dir=folder)))
            what = run.kill_while_writing() if moment is None else run.kill_after(moment)
        same = equal(run.finish(), whole)
        good = good and same
        print(f"kills: {number + 1}: {what}: resumed {'bit-equal' if same else 'DIFFERENT'}")
    return good


BARS = {"demo": demo, "bccd": bccd, "kills": kills}


def main() -> int:
    """Run the named bars, or all; 1 when one does not hold."""
    parser = argparse.ArgumentParser(prog="bars", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*BARS, []], default=list(BARS))
    names = parser.parse_args().names
    with tempfile.TemporaryDirectory() as folder:
        results = {name: BARS[name](Path(folder)) for name in names}
    for name, held in results.items():
        print(f"{name}: {'holds' if held else 'DOES NOT HOLD'}")
    return 0 if all(results.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
