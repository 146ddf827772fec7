"""Detectors at test time: several scales, mirrored pictures and models, merged into one answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from megbrain_py import functional as F
from megbrain_py.compiler import SpecializedFunction
from megbrain_py.data import CocoDataset, Detections
from megbrain_py.errors import DataError
from megbrain_py.graph import Var
from megbrain_py.training.detector import Trained, has_masks
from megbrain_py.training.view_masks import masks_of_all
from megbrain_py.training.views import Progress, ScoredBoxes, View, looks

_SIGNATURES = 8  # sizes of batch that stay compiled for each detector
_FEWEST_ROWS = 16  # of the merging function; it grows by factors of two


@dataclass(frozen=True)
class InferenceConfig:
    """Which views are looked at, and how their boxes are merged: union, NMS, voting.

    scales: factors of the picture sizes of the training; flip: each view also mirrored.
    weights: factors of the detectors' scores, the largest counts as 1; (): all equal.
    score: boxes with more take part (None: each detector's own); nms_iou: overlap above which a box
    suppresses another (None: the first detector's); detections: the most of a picture (None: the
    detectors' largest). soft_nms: lower scores instead. vote: a box becomes the mean of the boxes
    that overlap it so much (0: off), its score by the rule vote_score (F.vote_boxes).
    most: boxes that a view may give.
    """

    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    weights: tuple[float, ...] = ()
    score: float | None = None
    nms_iou: float | None = None
    detections: int | None = None
    soft_nms: Literal["off", "linear", "gaussian"] = "off"
    vote: float = 0.0
    vote_score: Literal["id", "avg", "iou_avg"] = "id"
    most: int = 1000

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("score", self.score, 0, 1),
            ("nms_iou", self.nms_iou, 0, 1),
            ("vote", self.vote, 0, 1),
        ):
            if value is not None and not low <= value <= high:
                raise DataError(f"{name} must be in {low}..{high}, is {value:g}")
        for name, values in (("scales", self.scales), ("weights", self.weights)):
            if not all(0 < value < np.inf for value in values):
                raise DataError(f"{name} must be positive, are {', '.join(map(str, values))}")
        if not self.scales:
            raise DataError("scales: give at least one")
        for name, count in (("detections", self.detections), ("most", self.most)):
            if count is not None and count < 1:
                raise DataError(f"{name} must be at least 1, is {count}")

    @property
    def views(self) -> tuple[View, ...]:
        """Every view, mirrored ones beside their likes."""
        mirrored = (False, True) if self.flip else (False,)
        return tuple(View(scale, flip) for scale in self.scales for flip in mirrored)


def detect_views(
    detectors: Sequence[Trained],
    dataset: CocoDataset,
    config: InferenceConfig,
    *,
    batch: int = 4,
    workers: int = 1,
    progress: Progress | None = None,
) -> Detections:
    """What the detectors find in all views of every picture, merged picture by picture.

    The boxes of a picture before NMS, mapped back to its own pixels, are joined over views and
    detectors; one NMS in each class, then voting, then the best. Detectors that find masks then
    mask these boxes in all views, and the mean counts. DataError when the detectors' classes are
    not those of the data set.
    """
    _check(detectors, dataset, config)
    heads = [trained.model.config.roi for trained in detectors]
    rows = config.detections or max(head.detections for head in heads)
    union = _union(detectors, dataset, config, batch=batch, workers=workers, progress=progress)
    found = _merged(union, config, heads[0].nms_iou, rows)
    able = [trained for trained in detectors if has_masks(trained.model)]
    masks = (
        masks_of_all(
            able, config.views, dataset, found,
            rows=rows, batch=batch, workers=workers, progress=progress,
        )
        if able
        else {}
    )  # fmt: skip
    result = Detections(dataset)
    for image in dataset.images:
        own = found[image.id]
        result.add(image.id, own.boxes, own.scores, own.labels, masks=masks.get(image.id))
    return result


def looks_of(detectors: Sequence[Trained], config: InferenceConfig) -> int:
    """How many times `detect_views` looks at a picture, with the looks for masks."""
    able = sum(has_masks(trained.model) for trained in detectors)
    return len(config.views) * (len(detectors) + able)


def _check(detectors: Sequence[Trained], dataset: CocoDataset, config: InferenceConfig) -> None:
    for trained in detectors:
        if trained.class_names != dataset.class_names:
            raise DataError(
                f"{dataset.annotation_file}: its classes {list(dataset.class_names)} are not the "
                f"detector's {list(trained.class_names)}"
            )
    if config.weights and len(config.weights) != len(detectors):
        raise DataError(f"{len(config.weights)} weights for {len(detectors)} detectors")


def _union(
    detectors: Sequence[Trained],
    dataset: CocoDataset,
    config: InferenceConfig,
    *,
    batch: int,
    workers: int,
    progress: Progress | None,
) -> dict[int, list[ScoredBoxes]]:
    """The boxes of all views and detectors before NMS, by image id, scores already weighted."""
    weights = np.array(config.weights or [1.0] * len(detectors), np.float32)
    weights /= weights.max()
    functions = [
        SpecializedFunction(partial(trained.model.scored_boxes, most=config.most), _SIGNATURES)
        for trained in detectors
    ]
    union: dict[int, list[ScoredBoxes]] = {image.id: [] for image in dataset.images}
    every = looks(detectors, config.views, dataset, batch=batch, workers=workers, progress=progress)
    for look in every:
        given = look.batch
        head = detectors[look.detector].model.config.roi
        least = head.score if config.score is None else config.score
        found = functions[look.detector](images=given["images"], image_sizes=given["image_sizes"])
        for row in look.pictures:
            boxes, scores = found["boxes"][row], found["scores"][row]
            usable = (scores > least) & ((boxes[:, 2:] - boxes[:, :2]) >= head.min_size).all(1)
            own = ScoredBoxes(
                look.view.in_picture(boxes[usable], given, row),
                scores[usable] * weights[look.detector],
                found["labels"][row][usable],
            )
            union[int(given["image_ids"][row])].append(own)
    return union


def _merged(
    union: Mapping[int, Sequence[ScoredBoxes]], config: InferenceConfig, nms_iou: float, rows: int
) -> dict[int, ScoredBoxes]:
    """NMS and voting of each picture's boxes; nms_iou: where the configuration says none."""
    threshold = nms_iou if config.nms_iou is None else config.nms_iou
    merge = SpecializedFunction(partial(merged_boxes, config=config, rows=rows, nms_iou=threshold))
    result = {}
    for key, parts in union.items():
        found = merge(**_padded(parts))
        n = int(found["count"][0])
        result[key] = ScoredBoxes(*(found[name][0, :n] for name in ("boxes", "scores", "labels")))
    return result


def _padded(parts: Sequence[ScoredBoxes]) -> dict[str, Any]:
    """All boxes of a picture as a batch of one; rows are a power of two, the rest zeros."""
    count = sum(len(part.scores) for part in parts)
    rows = _FEWEST_ROWS
    while rows < count:
        rows *= 2
    boxes, scores = np.zeros((1, rows, 4), np.float32), np.zeros((1, rows), np.float32)
    labels = np.zeros((1, rows), np.int32)
    at = 0
    for part in parts:
        here = slice(at, at + len(part.scores))
        boxes[0, here], scores[0, here], labels[0, here] = part.boxes, part.scores, part.labels
        at = here.stop
    return {
        "boxes": boxes, "scores": scores, "labels": labels, "count": np.array([count], np.int32)
    }  # fmt: skip


def merged_boxes(
    boxes: Var,
    scores: Var,
    labels: Var,
    count: Var,
    *,
    config: InferenceConfig,
    rows: int,
    nms_iou: float,
) -> dict[str, Var]:
    """The graph of NMS and voting: `boxes` [N, rows, 4], `scores`, `labels`, `count` int32[N]."""
    given = boxes, scores, labels, count
    if config.soft_nms == "off":
        index, found = F.nms(*given, rows=rows, iou_threshold=nms_iou)
        best = F.batched_gather(scores, index)
    else:
        index, best, found = F.soft_nms(
            *given, rows=rows, decay=config.soft_nms, iou_threshold=nms_iou
        )
    kept, kinds = F.batched_gather(boxes, index), F.batched_gather(labels, index)
    if config.vote:
        kept, best = F.vote_boxes(
            (kept, best, kinds, found),
            given,
            iou_threshold=config.vote,
            score_rule=config.vote_score,
        )
    return {"boxes": kept, "scores": best, "labels": kinds, "count": found}
