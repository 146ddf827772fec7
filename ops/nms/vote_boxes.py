"""Box voting (Gidaris and Komodakis 2015): a kept box becomes the mean of those it stands for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from megbrain_py.dtypes import Array, TensorType
from megbrain_py.errors import require
from megbrain_py.graph import Node, Operator, Var
from megbrain_py.ops.match_boxes.match_boxes import box_iou
from megbrain_py.ops.nms.nms import check_scored
from megbrain_py.ops.nms.soft_nms import with_last_pixel

ScoreRule = Literal["id", "avg", "iou_avg"]
_RULES = ("id", "avg", "iou_avg")


@dataclass(frozen=True)
class VoteBoxes(Operator, kernel="vote_boxes"):
    """kept (boxes, scores, classes, count), all (the same) -> boxes [N, D, 4], scores [N, D]."""

    iou_threshold: float
    score_threshold: float
    score_rule: ScoreRule
    plus_one: bool

    def infer(self, *inputs: TensorType) -> list[TensorType]:
        require(len(inputs) == 8, f"takes 8 inputs, found {len(inputs)}")
        kept, given = inputs[:4], inputs[4:]
        check_scored(*kept, prefix="kept ")
        check_scored(*given)
        require(
            given[0].shape[0] == kept[0].shape[0] and given[0].dtype == kept[0].dtype,
            f"boxes must be {kept[0].dtype}[{kept[0].shape[0]},R,4], is {given[0]}",
        )
        require(
            self.score_rule in _RULES,
            f"score_rule must be one of {', '.join(_RULES)}, is {self.score_rule!r}",
        )
        require(self.iou_threshold > 0, f"iou_threshold must be > 0, is {self.iou_threshold}")
        require(self.score_threshold >= 0, f"score_threshold is negative: {self.score_threshold}")
        return [kept[0], kept[1]]

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        return [None] * 8

    def reference(self, *inputs: Array) -> list[Array]:
        kept, kept_scores, kept_classes, kept_count, boxes, scores, classes, count = inputs
        voted, rated = np.zeros_like(kept), np.zeros_like(kept_scores)
        for n in range(len(kept)):
            wide = with_last_pixel(boxes[n], self.plus_one)
            own = with_last_pixel(kept[n], self.plus_one)
            may_vote = (scores[n] > self.score_threshold) & (np.arange(len(wide)) < count[n])
            for d in range(min(int(kept_count[n]), kept.shape[1])):
                iou = box_iou(own[d : d + 1], wide)[0]
                votes = may_vote & (classes[n] == kept_classes[n, d]) & (iou >= self.iou_threshold)
                voted[n, d], rated[n, d] = kept[n, d], kept_scores[n, d]
                if not votes.any():
                    continue
                weights = scores[n, votes].astype(np.float64)
                voted[n, d] = np.average(boxes[n, votes].astype(np.float64), 0, weights)
                if self.score_rule == "avg":
                    rated[n, d] = weights.mean()
                elif self.score_rule == "iou_avg":
                    rated[n, d] = np.average(weights, weights=iou[votes].astype(np.float64))
        return [voted, rated]


def vote_boxes(
    kept: tuple[Var, Var, Var, Var],
    given: tuple[Var, Var, Var, Var],
    *,
    iou_threshold: float,
    score_threshold: float = 0.0,
    score_rule: ScoreRule = "id",
    plus_one: bool = False,
) -> tuple[Var, Var]:
    """Kept boxes moved to the mean of all boxes that they stand for: (boxes, scores).

    Both arguments: boxes float[N, R, 4], scores float[N, R], classes int32[N, R] and their count
    int32[N]; `kept` is what a suppression left (D rows), `given` what it was given (R rows).
    A kept box becomes the mean, weighted with their scores, of the given boxes of its class with
    score > score_threshold whose overlap with it is >= iou_threshold; without any it stays.
    score_rule: "id" keeps the score, "avg" takes the mean of the voters' scores, "iou_avg" that
    mean weighted with the overlaps. plus_one: sides are x2 - x1 + 1 in the overlaps.
    Results: float[N, D, 4] and float[N, D], zeros beyond the count of `kept`.
    Semantics: box_voting of Detectron (there `plus_one`).
    """
    op = VoteBoxes(float(iou_threshold), float(score_threshold), score_rule, bool(plus_one))
    result: tuple[Var, Var] = op(*kept, *given)
    return result
