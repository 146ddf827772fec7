"""Suppression and voting: examples computed by hand, and by torchvision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import megbrain_py as mb
from megbrain_py import functional as F

A, B, C = [0, 0, 9, 8], [3, 0, 12, 8], [1, 0, 10, 8]  # overlaps: A B 0.5, A C 0.8, B C 0.636...


def run(build: Any, boxes: Any, scores: Any, classes: Any = None) -> Any:
    """What an operator gives for one image; its count cuts the results."""
    given = np.array([boxes], np.float32), np.array([scores], np.float32)
    kinds = np.zeros((1, len(scores)), np.int32) if classes is None else np.int32([classes])
    inputs = [mb.placeholder(n, a.shape) for n, a in zip(("boxes", "scores"), given, strict=True)]
    label = mb.placeholder("classes", kinds.shape, "int32")
    outputs = {f"y{i}": v for i, v in enumerate(build(*inputs, label))}
    found = mb.compile(outputs)(boxes=given[0], scores=given[1], classes=kinds)
    return [found[name][0] for name in outputs]


@pytest.mark.parametrize(("switch", "expected"), [("exact", [0, 1]), ("torchvision", [0])])
def test_shifted_classes_round_as_in_torchvision(switch: Any, expected: list[int]) -> None:
    """torchvision 0.29.1 keeps only the first of these two: moved by 80 * 2004.3, they overlap by
    0.502 instead of 0.49998."""
    boxes = [[2000.1, 2000.1, 2003.3, 2003.3], [2000.1, 2000.1, 2003.3, 2001.7]]
    index, count = run(
        lambda *x: F.nms(*x, rows=2, iou_threshold=0.5, class_switch=switch),
        boxes, [0.9, 0.8], [80, 80],
    )  # fmt: skip
    assert index[:count].tolist() == expected


def test_more_than_1000_boxes_are_compared_class_by_class() -> None:
    boxes = [[2000.1, 2000.1, 2003.3, 2003.3], [2000.1, 2000.1, 2003.3, 2001.7]]
    for others, kept in ((998, 1), (999, 2)):
        corners = [(10 * (k % 100), 10 * (k // 100)) for k in range(others)]
        apart = [[x, y, x + 5, y + 5] for x, y in corners]
        _, count = run(
            lambda *x: F.nms(*x, rows=1200, iou_threshold=0.5, class_switch="torchvision"),
            [*boxes, *apart], [0.9, 0.8, *np.linspace(0.7, 0.1, others)], [80] * (others + 2),
        )  # fmt: skip
        assert count == kept + others


@pytest.mark.parametrize(
    ("options", "second"),
    [
        ({"iou_threshold": 0.3}, 0.8 * (1 - 0.5)),
        ({"iou_threshold": 0.5}, 0.8),  # not above the threshold
        ({"iou_threshold": 0.3, "plus_one": True}, 0.8 * (1 - 63 / 117)),
        ({"decay": "gaussian"}, 0.8 * np.exp(-0.25 / 0.5)),
        ({"decay": "gaussian", "sigma": 0.1}, 0.8 * np.exp(-0.25 / 0.1)),
    ],
)
def test_soft_nms(options: dict[str, Any], second: float) -> None:
    index, scores, count = run(lambda *x: F.soft_nms(*x, rows=5, **options), [B, A], [0.8, 0.9])
    assert (index[:2].tolist(), count) == ([1, 0], 2)
    np.testing.assert_allclose(scores[:2], [0.9, second], rtol=1e-6)
    assert not index[2:].any() and not scores[2:].any()


def test_soft_nms_changes_the_order_and_drops() -> None:
    boxes, scores = [A, C, B], [0.9, 0.8, 0.6]  # C: 0.8 * 0.2, B: 0.6 * 0.5, then both once more
    index, lowered, count = run(lambda *x: F.soft_nms(*x, rows=3, iou_threshold=0.3), boxes, scores)
    assert index.tolist() == [0, 2, 1]
    between = 7 * 8 / (2 * 72 - 7 * 8)
    np.testing.assert_allclose(lowered, [0.9, 0.3, 0.16 * (1 - between)], rtol=1e-5)
    *_, count = run(lambda *x: F.soft_nms(*x, rows=3, iou_threshold=0.3, least=0.1), boxes, scores)
    assert count == 2
    *_, apart = run(lambda *x: F.soft_nms(*x, rows=3, least=0.5), boxes, scores, [1, 2, 3])
    assert apart == 3


@pytest.mark.parametrize(
    ("rule", "score"), [("id", 0.9), ("avg", 0.6), ("iou_avg", (0.9 + 0.3 * 0.8) / 1.8)]
)
def test_voting(rule: Any, score: float) -> None:
    """A and C vote, in the ratio 3 : 1; B and the like box of another class do not."""

    def build(boxes: Any, scores: Any, classes: Any) -> Any:
        one = mb.constant(np.int32([1]))
        kept = boxes[:, :1], scores[:, :1], classes[:, :1], one
        given = boxes, scores, classes, mb.constant(np.int32([4]))
        return F.vote_boxes(kept, given, iou_threshold=0.8, score_rule=rule)

    boxes, scores = run(build, [A, C, B, A], [0.9, 0.3, 0.7, 0.8], [1, 1, 1, 2])
    np.testing.assert_allclose(boxes[0], [0.25, 0, 9.25, 8], rtol=1e-6)
    np.testing.assert_allclose(scores[0], score, rtol=1e-6)
