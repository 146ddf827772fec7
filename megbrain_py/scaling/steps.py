"""Training steps of one rank among many: what `megbrain scale` and the benchmarks look at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from megbrain_py.bench import steps
from megbrain_py.bench.steps import TrainingStep
from megbrain_py.models.faster_rcnn import PRESETS

_BOXES = 8  # true ones of each picture
_WITHOUT_MASKS = [name for name, config in PRESETS.items() if config.mask == "none"]


def _step(make: Callable[..., TrainingStep], **chosen: Any) -> Callable[..., TrainingStep]:
    """make(batch, size, overlap=True) with the rest chosen."""

    def step(batch: int, size: int, *, overlap: bool = True) -> TrainingStep:
        return make(lambda: None, batch=batch, size=size, overlap=overlap, **chosen)

    return step


STEPS: Mapping[str, Callable[..., TrainingStep]] = {
    "resnet50": _step(steps.resnet50),
    **{name: _step(steps.detector, boxes=_BOXES, preset=name) for name in _WITHOUT_MASKS},
}
