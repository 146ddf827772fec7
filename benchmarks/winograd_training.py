"""What Winograd's kernels do to trained detectors: AP50 with them and with direct kernels only.

python benchmarks/winograd_training.py [demo | bccd] [--seeds 3] [--output FOLDER]

Trains the digit scenes and the blood cells (MB_TEST_DATA must point to the data sets) once for each
seed and side, and prints means with 95 % intervals (Student's t). A run that FOLDER already holds
is not repeated.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from bars import ROOT
from winograd import direct

from megbrain_py import debug, passes
from megbrain_py.training.log import read_log

SIDES = ("auto", "direct")
_T95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571}  # by the number of values


def train(side: str, task: str, seed: int, folder: Path) -> None:
    """One training in this process, by one side's kernels."""
    from megbrain_py.cli import demo, main

    if side == "direct":
        passes.PIPELINE = (direct, *passes.PIPELINE)
    if task == "demo":
        demo.main(["--output", str(folder), "--seed", str(seed), f"seed={seed}"])
        return
    data = debug.test_data()
    assert data is not None, "MB_TEST_DATA must point to the data sets"
    annotations = data / "bccd" / "annotations"
    main.main(
        ["train", "examples/bccd.toml", f"data.train={annotations / 'instances_train.json'}",
         f"data.val={annotations / 'instances_val.json'}", f"output={folder / 'run'}",
         f"seed={seed}"]
    )  # fmt: skip


def ap50(side: str, task: str, seed: int, output: Path) -> float:
    """The AP50 that a training ends with, in a process of its own or as it was written down."""
    folder = output / f"{task}_{side}_{seed}"
    result = folder / "ap50.json"
    if not result.exists():
        command = [sys.executable, __file__, task, "--child", side, str(seed), str(folder)]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        last = [line for line in read_log(folder / "run" / "log.jsonl") if line["kind"] == "eval"]
        result.write_text(json.dumps(last[-1]["AP50"]))
    found: float = json.loads(result.read_text())
    print(f"{task}, seed {seed}, {side}: AP50 {found:.3f}", flush=True)
    return found


def interval(values: list[float]) -> str:
    """The mean with its 95 % interval."""
    half = _T95[len(values)] * np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{np.mean(values):.3f} +- {half:.3f}"


def main() -> None:
    """Train what is missing, then print both sides and their difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", nargs="?", choices=["demo", "bccd"], help="default: both")
    parser.add_argument("--seeds", type=int, default=3, choices=sorted(_T95))
    parser.add_argument("--output", type=Path, default=Path("runs/winograd"))
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        side, seed, folder = arguments.child
        train(side, arguments.task, int(seed), Path(folder))
        return
    for task in [arguments.task] if arguments.task else ["demo", "bccd"]:
        found = {side: list[float]() for side in SIDES}
        for seed in range(arguments.seeds):
            for side in SIDES:
                found[side].append(ap50(side, task, seed, arguments.output.resolve()))
        gains = [a - b for a, b in zip(found["auto"], found["direct"], strict=True)]
        print(
            f"{task}: AP50 {interval(found['auto'])} as chosen, {interval(found['direct'])} "
            f"direct, difference {interval(gains)}"
        )


if __name__ == "__main__":
    main()
