"""TensorBoard event files of a run: its log as scalars, its pictures, its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from megbrain_py.errors import DataError
from megbrain_py.training.log import Line
from megbrain_py.training.pictures import NAMES

FOLDER = "tensorboard"
_FLUSH = 10  # seconds after which a reader sees what was written


class Events:
    """Writes into `run/tensorboard`; the library tensorboardX makes the files.

    step: where the training starts; what an earlier process wrote from there on, TensorBoard then
    leaves out. Nothing is read back: log.jsonl is the run's memory.
    """

    def __init__(self, run: Path, step: int, config: str) -> None:
        try:
            from tensorboardX.writer import SummaryWriter
        except ImportError:
            raise DataError(
                "config: tensorboard=true needs tensorboardX: "
                "pip install 'megbrain_py[tensorboard]'"
            ) from None
        self.run = run
        self._writer: Any = SummaryWriter(
            str(run / FOLDER), purge_step=step + 1 if step else None, flush_secs=_FLUSH
        )
        if not step:
            self._writer.add_text("config", f"```\n{config}\n```", 0)

    def line(self, line: Line) -> None:
        """A line of the log; after an evaluation also the pictures that it drew."""
        kind, step = line["kind"], line["step"]
        for name, value in _numbers(line):
            self._writer.add_scalar(f"{kind}/{name}", value, step)
        if kind == "eval":
            for name in NAMES:
                if (self.run / name).is_file():
                    self._picture(self.run / name, step)

    def _picture(self, file: Path, step: int) -> None:
        from PIL import Image

        with Image.open(file) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        self._writer.add_image(file.stem, pixels, step, dataformats="HWC")

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


def _numbers(line: Mapping[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    """Every number of a line by name; those of a class below the figure's name."""
    found: list[tuple[str, float]] = []
    for name, value in line.items():
        if isinstance(value, Mapping):
            found += _numbers(value, f"{name}/")
        elif isinstance(value, (int, float)) and name not in ("kind", "step"):
            found.append((f"{prefix}{name}", float(value)))
    return found
