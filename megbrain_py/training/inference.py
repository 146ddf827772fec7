"""Detectors at test time: several scales, mirrored pictures and models, merged into one answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np

from megbrain_py import functional as F
from megbrain_py.compiler import SpecializedFunction
from megbrain_py.data import CocoDataset, Detections
from megbrain_py.dtypes import Array
from megbrain_py.errors import DataError
from megbrain_py.graph import Var
from megbrain_py.training.detector import InputConfig, Trained

_SIGNATURES = 8  # sizes of batch that stay compiled for each detector
_FEWEST_ROWS = 16  # of the merging function; it grows by factors of two

Progress = Callable[[int, str], None]  # pictures more, and of what view


@dataclass(frozen=True)
class View:
    """How a picture is shown to a detector: larger or smaller, mirrored."""

    scale: float = 1.0
    flip: bool = False

    def of(self, usual: InputConfig) -> InputConfig:
        """The sizes of the pictures, from those of the training."""
        short, long = (max(1, round(n * self.scale)) for n in (usual.short_side, usual.long_side))
        return replace(usual, short_side=short, long_side=long)

    def __str__(self) -> str:
        return f"scale {self.scale:g}{', mirrored' if self.flip else ''}"


@dataclass(frozen=True)
class InferenceConfig:
    """Which views are looked at, and how their boxes are merged: union, NMS, voting.

    scales: factors of the picture sizes of the training; flip: each view also mirrored.
    weights: factors of the detectors' scores, the largest counts as 1 (): all equal.
    score: boxes with more take part; nms_iou: overlap from which one box suppresses another;
    detections: the most of a picture. None: as the detectors have it (the least, the first's, the
    largest). soft_nms: lower scores instead. vote: a box becomes the mean of the boxes that overlap
    it so much (0: off), its score by the rule vote_score (F.vote_boxes).
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
        if min(self.detections or 1, self.most) < 1:
            raise DataError(f"detections must be at least 1, is {self.detections}")

    @property
    def views(self) -> tuple[View, ...]:
        """Every view, mirrored ones beside their likes."""
        mirrored = (False, True) if self.flip else (False,)
        return tuple(View(scale, flip) for scale in self.scales for flip in mirrored)


@dataclass(frozen=True)
class ScoredBoxes:
    """Boxes of one picture: [n, 4] in its own pixels, scores [n], labels int32[n]."""

    boxes: Array
    scores: Array
    labels: Array


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
    detectors; one NMS in each class, then voting, then the best. DataError when the detectors'
    classes are not those of the data set.
    """
    _check(detectors, dataset, config)
    union: dict[int, list[ScoredBoxes]] = {image.id: [] for image in dataset.images}
    weights = np.array(config.weights or [1.0] * len(detectors), np.float32)
    for number, (trained, weight) in enumerate(
        zip(detectors, weights / weights.max(), strict=True), 1
    ):
        least = trained.model.config.roi.score if config.score is None else config.score
        scoring = SpecializedFunction(
            partial(trained.model.scored_boxes, most=config.most), _SIGNATURES
        )
        who = f"detector {number} of {len(detectors)}, " if len(detectors) > 1 else ""
        for view in config.views:
            loader = view.of(trained.input).loader(dataset, batch, flip=view.flip)
            with loader.pass_over(workers=workers) as batches:
                for given in batches:
                    found = scoring(images=given["images"], image_sizes=given["image_sizes"])
                    pictures = np.flatnonzero(given["image_ids"] >= 0).tolist()  # no blank ones
                    for row in pictures:
                        boxes = _in_picture(found, given, row, view, least, _smallest(trained))
                        boxes = ScoredBoxes(boxes.boxes, boxes.scores * weight, boxes.labels)
                        union[int(given["image_ids"][row])].append(boxes)
                    if progress is not None:
                        progress(len(pictures), f"{who}{view}")
    return _merged(union, dataset, config, detectors)


def _check(detectors: Sequence[Trained], dataset: CocoDataset, config: InferenceConfig) -> None:
    for trained in detectors:
        if trained.class_names != dataset.class_names:
            raise DataError(
                f"{dataset.annotation_file}: its classes {list(dataset.class_names)} are not the "
                f"detector's {list(trained.class_names)}"
            )
    if config.weights and len(config.weights) != len(detectors):
        raise DataError(f"{len(config.weights)} weights for {len(detectors)} detectors")


def _smallest(trained: Trained) -> float:
    return float(trained.model.config.roi.min_size)


def _in_picture(
    found: dict[str, Array],
    given: dict[str, Array],
    row: int,
    view: View,
    least: float,
    smallest: float,
) -> ScoredBoxes:
    """The boxes of a batch's row with a score above `least`, in pixels of the picture itself."""
    boxes, scores = found["boxes"][row], found["scores"][row]
    usable = (scores > least) & ((boxes[:, 2:] - boxes[:, :2]) >= smallest).all(1)
    boxes = boxes[usable].astype(np.float64)
    height, width = given["image_sizes"][row]
    if view.flip:
        boxes[:, 0::2] = width - boxes[:, 2::-2]
    own_height, own_width = given["original_sizes"][row]
    boxes *= np.array([own_width / width, own_height / height] * 2)
    return ScoredBoxes(boxes.astype(np.float32), scores[usable], found["labels"][row][usable])


def _merged(
    union: dict[int, list[ScoredBoxes]],
    dataset: CocoDataset,
    config: InferenceConfig,
    detectors: Sequence[Trained],
) -> Detections:
    heads = [trained.model.config.roi for trained in detectors]
    rows = config.detections or max(head.detections for head in heads)
    nms_iou = heads[0].nms_iou if config.nms_iou is None else config.nms_iou
    merge = SpecializedFunction(partial(merged_boxes, config=config, rows=rows, nms_iou=nms_iou))
    result = Detections(dataset)
    for image in dataset.images:
        found = merge(**_padded(union[image.id]))
        n = int(found["count"][0])
        result.add(image.id, *(found[name][0, :n] for name in ("boxes", "scores", "labels")))
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
