"""Training steps under byte budgets: on the engine, beside torch, and the largest batch in 4 GiB.

python benchmarks/memory_budget.py engine [resnet50 detector resnet1001] [--share 0.5 0.35]
python benchmarks/memory_budget.py torch [resnet50 resnet1001] --peer-python PYTHON
python benchmarks/memory_budget.py batch --peer-python PYTHON
python benchmarks/memory_budget.py report

Every step runs in a process of its own. Results are lines of --results, which `report` shows as
tables and draws. With --ask a timing waits for a line on the standard input, so that graphs are
compiled before the machine is quiet.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from memory_budget_report import report

from megbrain_py.bench.compare import MEMORY_STEPS, PAUSE
from megbrain_py.bench.pairs import compare
from megbrain_py.bench.sides import TORCH, Side

BUDGETS = "megbrain_py.bench.budgets"
SIZES: Mapping[str, Mapping[str, int]] = {
    "resnet50": {"batch": 16, "size": 224},
    "detector": {"batch": 2, "size": 512, "boxes": 8},
    "resnet1001": {"batch": 32, "size": 32},
}
# torch's ways to save memory, each beside the same without.
OTHERS: Mapping[str, list[tuple[str, Mapping[str, Any], Mapping[str, Any]]]] = {
    "resnet50": [
        ("a checkpoint at each block", {}, {"checkpoint": True}),
        *(
            (f"torch.compile, budget {share}", {"compile": True}, {"activation_budget": share})
            for share in (0.3, 0.2, 0.1)
        ),
    ],
    "resnet1001": [
        (f"checkpoint_sequential, {n} segments", {}, {"segments": n}) for n in (32, 64, 128)
    ],
}
LIMIT = 4 << 30  # bytes that a process may have resident
MARGIN = 4 << 20  # bytes that are left free where what is beside the arena was guessed wrong


def engine(arguments: argparse.Namespace) -> None:
    """Each model at each share, beside the same step without a budget."""
    for model in arguments.models or SIZES:
        with Side(BUDGETS, model, SIZES[model]) as vanilla:
            for share in arguments.share:
                with Side(BUDGETS, model, {**SIZES[model], "memory_budget": share}) as tight:
                    row = {"model": model, "share": share, **tight.facts}
                    if "refused" not in tight.facts:
                        row["vanilla"] = vanilla.facts
                        row["time"] = _timed(tight, vanilla, arguments)
                _keep("engine", row, arguments)


def torch(arguments: argparse.Namespace) -> None:
    """Each of torch's ways beside torch without it; ours beside ours at the same step memory."""
    for model in arguments.models or OTHERS:
        with Side(BUDGETS, model, SIZES[model]) as vanilla:
            beside = vanilla.work(MEMORY_STEPS).memory_bytes - vanilla.facts["planned_bytes"]
            for name, plain, saving in OTHERS[model]:
                if arguments.way not in name:
                    continue
                row = {"model": model, "name": name, **_theirs(model, plain, saving, arguments)}
                allowed = row["bytes"] - beside + vanilla.facts["state_bytes"]
                with _fitting(model, SIZES[model], allowed, "memory_bytes", row["bytes"]) as tight:
                    row["ours"] = tight.facts
                    if "refused" not in tight.facts:
                        row["our_time"] = _timed(tight, vanilla, arguments)
                        row["our_bytes"] = tight.work().memory_bytes
                        row["our_vanilla_bytes"] = vanilla.work().memory_bytes
                _keep("torch", row, arguments)


def _theirs(
    model: str,
    plain: Mapping[str, Any],
    saving: Mapping[str, Any],
    arguments: argparse.Namespace,
) -> dict[str, Any]:
    """What it saves and costs: bytes of a step with and without, the pairs' verdict."""
    python, sizes = arguments.peer_python, {**SIZES[model], **plain}
    with (
        Side(TORCH, model, sizes, python=python) as without,
        Side(TORCH, model, {**sizes, **saving}, python=python) as with_it,
    ):
        plain_bytes = without.work(MEMORY_STEPS).memory_bytes
        bytes = with_it.work(MEMORY_STEPS).memory_bytes
        return {
            "bytes": bytes,
            "plain_bytes": plain_bytes,
            "time": _timed(with_it, without, arguments),
        }


def _fitting(model: str, sizes: Mapping[str, int], allowed: int, figure: str, most: int) -> Side:
    """A step within this budget, or a smaller one until a figure of a Turn is at most so many
    bytes; or it is refused."""
    while True:
        side = Side(BUDGETS, model, {**sizes, "memory_budget": allowed})
        if "refused" in side.facts:
            return side
        excess = getattr(side.work(MEMORY_STEPS), figure) - most
        if excess <= 0:
            return side
        side.close()
        allowed -= excess + MARGIN


def batch(arguments: argparse.Namespace) -> None:
    """The most pictures a step of the detector takes within LIMIT; ours at most 1.15 times as long
    for each picture as unbudgeted."""
    theirs = _largest_of_torch(arguments)
    sizes = SIZES["detector"]
    with Side(BUDGETS, "detector", sizes) as vanilla:
        facts = vanilla.facts
        beside = facts["most_resident"] - facts["committed_bytes"]
        pictures = 3 * theirs
        while True:
            more = 8 * 3 * sizes["size"] ** 2 * (pictures - sizes["batch"])  # fed and drawn floats
            allowed = LIMIT - beside - more + facts["state_bytes"]
            options = {**sizes, "batch": pictures}
            with _fitting("detector", options, allowed, "resident_bytes", LIMIT) as ours:
                row = {"pictures": pictures, "theirs": theirs, **ours.facts}
                if "refused" not in ours.facts:
                    row["time"] = _timed(ours, vanilla, arguments)
                    row["most_resident"] = ours.work().resident_bytes
                    share = row["time"]["ratio"] * sizes["batch"] / pictures
                    row["time_of_a_picture"] = share
            _keep("batch", row, arguments)
            if "refused" in ours.facts or row["time_of_a_picture"] > 1.15:
                break
            pictures += max(1, theirs)


def _largest_of_torch(arguments: argparse.Namespace) -> int:
    """The most pictures whose step torchvision makes within LIMIT, its defaults."""
    pictures = 0
    while True:
        options = {**SIZES["detector"], "batch": pictures + 1}
        with Side(TORCH, "detector", options, python=arguments.peer_python) as side:
            resident = side.work(MEMORY_STEPS).resident_bytes
        print(f"torchvision: {pictures + 1} pictures, {resident / 2**20:,.0f} MiB", flush=True)
        if resident > LIMIT:
            return pictures
        pictures += 1


def _timed(ours: Side, theirs: Side, arguments: argparse.Namespace) -> dict[str, Any]:
    if arguments.ask:
        print(f"ready to time {ours.name}: a line starts it", flush=True)
        sys.stdin.readline()
    found = compare(lambda: ours.timed(1), lambda: theirs.timed(1), arguments.pairs, pause=PAUSE)
    print(f"{ours.name}: {found}", flush=True)
    return asdict(found)


def _keep(part: str, row: Mapping[str, Any], arguments: argparse.Namespace) -> None:
    with arguments.results.open("a") as file:
        print(json.dumps({"part": part, **row}), file=file)


def main() -> None:
    """Runs the part that is named."""
    parts = {"engine": engine, "torch": torch, "batch": batch}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=(*parts, "report"))
    parser.add_argument("models", nargs="*", metavar="MODEL", choices=[*SIZES, []])
    parser.add_argument("--share", type=float, nargs="*", default=[0.5, 0.35])
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--ask", action="store_true", help="wait for a line before each timing")
    parser.add_argument("--way", default="", help="only torch's ways whose name has this text")
    parser.add_argument("--peer-python", metavar="PYTHON", help="an interpreter that has torch")
    parser.add_argument("--results", type=Path, default=Path("memory_budget.jsonl"))
    arguments = parser.parse_args()
    if arguments.part == "report":
        report(arguments.results)
    else:
        parts[arguments.part](arguments)


if __name__ == "__main__":
    main()
