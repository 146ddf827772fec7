"""Trainer: the loop of steps, its log, its checkpoints, measuring at intervals, exact resuming."""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from megbrain_py import distributed
from megbrain_py.errors import DataError, EngineError
from megbrain_py.instruments.trace import span
from megbrain_py.nn.serialize import write_atomically
from megbrain_py.training import checkpoint, settings
from megbrain_py.training.checkpoint import Checkpoint, load_state
from megbrain_py.training.config import TrainConfig
from megbrain_py.training.ema import Average
from megbrain_py.training.events import Events
from megbrain_py.training.log import RunLog
from megbrain_py.training.measure import Measuring
from megbrain_py.training.parts import Parts
from megbrain_py.training.progress import Display, Rate, Waits, display
from megbrain_py.training.shards import StepNews, first, leads
from megbrain_py.training.signals import Asked, listening
from megbrain_py.training.step import NORM, Batch, Detector, Optimizer, StepOptions, TrainStep

CONFIG_FILE = "config.toml"
LOG_FILE = "log.jsonl"
BEST_FILE = "best.safetensors"
CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class Outcome:
    """How a training ended: after `step` steps, `finished` or stopped by a signal."""

    step: int
    finished: bool
    figures: Mapping[str, Any]  # of the last evaluation


def step_of(config: TrainConfig, model: Detector, optimizer: Optimizer) -> TrainStep:
    """The step that a configuration asks for."""
    chosen = config.optimizer
    return TrainStep(
        model,
        optimizer,
        StepOptions(chosen.clip_norm, chosen.clip_value, config.accumulate),
        average=Average(model.named_state(), config.ema) if config.ema else None,
        signatures=config.signatures,
    )


class Trainer:
    """Runs a training in the folder `config.output`.

    The folder holds config.toml, log.jsonl, curves.png, checkpoints/ and best.safetensors. A
    training that was killed at any moment and resumed ends bit-equal to one that was not:
    everything drawn depends on (seed, step, picture) only, and a checkpoint is whole or absent.
    Where ranks train together each has a Trainer with its own part of every batch; they go the same
    way, and rank 0 alone writes and shows (shards.py).
    """

    def __init__(self, config: TrainConfig, parts: Parts, show: Display | None = None) -> None:
        self.config = config
        self.parts = parts
        self.folder = Path(config.output)
        self.show = show or display()
        self.log = RunLog(self.folder / LOG_FILE, keeps=leads())
        self.step_function = step_of(config, parts.model, parts.optimizer)
        self.average = self.step_function.average
        self.measuring = Measuring(config, parts, self.log, self.show, self.average)
        self.step = 0  # steps done
        self._rate = Rate()
        self._events: Events | None = None
        self._since = 0.0  # when the step before ended
        self._asked = Asked()
        self._stop = 0  # the signal for which all ranks stop
        self._saved = -1

    # --- the loop ---

    def run(self, *, resume: bool = False) -> Outcome:
        """Train to the end, or until SIGINT or SIGTERM, after which the state is saved.

        resume: go on from the newest valid checkpoint (from the start when there is none);
        without it a folder that holds a training is refused with DataError. EngineError when a
        loss is not finite: it names step, loss and pictures; the last good checkpoint stays.
        """
        self._open(resume)
        with listening() as self._asked:
            try:
                self.show.start(self.step, self.parts.steps)
                self._measure_if_due()
                self._since = time.perf_counter()
                early = self.measuring.over()
                if not early:
                    early = self._train()
                finished = early or self.step >= self.parts.steps
                self.save()
            finally:
                self.show.close()
                self.log.close()
                if self._events is not None:
                    self._events.close()
        if early:
            self.show.message(
                f"no better {self.config.best_by} in {self.config.patience} measurings: "
                f"the training ends after step {self.step}"
            )
        if not finished:
            name = signal.Signals(self._stop).name
            self.show.message(f"{name}: saved after step {self.step}; resume with --resume")
        self.draw_curves()
        return Outcome(self.step, finished, self.measuring.figures)

    def _train(self) -> bool:
        """Steps to the last one, or until a signal; True if it ended early, getting no better."""
        each = self.config.accumulate
        batches = Waits(self.parts.batches(self.step * each, self.parts.steps * each))
        for group in _groups(batches, each):
            self._one_step(group, batches.take())
            if self._stop:
                break
            if self.measuring.due(self.step) and self.measuring.over():
                return self.step < self.parts.steps
        return False

    @span("step")
    def _one_step(self, batches: Sequence[Batch], waited: float) -> None:
        lr = self.parts.schedule(self.step)
        started = time.perf_counter()
        losses = self.step_function(batches, self.config.seed, self.step, lr)
        ended = time.perf_counter()
        seconds = ended - started
        self._refuse_non_finite(losses, batches)
        own = StepNews(sum(len(b["image_ids"]) for b in batches), waited, self._asked.number)
        ranks = distributed.all_gather_objects(own)
        self._stop = max(one.stop for one in ranks)
        self.step += 1
        news = self.step_function.news
        usual = not news
        for text in news:
            self.show.message(text)
        news.clear()
        # From end to end: waiting for pictures and writing checkpoints take time too.
        images = sum(one.images for one in ranks)
        self._rate.add(images, ended - self._since, usual=usual)
        self._since = ended
        rate = self._rate.images_per_second
        status = {
            "lr": lr,
            "rate": rate,
            **(each := _of_ranks(ranks, rate)),
            "seconds_left": self._rate.seconds_left(self.parts.steps - self.step),
            "signatures": self.step_function.signatures,
        }
        self.show.update(self.step, {k: v for k, v in losses.items() if k != NORM}, status)
        if self.step % self.config.log_every == 0 or self.step == self.parts.steps:
            values = {
                **losses,
                "lr": lr,
                "seconds": round(seconds, 4),
                **self.parts.epoch(self.step),
            }
            self.log.write("train", self.step, {**values, "rate": rate and round(rate, 2), **each})
        last = self.step == self.parts.steps
        if last or self.step % self.config.checkpoint_every == 0:
            self.save()
        self._measure_if_due()

    def _refuse_non_finite(self, losses: Mapping[str, float], batches: Sequence[Batch]) -> None:
        """The NaN guard. A resumed run repeats the step's bits, so MB_CHECK finds the operator."""
        bad = [name for name, value in losses.items() if not math.isfinite(value)]
        if bad:
            named = [name for name in bad if name != "loss"] or bad
            found = ", ".join(f"{name} = {losses[name]}" for name in named)
            own = [batch["image_ids"].tolist() for batch in batches]
            parts = zip(*distributed.all_gather_objects(own), strict=True)  # by batch, by rank
            ids = [number for part in parts for numbers in part for number in numbers]
            first(lambda: self._not_finite(found, ids))

    def _not_finite(self, found: str, ids: list[int]) -> None:
        raise EngineError(
            f"train: step {self.step}: {found}; expected finite losses\n"
            f"  pictures (image ids): {ids}\n"
            f"  learning rate: {self.parts.schedule(self.step):.3g}; a lower optimizer.rate, "
            "more optimizer.warmup_steps or optimizer.clip_norm may help\n"
            f"  last good checkpoint: {self._last_good()}\n"
            f"  the operator that made it: MB_CHECK=1 megbrain train --resume {self.folder}"
        )

    def _last_good(self) -> str:
        found = checkpoint.files(self.folder / CHECKPOINTS)
        return str(found[-1]) if found else "none yet"

    # --- measuring ---

    def _measure_if_due(self) -> None:
        """Validation loss and COCO figures, unless the log has them already for this step."""
        if not self.measuring.due(self.step) or self._stop:
            return
        self.measuring(self.step, self._save_best)
        if self.step < self.parts.steps:  # at the end `run` draws
            self.draw_curves()
        self._since = time.perf_counter()  # measuring is no part of the rate

    def draw_curves(self) -> None:
        """curves.png from the log."""
        from megbrain_py.viz.curves import draw_curves

        lines = self.log.lines()
        if lines:
            draw_curves(lines, self.folder / "curves.png")

    # --- state ---

    def checkpoint(self) -> Checkpoint:
        """The state now, its arrays still those in use."""
        state = {name: p.value for name, p in self.parts.model.named_state().items()}
        return Checkpoint(
            self.step,
            self.config.seed,
            settings.flat(self.config),
            state,
            self.parts.optimizer.state_dict(),
            self.parts.extra,
            self.average.state_dict() if self.average is not None else {},
        )

    @span("write a checkpoint")
    def save(self) -> Path:
        """Write a checkpoint of this step, once. EngineError if a weight is not finite."""
        return first(self._save)

    def _save(self) -> Path:
        if self._saved == self.step:
            return checkpoint.path_of(self.folder / CHECKPOINTS, self.step)
        state = self.checkpoint()
        for name, array in [*state.model.items(), *state.optimizer.items(), *state.average.items()]:
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise EngineError(
                    f"train: {name} is not finite after step {self.step}; no checkpoint is made\n"
                    f"  last good checkpoint: {self._last_good()}"
                )
        path = checkpoint.save(state, self.folder / CHECKPOINTS, self.config.keep)
        self._saved = self.step
        return path

    def _save_best(self, figures: Mapping[str, Any]) -> None:
        state = self.checkpoint()
        extra = {**state.extra, "figures": {k: v for k, v in figures.items()}}
        best = Checkpoint(state.step, state.seed, state.config, state.model, {}, extra)
        checkpoint.write(best, self.folder / BEST_FILE)

    def _open(self, resume: bool) -> None:
        """Prepare the folder; take over the newest checkpoint when resuming. All start equal."""
        state = first(lambda: self._opened(resume))
        if not leads():
            self._take_over(state)

    def _opened(self, resume: bool) -> Checkpoint:
        """The state to start from."""
        existing = checkpoint.files(self.folder / CHECKPOINTS)
        if not resume and (existing or self.log.path.exists()):
            raise DataError(
                f"train: {self.folder} holds a training already; go on with --resume, or choose "
                "another output="
            )
        found = checkpoint.latest(self.folder / CHECKPOINTS, self.show.message) if resume else None
        if found is not None:
            self._take_over(found)
            self.show.message(f"resuming after step {self.step} of {self.parts.steps}")
        elif existing:
            raise DataError(
                f"train: none of the {len(existing)} checkpoints in {self.folder / CHECKPOINTS} is "
                "valid; choose another output= to start anew"
            )
        elif resume:
            self.show.message("no checkpoint yet: starting from the beginning")
        self.log.cut(self.step)
        self.folder.mkdir(parents=True, exist_ok=True)
        text = settings.to_toml(self.config)
        write_atomically(self.folder / CONFIG_FILE, text.encode())
        if self.config.tensorboard:
            self._events = Events(self.folder, self.step, text)
            self.log.listeners.append(self._events.line)
        return self.checkpoint()

    def _take_over(self, found: Checkpoint) -> None:
        if found.seed != self.config.seed:
            raise DataError(
                f"train: the checkpoint was made with seed {found.seed}, the configuration says "
                f"{self.config.seed}"
            )
        if found.step > self.parts.steps:
            raise DataError(
                f"train: {self.folder} is at step {found.step} already, the configuration asks for "
                f"{self.parts.steps}; more steps= go on from there, another output= starts anew"
            )
        for text in _changes(found.config, settings.flat(self.config)):
            self.show.message(f"changed since the checkpoint: {text}")
        load_state(self.parts.model.named_state(), found.model, "checkpoint")
        self.parts.optimizer.load_state_dict(found.optimizer)
        if self.average is not None:
            self.average.load(found.average)
        self.step = self._saved = found.step


def _of_ranks(ranks: Sequence[StepNews], rate: float | None) -> dict[str, list[float]]:
    """Pictures a second of each rank, and its seconds of waiting for pictures, for the log."""
    if len(ranks) == 1 or rate is None:
        return {}
    images = sum(one.images for one in ranks)
    return {
        "rank_rates": [round(rate * one.images / images, 2) for one in ranks],
        "rank_waits": [round(one.waited, 4) for one in ranks],
    }


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Settings that differ, as texts; those that decide nothing are left out.

    A setting that is younger than the checkpoint had what is now its default.
    """
    harmless = ("output", "data.workers", "data.cache_mb", "log_every", "keep", "signatures",
                "tensorboard", "memory")  # fmt: skip
    usual, plain = (json.loads(json.dumps(d)) for d in (settings.flat(TrainConfig()), dict(now)))
    before = {**usual, **before}
    keys = [key for key in {**before, **plain} if key not in harmless]
    return [
        f"{key} = {before.get(key)} -> {plain.get(key)}"
        for key in keys
        if before.get(key) != plain.get(key)
    ]


def _groups(batches: Iterable[Batch], count: int) -> Iterator[list[Batch]]:
    """Batches in lists of so many; a rest that fills none is left out."""
    group: list[Batch] = []
    for batch in batches:
        group.append(batch)
        if len(group) == count:
            yield group
            group = []
