"""Measuring at intervals: validation loss and COCO figures of the weights that would be used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

from megbrain_py import distributed
from megbrain_py.instruments.trace import span
from megbrain_py.training import best
from megbrain_py.training.config import TrainConfig
from megbrain_py.training.ema import Average
from megbrain_py.training.log import Line, RunLog
from megbrain_py.training.parts import Parts
from megbrain_py.training.precise_bn import PreciseNorms
from megbrain_py.training.progress import Display
from megbrain_py.training.shards import first
from megbrain_py.training.step import ValidationLoss

SaveBest = Callable[[Mapping[str, Any]], None]


class Measuring:
    """Measures when it is due, and never twice: what was measured stands in the log.

    Meanwhile the model has its averaged weights (`ema`) and newly computed norms (`precise_bn`),
    and `save_best` sees them; afterwards the training goes on with its own, bit-equal.
    """

    def __init__(
        self, config: TrainConfig, parts: Parts, log: RunLog, show: Display, average: Average | None
    ) -> None:
        self.config, self.parts, self.log, self.show = config, parts, log, show
        self.average = average
        self.validation = ValidationLoss(parts.model, signatures=config.signatures)
        self.norms = PreciseNorms(parts.model, config.signatures) if config.precise_bn else None
        self.figures: dict[str, Any] = {}  # of the last evaluation

    def due(self, step: int) -> bool:
        """After every `eval_every` steps and at the end."""
        every = self.config.eval_every
        return step > 0 and (step == self.parts.steps or (every > 0 and step % every == 0))

    def over(self) -> bool:
        """Has the training got no better for `patience` measurings?"""
        if not self.config.patience:
            return False
        since = first(lambda: best.measurings_since_best(self.log.lines(), self.config.best_by))
        return since >= self.config.patience

    @span("measure")
    def __call__(self, step: int, save_best: SaveBest) -> None:
        """Measure what the log does not have for this step; the best weights are kept first, so
        that a kill in between only means measuring again."""
        before = first(self.log.lines)
        done = {line["kind"]: line for line in before if line["step"] == step}
        if "eval" in done:
            self.figures = {k: v for k, v in done["eval"].items() if k not in ("kind", "step")}
        wanted = {"val": self.parts.validation, "eval": self.parts.evaluate}
        missing = [kind for kind, there in wanted.items() if there is not None and kind not in done]
        if not missing:
            return
        with self._weights_in_use(step):
            found = [self._measured(kind, step) for kind in missing]
            lines = [*before, *found]
            if best.is_best(lines, self.config.best_by, step):
                first(lambda: save_best(self._of_best(lines, step)))
        for line in found:
            values = {k: v for k, v in line.items() if k not in ("kind", "step")}
            self.log.write(line["kind"], step, {**values, **self.parts.epoch(step)})

    def _measured(self, kind: str, step: int) -> Line:
        if kind == "val":
            assert self.parts.validation is not None
            losses = self.validation(self.parts.validation(), self.config.seed)
            self.show.message(f"step {step}: validation loss {losses['loss']:.4f}")
            return {"kind": kind, "step": step, **losses}
        assert self.parts.evaluate is not None
        self.figures = dict(self.parts.evaluate())
        names = [n for n in ("AP", "AP50", "segm_AP", "segm_AP50") if n in self.figures]
        shown = ", ".join(f"{name} {self.figures[name] or 0.0:.3f}" for name in names)
        self.show.message(f"step {step}: validation {shown}")
        return {"kind": kind, "step": step, **self.figures}

    def _of_best(self, lines: list[Line], step: int) -> dict[str, Any]:
        """The figures that the best checkpoint carries."""
        if self.config.best_by != "val_loss":
            return self.figures
        losses = [line for line in lines if line["kind"] == "val" and line["step"] == step]
        return {**self.figures, "val_loss": losses[-1]["loss"]}

    @contextmanager
    def _weights_in_use(self, step: int) -> Iterator[None]:
        averages = self.average.in_use() if self.average is not None else nullcontext()
        with averages, self._norms_in_use(step):
            # Ranks that share no batch norms have running statistics of their own: rank 0's count.
            state = self.parts.model.named_state().values()
            distributed.broadcast_state(p for p in state if not p.trainable)
            yield

    @contextmanager
    def _norms_in_use(self, step: int) -> Iterator[None]:
        """Statistics over the next training batches; which ones depends on the step alone."""
        if not self.norms:
            yield
            return
        config = self.config
        first = step * config.accumulate
        count = -(-config.precise_bn // config.batch_size)
        with self.norms.in_use(self.parts.batches(first, first + count), config.seed):
            yield
