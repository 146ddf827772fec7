"""TensorBoard event files of a run: its log as scalars, its pictures, its configuration."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from megbrain_py.errors import DataError
from megbrain_py.training.log import Line
from megbrain_py.training.pictures import NAMES

FOLDER = "tensorboard"


class Events:
    """Writes into `run/tensorboard`, each line at once; the library tensorboardX makes the records.

    step: where the training starts; what an earlier process wrote beyond it, TensorBoard then
    leaves out. Nothing is read back: log.jsonl is the run's memory.
    """

    def __init__(self, run: Path, step: int, config: str) -> None:
        try:
            from tensorboardX import event_file_writer, summary
            from tensorboardX.proto import event_pb2
        except ImportError:
            raise DataError(
                "config: tensorboard=true needs tensorboardX: "
                "pip install 'megbrain_py[tensorboard]'"
            ) from None
        self.run = run
        self._summary: Any = summary
        self._records: Any = event_pb2
        files: Any = event_file_writer
        folder = run / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        # Names hold the second; the suffix keeps a quickly resumed run from the same name.
        self._writer = files.EventsWriter(str(folder / "events"), f".{os.getpid()}.{step}")
        if step:
            start = self._records.SessionLog(status=self._records.SessionLog.START)
            self._write(step + 1, session_log=start)
        else:
            self._write(0, summary=self._summary.text("config", f"```\n{config}\n```"))

    def _write(self, step: int, **content: Any) -> None:
        event = self._records.Event(wall_time=time.time(), step=step, **content)
        self._writer.write_event(event)

    def line(self, line: Line) -> None:
        """A line of the log; after an evaluation also the pictures that it drew."""
        kind, step = line["kind"], line["step"]
        for name, value in _numbers(line):
            self._write(step, summary=self._summary.scalar(f"{kind}/{name}", value))
        if kind == "eval":
            for name in NAMES:
                if (self.run / name).is_file():
                    self._picture(self.run / name, step)
        self._writer.flush()

    def _picture(self, file: Path, step: int) -> None:
        from PIL import Image

        with Image.open(file) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        made = self._summary.image(file.stem, pixels, dataformats="HWC")
        self._write(step, summary=made)

    def close(self) -> None:
        """Close the file."""
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
