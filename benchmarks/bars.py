"""The long measurements, outside the tests: `make bars BARS_ARGS="demo bccd kills=50 mutations"`.

demo: trains and scores the digit scenes. bccd: trains on blood cells (MB_TEST_DATA must point to
the data sets). nuclei, fruits_nuts: masks of both kinds, likewise. views: two trainings on blood
cells, multi-scale testing and their ensemble against one look, likewise. kills: a training killed
(-9) at random moments, ten without a number; each must resume to equal bits. kills_ranks: the
same, of one of three processes that train together. mutations: damaged checkpoints, weights (.pth,
safetensors) and annotation files, 10,000 of each, and edited plans.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from kills import kills
from kills_ranks import kills_ranks
from views import views

from megbrain_py import debug
from megbrain_py.training.log import read_log

ROOT = Path(__file__).resolve().parent.parent


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
    train_bccd(data, folder / "bccd")
    minutes = (time.perf_counter() - start) / 60
    log = read_log(folder / "bccd" / "log.jsonl")
    figures = [line for line in log if line["kind"] == "eval"][-1]
    wbc = figures["AP50_per_class"]["WBC"]
    print(
        f"bccd: WBC AP50 = {wbc:.3f} (bar 0.85), mean AP50 = {figures['AP50']:.3f} (bar 0.55) "
        f"in {minutes:.1f} minutes (bar 25)"
    )
    return wbc >= 0.85 and figures["AP50"] >= 0.55 and minutes <= 25


def train_bccd(data: Path, output: Path, *words: str) -> None:
    """`megbrain train examples/bccd.toml` on the data sets in `data`."""
    annotations = data / "bccd" / "annotations"
    files = [f"data.{part}={annotations / f'instances_{part}.json'}" for part in ("train", "val")]
    command = program("train", "examples/bccd.toml", *files, f"output={output}", *words)
    subprocess.run(command, cwd=ROOT, check=True)


def more_views(folder: Path) -> bool:
    """AP of multi-scale testing and of an ensemble above one look's, outside of noise."""
    data = debug.test_data()
    if data is None:
        print("views: skipped, MB_TEST_DATA is not set")
        return True
    runs = (folder / "seed_0", folder / "seed_1")
    for seed, run in enumerate(runs):
        train_bccd(data, run, f"seed={seed}")
    return views(runs, data / "bccd" / "annotations" / "instances_val.json", folder)


def nuclei(folder: Path) -> bool:
    """Mask AP50 >= 0.70 on val within 30 minutes, with the mask head and with the generator."""
    return all([masks(folder, "nuclei", kind, "segm_AP50", 0.70, 30) for kind in MASKS])


def fruits_nuts(folder: Path) -> bool:
    """Twelve pictures, learnt by heart: mask AP >= 0.80 on these."""
    return all([masks(folder, "fruits_nuts", kind, "segm_AP", 0.80, 30) for kind in MASKS])


MASKS = ("head", "generator")


def masks(folder: Path, name: str, kind: str, figure: str, bar: float, most: float) -> bool:
    """Train examples/NAME.toml with a kind of masks; the figure and the minutes that it took."""
    data = debug.test_data()
    if data is None:
        print(f"{name}: skipped, MB_TEST_DATA is not set")
        return True
    start = time.perf_counter()
    annotations = data / name / "annotations"
    measured = "train" if name == "fruits_nuts" else "val"
    words = [
        f"examples/{name}.toml",
        f"data.train={annotations / 'instances_train.json'}",
        f"data.val={annotations / f'instances_{measured}.json'}",
        f"output={folder / name / kind}",
        f"model.mask={kind}",
    ]
    subprocess.run(program("train", *words), cwd=ROOT, check=True)
    minutes = (time.perf_counter() - start) / 60
    log = read_log(folder / name / kind / "log.jsonl")
    figures = [line for line in log if line["kind"] == "eval"][-1]
    print(
        f"{name}: mask {kind}: {figure} = {figures[figure]:.3f} (bar {bar:.2f}), box AP = "
        f"{figures['AP']:.3f} on {measured} in {minutes:.1f} minutes (bar {most:.0f})"
    )
    return bool(figures[figure] >= bar and minutes <= most)


def mutations(folder: Path, count: int = 10000) -> bool:
    """Damaged files load or are refused, within time and memory; so do edited plans."""
    programs = [["mutations.py", str(folder), str(count)], ["plan_mutations.py", str(count // 5)]]
    commands = [[sys.executable, str(ROOT / "tests" / name), *words] for name, *words in programs]
    return all([subprocess.run(command, check=False).returncode == 0 for command in commands])


BARS: dict[str, Callable[..., bool]] = {
    "demo": demo,
    "bccd": bccd,
    "nuclei": nuclei,
    "fruits_nuts": fruits_nuts,
    "views": more_views,
    "kills": kills,
    "kills_ranks": kills_ranks,
    "mutations": mutations,
}


def main() -> int:
    """Run the named bars, or all; 1 when one does not hold."""
    parser = argparse.ArgumentParser(prog="bars", description=__doc__)
    parser.add_argument("names", nargs="*", default=list(BARS), metavar="NAME[=COUNT]")
    results = {}
    for text in parser.parse_args().names:
        name, _, count = text.partition("=")
        if name not in BARS or not (count or "1").isdigit():
            parser.error(f"{text} is no bar; there are: {', '.join(BARS)}")
        with tempfile.TemporaryDirectory() as folder:
            results[name] = BARS[name](Path(folder), *([int(count)] if count else []))
    for name, held in results.items():
        print(f"{name}: {'holds' if held else 'DOES NOT HOLD'}")
    return 0 if all(results.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
