"""`python -m examples.large_batch --out runs/large_batch`: the whole study, or parts of it."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from examples.large_batch import (
    accuracy,
    balance,
    equality,
    gradients,
    moments,
    pictures,
    report,
)
from examples.large_batch.setting import Study, quick

ON_DEVICES = "on_devices"  # only when it is named: it repeats trainings, and is slow
PARTS = {
    "gradients": gradients.run, "moments": moments.run, "equality": equality.run,
    "balance": balance.run, "accuracy": accuracy.run, ON_DEVICES: accuracy.on_devices,
}  # fmt: skip


def main() -> None:
    """Compute what is missing, then draw and print everything that is there."""
    parser = argparse.ArgumentParser(prog="large_batch", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--out", type=Path, default=Path("runs/large_batch"))
    parser.add_argument("--quick", action="store_true", help="a minute; the figures mean little")
    parser.add_argument("--seeds", type=int, help="trainings of each kind")
    parser.add_argument("--pictures", type=Path, help="folder for the pictures; default: OUT")
    given = parser.parse_args()
    study = quick(given.out) if given.quick else Study(given.out)
    if given.seeds:
        study = replace(study, seeds=given.seeds)
    for part in given.parts or [name for name in PARTS if name != ON_DEVICES]:
        PARTS[part](study)
    tables = report.text(study)
    (given.out / "report.md").write_text(tables)
    print(tables)
    for path in pictures.draw(study, given.pictures or given.out):
        print(f"written: {path}")


if __name__ == "__main__":
    main()
