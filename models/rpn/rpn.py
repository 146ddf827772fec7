"""Region proposal network: which anchors hold an object, and the boxes they become."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from megbrain_py import functional as F
from megbrain_py import nn
from megbrain_py.dtypes import DType
from megbrain_py.graph import Var, constant
from megbrain_py.nn.init import RandomLike, generator, normal

SALT = 1  # of the random draw of anchors


@dataclass(frozen=True)
class RPNConfig:
    """Counts are per image; sizes in pixels. The defaults are torchvision's.

    pre_nms: candidates of each level, in training and at test; post_nms: proposals of all levels.
    samples: anchors that a training step looks at, at most `positive` of them with an object.
    class_switch: how NMS keeps the levels apart (F.nms).
    """

    pre_nms_train: int = 2000
    pre_nms_test: int = 1000
    post_nms_train: int = 2000
    post_nms_test: int = 1000
    nms_iou: float = 0.7
    min_size: float = 1e-3
    samples: int = 256
    positive: float = 0.5
    high: float = 0.7
    low: float = 0.3
    beta: float = 1 / 9
    class_switch: Literal["exact", "torchvision"] = "exact"

    def __post_init__(self) -> None:
        counts = ("pre_nms_train", "pre_nms_test", "post_nms_train", "post_nms_test", "samples")
        check_numbers("rpn", self, counts, ("positive", "nms_iou"))
        if not 0 <= self.low <= self.high <= 1:
            raise ValueError(
                f"rpn: 0 <= low <= high <= 1 must hold, are low {self.low}, high {self.high}"
            )


def check_numbers(part: str, config: Any, counts: Sequence[str], fractions: Sequence[str]) -> None:
    """Raise ValueError unless these counts are at least 1, these fractions in 0..1, beta >= 0."""
    for name in counts:
        if getattr(config, name) < 1:
            raise ValueError(f"{part}: {name} must be at least 1, is {getattr(config, name)}")
    for name in fractions:
        if not 0 <= getattr(config, name) <= 1:
            raise ValueError(f"{part}: {name} must be in 0..1, is {getattr(config, name)}")
    if config.beta < 0:
        raise ValueError(f"{part}: beta must not be negative, is {config.beta}")


@dataclass(frozen=True)
class Proposals:
    """boxes float32[N, P, 4], best first; the first count int32[N] rows are valid."""

    boxes: Var
    scores: Var  # float32[N, P], logits
    count: Var


@dataclass(frozen=True)
class Candidates:
    """What the head says of every anchor: levels, then rows, columns, anchors."""

    logits: list[Var]  # a level: [N, A]
    deltas: list[Var]  # a level: [N, A, 4]
    anchors: list[Var]  # a level: [A, 4]


def first_rows(rows: int, count: Var) -> Var:
    """bool[N, rows]: is the row among the first count[n]?"""
    return F.less(constant(np.arange(rows, dtype=np.int32)), F.expand_dims(count, 1))


class RPNHead(nn.Module):
    """3x3 convolution and ReLU, then 1x1 objectness [N, A, H, W] and offsets [N, 4 A, H, W]."""

    def __init__(self, channels: int, anchors: int, rng: np.random.Generator) -> None:
        self.conv = nn.Sequential(nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1)))
        self.cls_logits = nn.Conv2d(channels, anchors, 1)
        self.bbox_pred = nn.Conv2d(channels, 4 * anchors, 1)
        for name, parameter in self.named_parameters().items():
            is_bias = name.endswith("bias")
            std = 0.0 if is_bias else 0.01
            parameter.set(normal(parameter.shape, std, rng=rng))

    def forward(self, x: Var) -> tuple[Var, Var]:
        y = F.relu(self.conv(x))
        return self.cls_logits(y), self.bbox_pred(y)


class RPN(nn.Module):
    """Proposals from pyramid levels, and the two losses that train them.

    sizes: one anchor size (pixels) a level; ratios: height / width.
    """

    def __init__(
        self,
        config: RPNConfig,
        channels: int,
        sizes: Sequence[float],
        ratios: Sequence[float],
        *,
        rng: RandomLike = None,
    ) -> None:
        self.config = config
        self.sizes = tuple(sizes)
        self.ratios = tuple(ratios)
        self.head = RPNHead(channels, len(self.ratios), generator(rng))

    def candidates(self, levels: Sequence[Var], image: tuple[int, int]) -> Candidates:
        """The head on every level; `image` is the padded images' (height, width)."""
        found = Candidates([], [], [])
        for x, size in zip(levels, self.sizes, strict=True):
            logits, deltas = self.head(x)
            images, kinds, height, width = logits.shape
            anchors = kinds * height * width
            found.logits.append(F.flatten(F.transpose(logits, (0, 2, 3, 1)), 1))
            found.deltas.append(F.reshape(F.transpose(deltas, (0, 2, 3, 1)), (images, anchors, 4)))
            found.anchors.append(F.anchors((height, width), image, [size], self.ratios))
        return found

    def proposals(self, found: Candidates, image_sizes: Var, *, training: bool) -> Proposals:
        """The best boxes of each image after NMS within each level; no gradient flows back."""
        c = self.config
        most = c.pre_nms_train if training else c.pre_nms_test
        boxes: list[Var] = []
        scores: list[Var] = []
        for logits, deltas, anchors in zip(found.logits, found.deltas, found.anchors, strict=True):
            best, index = F.top_k(F.stop_gradient(logits), min(most, logits.shape[1]))
            offsets = F.batched_gather(F.stop_gradient(deltas), index)
            boxes.append(F.decode_boxes(offsets, F.gather(anchors, index)))
            scores.append(best)
        level = np.repeat(np.arange(len(scores)), [s.shape[1] for s in scores])
        classes = constant(np.tile(level, (scores[0].shape[0], 1)).astype(np.int32))
        all_boxes = F.clip_boxes(F.concat(boxes, 1), image_sizes)
        all_scores = F.concat(scores, 1)
        index, count = F.nms(
            all_boxes,
            all_scores,
            classes,
            rows=c.post_nms_train if training else c.post_nms_test,
            iou_threshold=c.nms_iou,
            min_size=c.min_size,
            class_switch=c.class_switch,
        )
        picked = F.batched_gather(all_boxes, index), F.batched_gather(all_scores, index)
        return Proposals(*picked, count)

    def losses(self, found: Candidates, boxes: Var, box_count: Var, key: Var) -> dict[str, Var]:
        """`loss_objectness`, `loss_rpn_box_reg`: over a balanced sample of anchors.

        Both are sums divided by the number of sampled anchors of the whole batch.
        """
        c = self.config
        anchors = F.concat(found.anchors, 0)
        matches, _ = F.match_boxes(
            anchors, boxes, box_count, high=c.high, low=c.low, allow_low_quality=True
        )
        drawn, positives, total = F.sample(matches, key, c.samples, c.positive, salt=SALT)
        return self.losses_of(found, boxes, matches, drawn, positives, total)

    def losses_of(
        self, found: Candidates, boxes: Var, matches: Var, drawn: Var, positives: Var, total: Var
    ) -> dict[str, Var]:
        """The losses for anchors already drawn: indices [N, S], positives first."""
        c = self.config
        rows = drawn.shape[1]
        logits = F.batched_gather(F.concat(found.logits, 1), drawn)
        used = F.cast(first_rows(rows, total), DType.float32)
        is_object = F.cast(first_rows(rows, positives), DType.float32)
        count = nn.over_ranks(F.cast(F.sum(total), DType.float32))
        objectness = F.binary_cross_entropy_with_logits(logits, is_object, used, count=count)

        most = min(rows, int(c.samples * c.positive))  # positives come first
        index = drawn[:, :most]
        truth = F.maximum(F.take_along_axis(matches, index, 1), 0)
        anchors = F.gather(F.concat(found.anchors, 0), index)
        target = F.encode_boxes(F.batched_gather(boxes, truth), anchors)
        offsets = F.batched_gather(F.concat(found.deltas, 1), index)
        weight = F.expand_dims(F.cast(first_rows(most, positives), DType.float32), 2)
        regression = F.smooth_l1(offsets, target, weight, beta=c.beta, count=count)
        return {"loss_objectness": objectness, "loss_rpn_box_reg": regression}
