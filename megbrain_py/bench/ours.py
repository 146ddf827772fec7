"""Our side of the comparisons; torch_peer.py does the same work with torch.

A workload builds its model, calls `built`, and returns its step and facts about it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

import megbrain_py as mb
from megbrain_py import functional as F
from megbrain_py.bench import inputs, steps
from megbrain_py.bench.steps import Built
from megbrain_py.training.detector import Detecting, make_model

Workload: TypeAlias = tuple[Callable[[], object], dict[str, Any]]


def _training(name: str) -> Callable[..., Workload]:
    """A step of steps.py as a workload; a byte budget is `mb.compile`'s."""

    def workload(built: Built, memory_budget: int | float | None = None, **sizes: Any) -> Workload:
        started: list[float] = []

        def model_is_built() -> None:
            built()
            started.append(time.perf_counter())

        described = steps.STEPS[name](model_is_built, **sizes)
        step = described.compile(memory_budget=memory_budget)
        return lambda: step(**described.feeds), _facts(step, started[0])

    return workload


def _facts(function: mb.Function, start: float) -> dict[str, Any]:
    return {
        "compile_seconds": time.perf_counter() - start,
        "planned_bytes": function.peak_bytes,
        "instructions": len(function.plan.instructions),
    }


def detect(built: Built, size: int, preset: str = "r50_fpn") -> Workload:
    """Faster R-CNN finds objects in one picture."""
    fed = inputs.detection(1, size, 0)
    model = make_model(preset, {}, inputs.CLASSES, seed=0)
    built()
    start = time.perf_counter()
    detecting = Detecting(model)
    detecting(fed)
    compiled = time.perf_counter()  # and made the first run
    detecting(fed)
    facts = {"compile_seconds": (compiled - start) - (time.perf_counter() - compiled)}
    return lambda: detecting(fed), facts


def roi_align(built: Built, rois: int, channels: int, side: int) -> Workload:
    """RoI Align, forward and backward."""

    def pool(x: mb.Var, boxes: mb.Var, count: mb.Var, scale: float) -> mb.Var:
        pooled: mb.Var = F.roi_align([x], boxes, count, 7, [scale], sampling_ratio=2)
        return pooled

    return _pooling(built, inputs.roi_align(rois, channels, side), pool, to_boxes=False)


def prroi(built: Built, rois: int, channels: int, side: int) -> Workload:
    """Precise RoI Pooling, forward and backward to features and boxes."""

    def pool(x: mb.Var, boxes: mb.Var, count: mb.Var, scale: float) -> mb.Var:
        pooled: mb.Var = F.prroi_pool([x], boxes, count, 7, [scale])
        return pooled

    return _pooling(built, inputs.roi_align(rois, channels, side), pool, to_boxes=True)


def _pooling(
    built: Built,
    case: inputs.RoiAlign,
    pool: Callable[[mb.Var, mb.Var, mb.Var, float], mb.Var],
    *,
    to_boxes: bool,
) -> Workload:
    """A pooling of boxes; values are resident as torch's are: parameters in rows layout."""
    x = mb.Parameter(case.features, name="x")
    dy = mb.Parameter(case.gradient, name="dy")
    y, dx = (mb.Parameter(np.zeros_like(a), name="to") for a in (case.gradient, case.features))
    built()
    start = time.perf_counter()
    boxes = mb.placeholder("boxes", (1, *case.boxes.shape))
    pooled = pool(x, boxes, mb.constant(np.array([len(case.boxes)], np.int32)), case.scale)
    to_x, *others = mb.gradients(F.sum(pooled * dy), [x, boxes] if to_boxes else [x])
    outputs = {"to_boxes": others[0]} if to_boxes else {}
    step = mb.compile(outputs, updates={y: pooled, dx: to_x})
    fed = case.boxes[None]
    return lambda: step(boxes=fed), _facts(step, start)


def nms(built: Built, boxes: int) -> Workload:
    """Which of many random boxes stay."""
    fed, scores = inputs.nms(boxes)
    built()
    start = time.perf_counter()
    index, count = F.nms(
        mb.placeholder("boxes", (1, boxes, 4)), mb.placeholder("scores", (1, boxes)),
        rows=boxes, iou_threshold=inputs.NMS_IOU,
    )  # fmt: skip
    step = mb.compile({"index": index, "count": count})
    facts = _facts(step, start)
    kept = int(step(boxes=fed[None], scores=scores[None])["count"][0])
    return lambda: step(boxes=fed[None], scores=scores[None]), {**facts, "kept": kept}


WORKLOADS: Mapping[str, Callable[..., Workload]] = {
    **{name: _training(name) for name in steps.STEPS},
    "detect": detect,
    "roi_align": roi_align,
    "prroi": prroi,
    "nms": nms,
}
