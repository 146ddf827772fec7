"""`make demo`: makes digit scenes, trains the small detector on them, scores and draws it."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from megbrain_py.errors import MegBrainError

if TYPE_CHECKING:
    from megbrain_py.training.config import TrainConfig
    from megbrain_py.training.trainer import Outcome


def main(words: Sequence[str] | None = None) -> int:
    """Run the demo; its last line is `val AP50 = 0.xxx`."""
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument("settings", nargs="*", metavar="key=value", help="override the file's")
    parser.add_argument("--config", default="examples/demo.toml")
    parser.add_argument("--output", default="demo", type=Path, help="folder")
    parser.add_argument("--train", type=int, default=3000, help="training pictures")
    parser.add_argument("--val", type=int, default=300, help="validation pictures")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(words)

    try:
        config = prepare(arguments)
        outcome = train(config)
        if not outcome.finished:
            return 130
        show(config, arguments.output)
    except MegBrainError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    print(f"val AP50 = {outcome.figures['AP50'] or 0.0:.3f}")
    return 0


def prepare(arguments: argparse.Namespace) -> TrainConfig:
    """The data set, an empty folder for the run, and the configuration."""
    from megbrain_py.data.digit_scenes import make_digit_scenes
    from megbrain_py.training import settings
    from megbrain_py.training.config import TrainConfig

    output: Path = arguments.output
    print(f"making {arguments.train} + {arguments.val} digit scenes in {output / 'data'}")
    train_json, val_json = make_digit_scenes(
        output / "data", arguments.train, arguments.val, seed=arguments.seed
    )
    given = [f"data.train={train_json}", f"data.val={val_json}", f"output={output / 'run'}"]
    config = settings.read(TrainConfig, arguments.config, [*given, *arguments.settings])
    run = Path(config.output)
    if (run / "config.toml").exists():  # an earlier demo's
        shutil.rmtree(run)
    return config


def train(config: TrainConfig) -> Outcome:
    """The training, and the figures of its last evaluation as a table."""
    from megbrain_py.cli.train import run
    from megbrain_py.training.devices import on_devices

    return on_devices(config, run)


def show(config: TrainConfig, output: Path) -> None:
    """Write curves.png, and detections.png: what is found in the first validation pictures."""
    for name in ("curves.png", "detections.png"):
        shutil.copyfile(Path(config.output) / name, output / name)
    print(f"written: {output / 'curves.png'}, {output / 'detections.png'}")


if __name__ == "__main__":
    raise SystemExit(main())
