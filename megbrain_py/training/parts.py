"""Parts: what a Trainer puts together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from megbrain_py.compiler import SpecializedFunction
from megbrain_py.training.step import Batch, Detector, Optimizer


class Batches(Protocol):
    """Training batches as a pure function of their number, so that a resumed run sees the same."""

    def __call__(self, start: int, stop: int) -> Iterable[Batch]:
        """The batches start, ..., stop - 1; a step takes `accumulate` of them."""


@dataclass(frozen=True)
class Parts:
    """What a Trainer puts together.

    schedule: the learning rate of a step. steps: how many there are. validation: makes batches
    for the validation loss, or None. evaluate: COCO figures of the model as it is now, or None.
    extra: plain data that every checkpoint carries (class names, the model's configuration).
    largest, largest_measured: blank batches, of which one is no smaller than any batch of the
    training, of measuring; detect: the function that `evaluate` runs. They let memory be planned.
    """

    model: Detector
    optimizer: Optimizer
    schedule: Callable[[int], float]
    batches: Batches
    steps: int
    validation: Callable[[], Iterable[Batch]] | None = None
    evaluate: Callable[[], Mapping[str, Any]] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    largest: Callable[[], Sequence[Batch]] = tuple
    largest_measured: Callable[[], Sequence[Batch]] = tuple
    detect: SpecializedFunction | None = None
    epoch_steps: float = 0.0  # steps in a pass over the data, for the log; 0: not known

    def epoch(self, step: int) -> dict[str, float]:
        """For a line of the log: the passes over the data that are done."""
        return {"epoch": round(step / self.epoch_steps, 4)} if self.epoch_steps else {}
