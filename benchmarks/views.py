"""Several views and an ensemble against one look: the table of docs/testing_detectors.md."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from megbrain_py.data import differences, match_table

VIEWS = ("--scales", "0.75,1,1.25", "--flip")
VOTE = ("--vote", "0.8")


def views(runs: tuple[Path, Path], annotations: Path, folder: Path) -> bool:
    """Score each run alone, in six views, and both together; AP rises, outside of noise.

    runs: two trainings of one configuration with seeds of their own. Three ways are tried: views,
    the ensemble, and both. True if each scores above either single look, for one of the two with a
    95 % interval above 0.
    """
    first, second = runs
    looks = [_results(folder / f"one_{i}.json", run) for i, run in enumerate(runs)]
    tried = {
        "six views, voting": [
            _results(folder / f"views_{i}.json", run, words=(*VIEWS, *VOTE))
            for i, run in enumerate(runs)
        ],
        "both, voting": [_results(folder / "both.json", first, second, words=VOTE)] * 2,
        "both, six views, voting": [
            _results(folder / "all.json", first, second, words=(*VIEWS, *VOTE))
        ] * 2,
    }  # fmt: skip
    held = []
    for name, files in tried.items():
        gains = []
        for seed, (look, file) in enumerate(zip(looks, files, strict=True)):
            one, two = (match_table(annotations, path) for path in (look, file))
            gain = next(d for d in differences(one, two) if d.name == "AP")
            gains.append(gain)
            print(
                f"views: seed {seed}: {name}: AP {gain.first:.3f} -> {gain.second:.3f} "
                f"({gain.second - gain.first:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}])"
            )
        held.append(all(g.second > g.first for g in gains) and any(g.low > 0 for g in gains))
    return all(held)


def _results(file: Path, *runs: Path, words: tuple[str, ...] = ()) -> Path:
    command = [sys.executable, "-m", "megbrain_py", "eval", *map(str, runs), *words]
    subprocess.run([*command, "-o", str(file)], check=True, stdout=subprocess.DEVNULL)
    return file
