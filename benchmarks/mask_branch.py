"""Box AP with and without masks, same seeds: `python benchmarks/mask_branch.py --seeds 5`.

Trains examples/nuclei.toml (MB_TEST_DATA must point to the data sets) without masks, with the mask
head and with the generator, for each seed, and gives the mean difference of the box AP with its
95 % interval over seeds (Student's t). Detections stay in the folder for a comparison picture by
picture. Some ten minutes of two quiet cores a training.
"""

from __future__ import annotations

import argparse
import math
import statistics
import subprocess
from pathlib import Path

from bars import ROOT, program

from megbrain_py import debug
from megbrain_py.training.log import read_log

KINDS = ("none", "head", "generator")
# Student's t, 97.5 %, by degrees of freedom; beyond the last one as for it.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


def box_ap(folder: Path, kind: str, seed: int, more: list[str]) -> float:
    """Train unless it was done; the last box AP on val. Detections are written beside the run."""
    data = debug.test_data()
    assert data is not None
    run = folder / f"{kind}_{seed}"
    annotations = data / "nuclei" / "annotations"
    found = folder / f"{kind}_{seed}.json"
    if not found.exists():
        words = [
            "examples/nuclei.toml",
            f"data.train={annotations / 'instances_train.json'}",
            f"data.val={annotations / 'instances_val.json'}",
            f"output={run}",
            f"model.mask={kind}",
            f"seed={seed}",
            *more,
        ]
        resume = ["--resume", str(run)] if (run / "checkpoints").exists() else words
        subprocess.run(program("train", *resume), cwd=ROOT, check=True)
        command = program("eval", str(run), "--checkpoint", "latest", "-o", str(found))
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    figures = [line for line in read_log(run / "log.jsonl") if line["kind"] == "eval"][-1]
    return float(figures["AP"])


def interval(differences: list[float]) -> str:
    """Mean and its 95 % interval."""
    mean = statistics.mean(differences)
    if len(differences) < 2:
        return f"{mean:+.4f} (one seed: no interval)"
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    width = _T[min(len(differences) - 2, len(_T) - 1)] * error
    verdict = "" if abs(mean) > width else ", within noise"
    return f"{mean:+.4f} +- {width:.4f}{verdict}"


def main() -> int:
    """Train, compare, print."""
    parser = argparse.ArgumentParser(prog="mask_branch", description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("runs/mask_branch"))
    parser.add_argument("settings", nargs="*", help="settings of every training, as steps=400")
    arguments = parser.parse_args()
    if debug.test_data() is None:
        print("mask_branch: skipped, MB_TEST_DATA is not set")
        return 0
    folder = arguments.folder.resolve()
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for seed in range(arguments.seeds):
        for kind in KINDS:
            found[kind].append(box_ap(folder, kind, seed, arguments.settings))
            print(f"seed {seed}, masks {kind}: box AP {found[kind][-1]:.4f}", flush=True)
    for kind in KINDS[1:]:
        pairs = zip(found[kind], found["none"], strict=True)
        differences = interval([with_masks - without for with_masks, without in pairs])
        print(f"box AP, masks {kind} - none, {arguments.seeds} seeds: {differences}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
