"""A small training as a program of its own, which can kill itself (-9) at a chosen place.

usage: training_child.py FOLDER [PLACE COUNT]
PLACE: "step" (before that batch is given, two of which make a step), "half" (while the COUNTth
checkpoint is half written), "before_rename", "after_rename" (of the COUNTth checkpoint), "log" (in
the COUNTth log line).
"""

from __future__ import annotations

import io
import os
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any, NoReturn

from training_fakes import Batch, batch_of, config_of, parts_of

from megbrain_py.nn import serialize
from megbrain_py.training import checkpoint
from megbrain_py.training.log import RunLog
from megbrain_py.training.progress import PlainDisplay
from megbrain_py.training.trainer import Trainer

STEPS = 40
CHECKPOINT_EVERY = 6
FEATURES = ("accumulate=2", "ema=0.95", "optimizer.clip_norm=0.5", "optimizer.clip_value=0.2")
SECONDS = (
    0.005  # a batch takes at least so long, so that kills at random times meet different steps
)


def die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still alive")


class Counter:
    """Dies at the COUNTth call."""

    def __init__(self, count: int) -> None:
        self.left = count

    def due(self) -> bool:
        self.left -= 1
        return self.left == 0


def arm(place: str, count: int) -> None:
    """Change the program so that it dies at the place."""
    counter = Counter(count)
    if place == "log":
        write = RunLog.write

        def half_line(self: RunLog, *arguments: Any) -> None:
            if counter.due():
                with self.path.open("a") as stream:
                    stream.write('{"kind": "train", "ste')
                die()
            write(self, *arguments)

        RunLog.write = half_line  # type: ignore[method-assign]
    elif place == "half":
        encode = checkpoint._encode
        fdopen = os.fdopen

        def half(number: int, *arguments: Any) -> Any:
            stream = fdopen(number, *arguments)
            if counter.due():
                stream.write(encode(Trainer.running.checkpoint())[:500])  # type: ignore[attr-defined]
                stream.flush()
                die()
            return stream

        serialize.os.fdopen = half  # type: ignore[attr-defined,assignment]
    elif place in ("before_rename", "after_rename"):
        replace = os.replace

        def renamed(source: Any, target: Any) -> None:
            if "step_" in str(target) and counter.due():
                if place == "after_rename":
                    replace(source, target)
                die()
            replace(source, target)

        os.replace = renamed  # type: ignore[assignment]


def main() -> None:
    folder, place, count = [*sys.argv[1:], "", "0"][:3]
    config = config_of(folder, f"checkpoint_every={CHECKPOINT_EVERY}", "keep=2", *FEATURES)

    def batches(start: int, stop: int) -> Iterator[Batch]:
        for step in range(start, stop):
            time.sleep(SECONDS)
            if place == "step" and step == int(count):
                die()
            yield batch_of(config.seed, step)

    parts = parts_of(config, STEPS, batches=batches)
    Trainer.draw_curves = lambda _: None  # type: ignore[method-assign]
    trainer = Trainer(config, parts, PlainDisplay(io.StringIO()))
    Trainer.running = trainer  # type: ignore[attr-defined]
    arm(place, int(count))
    print("ready", flush=True)
    trainer.run(resume=True)
    print("done", flush=True)


if __name__ == "__main__":
    main()
