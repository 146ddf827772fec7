"""Trainer: the loop of steps, its log, its checkpoints, measuring at intervals, exact resuming."""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import numpy as np

from megbrain_py.dtypes import Array
from megbrain_py.errors import DataError, EngineError
from megbrain_py.instruments.trace import span
from megbrain_py.nn.serialize import write_atomically
from megbrain_py.parameter import Parameter
from megbrain_py.training import checkpoint, settings
from megbrain_py.training.checkpoint import Checkpoint
from megbrain_py.training.config import TrainConfig
from megbrain_py.training.log import RunLog
from megbrain_py.training.progress import Display, Rate, display
from megbrain_py.training.step import Batch, Detector, Optimizer, TrainStep, ValidationLoss

CONFIG_FILE = "config.toml"
LOG_FILE = "log.jsonl"
BEST_FILE = "best.safetensors"
CHECKPOINTS = "checkpoints"
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Batches(Protocol):
    """Training batches as a pure function of the step, so that a resumed run sees the same."""

    def __call__(self, start: int, stop: int) -> Iterable[Batch]:
        """The batches of the steps start, ..., stop - 1."""


@dataclass(frozen=True)
class Parts:
    """What a Trainer puts together.

    schedule: the learning rate of a step. steps: how many there are. validation: makes batches
    for the validation loss, or None. evaluate: COCO figures of the model as it is now, or None.
    extra: plain data that every checkpoint carries (class names, the model's configuration).
    """

    model: Detector
    optimizer: Optimizer
    schedule: Callable[[int], float]
    batches: Batches
    steps: int
    validation: Callable[[], Iterable[Batch]] | None = None
    evaluate: Callable[[], Mapping[str, Any]] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    epoch_steps: float = 0.0  # steps in a pass over the data, for the log; 0: not known


@dataclass(frozen=True)
class Outcome:
    """How a training ended: after `step` steps, `finished` or stopped by a signal."""

    step: int
    finished: bool
    figures: Mapping[str, Any]  # of the last evaluation


class Trainer:
    """Runs a training in the folder `config.output`.

    The folder holds config.toml, log.jsonl, curves.png, checkpoints/ and best.safetensors. A
    training that was killed at any moment and resumed ends bit-equal to one that was not:
    everything drawn depends on (seed, step, picture) only, and a checkpoint is whole or absent.
    """

    def __init__(self, config: TrainConfig, parts: Parts, show: Display | None = None) -> None:
        self.config = config
        self.parts = parts
        self.folder = Path(config.output)
        self.show = show or display()
        self.log = RunLog(self.folder / LOG_FILE)
        self.step_function = TrainStep(
            parts.model,
            parts.optimizer,
            clip_norm=config.optimizer.clip_norm,
            signatures=config.signatures,
        )
        self.validation = ValidationLoss(parts.model, signatures=config.signatures)
        self.step = 0  # steps done
        self._rate = Rate()
        self._since = 0.0  # when the step before ended
        self._stop: int | None = None
        self._saved = -1
        self._figures: dict[str, Any] = {}

    # --- the loop ---

    def run(self, *, resume: bool = False) -> Outcome:
        """Train to the end, or until SIGINT or SIGTERM, after which the state is saved.

        resume: go on from the newest valid checkpoint (from the start when there is none);
        without it a folder that holds a training is refused with DataError. EngineError when a
        loss is not finite: it names step, loss and pictures; the last good checkpoint stays.
        """
        self._open(resume)
        with self._signals():
            try:
                self.show.start(self.step, self.parts.steps)
                self._measure_if_due()
                self._since = time.perf_counter()
                batches = self.parts.batches(self.step, self.parts.steps)
                for batch in batches:
                    self._one_step(batch)
                    if self._stop is not None:
                        break
                finished = self.step >= self.parts.steps
                if self._saved != self.step:
                    self.save()
            finally:
                self.show.close()
                self.log.close()
        if not finished:
            name = signal.Signals(self._stop or signal.SIGINT).name
            self.show.message(f"{name}: saved after step {self.step}; resume with --resume")
        self.draw_curves()
        return Outcome(self.step, finished, self._figures)

    @span("step")
    def _one_step(self, batch: Batch) -> None:
        lr = self.parts.schedule(self.step)
        before = self.step_function.signatures
        started = time.perf_counter()
        losses = self.step_function(batch, self.config.seed, self.step, lr)
        ended = time.perf_counter()
        seconds = ended - started
        self._refuse_non_finite(losses, batch)
        self.step += 1
        usual = self.step_function.signatures == before
        if not usual:
            shape = "x".join(map(str, batch["images"].shape))
            self.show.message(
                f"compiled step function {before + 1}: pictures {shape}, "
                f"{batch['labels'].shape[1]} rows of boxes, "
                f"{self.step_function.peak_bytes / 2**20:.1f} MiB of memory, {seconds:.1f} s"
            )
        # From end to end: waiting for pictures and writing checkpoints take time too.
        self._rate.add(len(batch["image_ids"]), ended - self._since, usual=usual)
        self._since = ended
        rate = self._rate.images_per_second
        status = {
            "lr": lr,
            "rate": rate,
            "seconds_left": self._rate.seconds_left(self.parts.steps - self.step),
            "signatures": self.step_function.signatures,
        }
        self.show.update(self.step, losses, status)
        if self.step % self.config.log_every == 0 or self.step == self.parts.steps:
            values = {**losses, "lr": lr, "seconds": round(seconds, 4), **self._epoch()}
            self.log.write("train", self.step, {**values, "rate": rate and round(rate, 2)})
        last = self.step == self.parts.steps
        if last or self.step % self.config.checkpoint_every == 0:
            self.save()
        self._measure_if_due()

    def _epoch(self) -> dict[str, float]:
        if not self.parts.epoch_steps:
            return {}
        return {"epoch": round(self.step / self.parts.epoch_steps, 4)}

    def _refuse_non_finite(self, losses: Mapping[str, float], batch: Batch) -> None:
        """The NaN guard."""
        bad = [name for name, value in losses.items() if not math.isfinite(value)]
        if bad:
            named = [name for name in bad if name != "loss"] or bad
            found = ", ".join(f"{name} = {losses[name]}" for name in named)
            ids = np.asarray(batch["image_ids"]).tolist()
            raise EngineError(
                f"train: step {self.step}: {found}; expected finite losses\n"
                f"  pictures (image ids): {ids}\n"
                f"  learning rate: {self.parts.schedule(self.step):.3g}; a lower optimizer.rate, "
                "more optimizer.warmup_steps or optimizer.clip_norm may help\n"
                f"  last good checkpoint: {self._last_good()}"
            )

    def _last_good(self) -> str:
        found = checkpoint.files(self.folder / CHECKPOINTS)
        return str(found[-1]) if found else "none yet"

    # --- measuring ---

    def _due(self) -> bool:
        every = self.config.eval_every
        return self.step > 0 and (
            self.step == self.parts.steps or (every > 0 and self.step % every == 0)
        )

    def _measure_if_due(self) -> None:
        """Validation loss and COCO figures, unless the log has them already for this step."""
        if self._due() and self._stop is None:
            self._measure()

    @span("measure")
    def _measure(self) -> None:
        done = {line["kind"]: line for line in self.log.lines() if line["step"] == self.step}
        if self.parts.validation is not None and "val" not in done:
            found = self.validation(self.parts.validation(), self.config.seed)
            self.log.write("val", self.step, {**found, **self._epoch()})
            self.show.message(f"step {self.step}: validation loss {found['loss']:.4f}")
        if self.parts.evaluate is not None and "eval" not in done:
            earlier = [_goodness(line) for line in self.log.lines("eval")]
            figures = dict(self.parts.evaluate())
            self._figures = figures
            if _goodness(figures) >= max(earlier, default=(-1.0, -1.0)):
                self._save_best(figures)
            self.log.write("eval", self.step, {**figures, **self._epoch()})
            masks = ("segm_AP", "segm_AP50") if "segm_AP" in figures else ()
            parts = (f"{name} {_quality(figures, name):.3f}" for name in ("AP", "AP50", *masks))
            self.show.message(f"step {self.step}: validation {', '.join(parts)}")
        elif "eval" in done:
            self._figures = {k: v for k, v in done["eval"].items() if k not in ("kind", "step")}
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
        )

    @span("write a checkpoint")
    def save(self) -> Path:
        """Write a checkpoint of this step. EngineError if a weight is not finite."""
        state = self.checkpoint()
        for name, array in {**state.model, **state.optimizer}.items():
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
        """Prepare the folder; take over the newest checkpoint when resuming."""
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
        self.step = self._saved = found.step

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM end the training after the step that runs; a second one at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def ask(number: int, _: FrameType | None) -> None:
            if self._stop is not None:
                raise KeyboardInterrupt
            self._stop = number

        old = {number: signal.signal(number, ask) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Settings that differ, as texts; those that decide nothing are left out."""
    harmless = ("output", "data.workers", "data.cache_mb", "log_every", "keep", "signatures")
    plain = json.loads(json.dumps(dict(now)))
    keys = [key for key in {**before, **plain} if key not in harmless]
    return [
        f"{key} = {before.get(key)} -> {plain.get(key)}"
        for key in keys
        if before.get(key) != plain.get(key)
    ]


def _quality(figures: Mapping[str, Any], name: str = "AP") -> float:
    """A COCO figure; 0 where there was nothing to find."""
    return float(figures.get(name) or 0.0)


def _goodness(figures: Mapping[str, Any]) -> tuple[float, float]:
    """By this models are compared: AP, then AP50; of equal ones the later is taken."""
    return _quality(figures), _quality(figures, "AP50")


def load_state(own: Mapping[str, Parameter], given: Mapping[str, Array], what: str) -> None:
    """Write arrays into the parameters of the same names; DataError unless all fit."""
    missing = [name for name in own if name not in given]
    unknown = [name for name in given if name not in own]
    if missing or unknown:
        first = f"{missing[0]} is missing" if missing else f"{unknown[0]} is unknown"
        raise DataError(
            f"{what}: does not fit the model: {first} "
            f"({len(missing)} missing, {len(unknown)} unknown)"
        )
    for name, parameter in own.items():
        if given[name].shape != parameter.shape:
            raise DataError(
                f"{what}: {name} has shape {given[name].shape}, the model's is {parameter.shape}"
            )
    for name, parameter in own.items():
        parameter.set(given[name])
