"""The second stage: boxes pooled from the pyramid, classified and refined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from megbrain_py import functional as F
from megbrain_py import nn
from megbrain_py.dtypes import DType
from megbrain_py.graph import Var, constant
from megbrain_py.models.roi_features import (
    POOLINGS,
    Around,
    ContextConfig,
    ContextExtractor,
    Pooler,
    Pooling,
)
from megbrain_py.models.rpn import Proposals
from megbrain_py.models.rpn.rpn import check_numbers, first_rows
from megbrain_py.nn.init import RandomLike, generator, normal

SALT = 2  # of the random draw of boxes
IGNORED = -2  # a match that is never drawn


@dataclass(frozen=True)
class RoIHeadsConfig:
    """Counts are per image; sizes in pixels. The defaults are torchvision's.

    samples: boxes that a training step looks at, at most `positive` of them with an object.
    pooling: an operator of ops/roi_pooling; sampling_ratio belongs to "roi_align".
    score, nms_iou, min_size, detections: which boxes are given out at test; class_switch: how NMS
    keeps classes apart (F.nms).
    """

    samples: int = 512
    positive: float = 0.25
    iou: float = 0.5
    hidden: int = 1024
    pool: int = 7
    pooling: Pooling = "roi_align"
    sampling_ratio: int = 2
    weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)
    beta: float = 1 / 9
    score: float = 0.05
    nms_iou: float = 0.5
    min_size: float = 1e-2
    detections: int = 100
    class_switch: Literal["exact", "torchvision"] = "exact"

    def __post_init__(self) -> None:
        counts = ("samples", "hidden", "pool", "detections")
        check_numbers("roi", self, counts, ("positive", "iou", "nms_iou"))
        if self.pooling not in POOLINGS:
            raise ValueError(f"roi: pooling must be one of {POOLINGS}, is {self.pooling!r}")
        if min(self.weights) <= 0:
            raise ValueError(f"roi: weights must be positive, are {self.weights}")


@dataclass(frozen=True)
class Drawn:
    """Boxes chosen for a training step, positives first: rois [N, S, 4], their true box [N, S, 4],
    label int32[N, S] (0: background), positives and total int32[N], the true box's row
    int32[N, S]."""

    rois: Var
    truth: Var
    labels: Var
    positives: Var
    total: Var
    objects: Var


class BoxHead(nn.Module):
    """Two fully connected layers with ReLU on pooled maps [R, C, p, p]."""

    def __init__(self, inputs: int, hidden: int, rng: np.random.Generator) -> None:
        self.fc6 = nn.Linear(inputs, hidden, rng=rng)
        self.fc7 = nn.Linear(hidden, hidden, rng=rng)

    def forward(self, x: Var) -> Var:
        y = F.relu(self.fc6(F.flatten(x, 1)))
        return F.relu(self.fc7(y))


class BoxPredictor(nn.Module):
    """Logits [R, K + 1] (0: background) and offsets [R, 4 (K + 1)]."""

    def __init__(self, inputs: int, classes: int, rng: np.random.Generator) -> None:
        self.cls_score = nn.Linear(inputs, classes + 1, rng=rng)
        self.bbox_pred = nn.Linear(inputs, 4 * (classes + 1), rng=rng)
        for layer, std in ((self.cls_score, 0.01), (self.bbox_pred, 0.001)):
            assert layer.bias is not None
            layer.weight.set(normal(layer.weight.shape, std, rng=rng))
            layer.bias.set(np.zeros(layer.bias.shape, np.float32))

    def forward(self, x: Var) -> tuple[Var, Var]:
        return self.cls_score(x), self.bbox_pred(x)


class RoIHeads(nn.Module):
    """features P2..P5 with their strides; `classes` kinds of objects without the background.

    context: what a box sees besides itself; its part of the image, where there is one, is computed
    once by `around` and handed to the methods that pool boxes.
    """

    def __init__(
        self,
        config: RoIHeadsConfig,
        channels: int,
        classes: int,
        strides: Sequence[int],
        canonical_scale: float,
        *,
        context: ContextConfig | None = None,
        rng: RandomLike = None,
    ) -> None:
        rng = generator(rng)
        self.config = config
        self.classes = classes
        scales = tuple(1.0 / stride for stride in strides)
        self.pooler = Pooler(config.pooling, scales, canonical_scale, config.sampling_ratio)
        self.box_head = BoxHead(channels * config.pool**2, config.hidden, rng)
        self.box_predictor = BoxPredictor(config.hidden, classes, rng)
        self.context: ContextExtractor | None = None
        if context is not None and context.is_on:
            self.context = ContextExtractor(context, channels, len(scales))

    def around(self, features: Sequence[Var], image_sizes: Var) -> Around | None:
        """What boxes see of the whole image int32[N, 2], or None."""
        if self.context is None:
            return None
        return self.context.around(self.pooler, features, image_sizes)

    def pooled(
        self,
        features: Sequence[Var],
        rois: Var,
        count: Var,
        around: Around | None = None,
        size: int | None = None,
        pooler: Pooler | None = None,
    ) -> Var:
        """[N * R, C, p, p] for boxes [N, R, 4], zeros for those beyond the count int32[N]; as the
        box head wants them, or with another size and pooler."""
        size, pooler = size or self.config.pool, pooler or self.pooler
        if self.context is None:
            return pooler(features, rois, count, size)
        pooled: Var = self.context(pooler, features, rois, count, size, around)
        return pooled

    def predict(
        self, features: Sequence[Var], rois: Var, count: Var, around: Around | None = None
    ) -> tuple[Var, Var]:
        """Logits [N, R, K + 1] and offsets [N, R, K + 1, 4] for boxes [N, R, 4]."""
        pooled = self.pooled(features, rois, count, around)
        logits, offsets = self.box_predictor(self.box_head(pooled))
        images, rows = rois.shape[:2]
        kinds = self.classes + 1
        return (
            F.reshape(logits, (images, rows, kinds)),
            F.reshape(offsets, (images, rows, kinds, 4)),
        )

    # --- training ---

    def draw(
        self, proposals: Proposals, boxes: Var, labels: Var, box_count: Var, key: Var
    ) -> Drawn:
        """A balanced sample of the proposals and the true boxes themselves."""
        c = self.config
        every = F.concat([proposals.boxes, boxes], 1)
        found, _ = F.match_boxes(every, boxes, box_count, high=c.iou, low=c.iou)
        rows = proposals.boxes.shape[1], boxes.shape[1]
        valid = F.concat([first_rows(rows[0], proposals.count), first_rows(rows[1], box_count)], 1)
        matches = F.where(valid, found, constant(np.int32(IGNORED)))
        index, positives, total = F.sample(matches, key, c.samples, c.positive, salt=SALT)
        truth = F.maximum(F.take_along_axis(matches, index, 1), 0)
        is_object = first_rows(c.samples, positives)
        label = F.where(is_object, F.take_along_axis(labels, truth, 1), constant(np.int32(0)))
        rois = F.stop_gradient(F.batched_gather(every, index))  # some poolings would give one
        return Drawn(rois, F.batched_gather(boxes, truth), label, positives, total, truth)

    def losses(
        self, features: Sequence[Var], drawn: Drawn, around: Around | None = None
    ) -> dict[str, Var]:
        """`loss_classifier`, `loss_box_reg`: sums divided by the number of drawn boxes."""
        logits, offsets = self.predict(features, drawn.rois, drawn.total, around)
        return self.losses_of(logits, offsets, drawn)

    def losses_of(self, logits: Var, offsets: Var, drawn: Drawn) -> dict[str, Var]:
        """The losses of predictions: logits [N, S, K + 1], offsets [N, S, K + 1, 4]."""
        c = self.config
        images, rows, kinds = logits.shape
        used = F.cast(first_rows(rows, drawn.total), DType.float32)
        count = nn.over_ranks(F.cast(F.sum(drawn.total), DType.float32))
        classifier = F.cross_entropy(
            F.reshape(logits, (-1, kinds)),
            F.reshape(drawn.labels, (-1,)),
            F.reshape(used, (-1,)),
            count=count,
        )
        most = self.most_positive(drawn)
        own_class = F.batched_gather(
            F.reshape(offsets[:, :most], (images * most, kinds, 4)),
            F.reshape(drawn.labels[:, :most], (-1, 1)),
        )
        target = F.encode_boxes(drawn.truth[:, :most], drawn.rois[:, :most], c.weights)
        weight = F.expand_dims(F.cast(first_rows(most, drawn.positives), DType.float32), 2)
        regression = F.smooth_l1(
            F.reshape(own_class, (images, most, 4)), target, weight, beta=c.beta, count=count
        )
        return {"loss_classifier": classifier, "loss_box_reg": regression}

    def most_positive(self, drawn: Drawn) -> int:
        """Rows of an image that may hold an object: they come first."""
        return min(drawn.rois.shape[1], int(self.config.samples * self.config.positive))

    # --- test ---

    def detect(
        self,
        features: Sequence[Var],
        proposals: Proposals,
        image_sizes: Var,
        around: Around | None = None,
    ) -> dict[str, Var]:
        """`boxes` [N, D, 4], `scores` [N, D], `labels` int32[N, D], `count` int32[N].

        Rows beyond the count hold zeros.
        """
        logits, offsets = self.predict(features, proposals.boxes, proposals.count, around)
        return self.detections(logits, offsets, proposals, image_sizes)

    def scored(
        self, logits: Var, offsets: Var, proposals: Proposals, image_sizes: Var
    ) -> tuple[Var, Var, Var]:
        """Predictions as boxes, decoded and clipped, one for each proposal and class.

        boxes [N, P K, 4], scores [N, P K], -1 where there is no proposal, labels int32[N, P K].
        """
        c = self.config
        images, rows, kinds = logits.shape
        decoded = F.decode_boxes(offsets, proposals.boxes, c.weights)
        clipped = F.clip_boxes(F.reshape(decoded, (images, rows * kinds, 4)), image_sizes)
        boxes = F.flatten(F.reshape(clipped, (images, rows, kinds, 4))[:, :, 1:], 1, 2)
        valid = F.expand_dims(first_rows(rows, proposals.count), 2)
        scores = F.where(valid, F.softmax(logits, -1)[:, :, 1:], -1.0)
        scores = F.flatten(scores, 1)
        kind = np.tile(np.arange(1, kinds, dtype=np.int32), rows)
        return boxes, scores, constant(np.tile(kind, (images, 1)))

    def detections(
        self, logits: Var, offsets: Var, proposals: Proposals, image_sizes: Var
    ) -> dict[str, Var]:
        """The final boxes of predictions on proposals: NMS in each class, the best of all."""
        c = self.config
        boxes, scores, labels = self.scored(logits, offsets, proposals, image_sizes)
        index, count = F.nms(
            boxes,
            scores,
            labels,
            rows=c.detections,
            iou_threshold=c.nms_iou,
            score_threshold=c.score,
            min_size=c.min_size,
            class_switch=c.class_switch,
        )
        is_found = first_rows(c.detections, count)
        return {
            "boxes": F.where(F.expand_dims(is_found, 2), F.batched_gather(boxes, index), 0.0),
            "scores": F.where(is_found, F.batched_gather(scores, index), 0.0),
            "labels": F.where(is_found, F.batched_gather(labels, index), constant(np.int32(0))),
            "count": count,
        }
