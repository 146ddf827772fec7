"""A small training as a program on ranks, in which one rank can end in several ways.

usage: rank_training.py FOLDER [WAY]
WAY: what rank 1 does before its batch of step 5: "raise", "exit" (sys.exit), "kill" (-9 itself),
"leave" (returns from the program without a word), "wait" (sleeps for long).
"""

from __future__ import annotations

import io
import os
import signal
import sys
import time
from collections.abc import Iterator

from training_fakes import Batch, batch_of, config_of, parts_of

from megbrain_py import ranks
from megbrain_py.training.config import TrainConfig
from megbrain_py.training.devices import on_devices
from megbrain_py.training.progress import PlainDisplay
from megbrain_py.training.trainer import Trainer

STEPS = 12


def end(way: str) -> None:
    if way == "raise":
        raise ValueError("rank 1 fails")
    if way == "exit":
        sys.exit("rank 1 leaves")
    if way == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if way == "leave":
        sys.exit(0)
    if way == "wait":
        time.sleep(60)


def train(config: TrainConfig, way: str) -> None:
    rank = ranks.current().rank

    def batches(start: int, stop: int) -> Iterator[Batch]:
        for step in range(start, stop):
            if step == 5 and rank == 1:
                end(way)
            time.sleep(0.02)
            yield batch_of(config.seed, step)

    show = PlainDisplay() if rank == 0 else PlainDisplay(io.StringIO())
    Trainer.draw_curves = lambda _: None  # type: ignore[method-assign]
    Trainer(config, parts_of(config, STEPS, batches=batches), show).run(resume=True)


def main() -> None:
    folder, way = [*sys.argv[1:], ""][:2]
    on_devices(config_of(folder, "checkpoint_every=2", "keep=9"), lambda own: train(own, way))


if __name__ == "__main__":
    main()
