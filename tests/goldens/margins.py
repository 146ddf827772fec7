# mypy: ignore-errors
"""How near the oracle's discrete decisions (top-k, NMS, matching) come to going the other way."""

from __future__ import annotations

import torch
from torchvision.ops import batched_nms, box_iou


def nms_margin(boxes, scores, groups, threshold: float) -> tuple[float, float]:
    """Nearest |IoU - threshold| of a kept box and another of its group, and nearest relative score
    gap of two boxes of a group of which one suppresses the other."""
    iou = box_iou(boxes, boxes)
    same = (groups[:, None] == groups[None, :]) & ~torch.eye(len(boxes), dtype=torch.bool)
    kept = torch.zeros(len(boxes), dtype=torch.bool)
    kept[batched_nms(boxes, scores, groups, threshold)] = True
    touch = same & kept[:, None]
    gap = (iou - threshold).abs()[touch]
    rivals = touch & (iou > threshold)
    order = (scores[:, None] - scores[None, :]).abs()[rivals] / scores.abs().max()
    none = torch.tensor(1.0, dtype=boxes.dtype)
    return float(torch.cat([gap, none[None]]).min()), float(torch.cat([order, none[None]]).min())


def edge(values: torch.Tensor, count: int) -> float:
    """The relative gap between the `count`-th and the next of the largest `values`."""
    if len(values) <= count:
        return 1.0
    top = values.sort(descending=True).values
    return float((top[count - 1] - top[count]) / values.abs().max())


def match_margin(gt, boxes, thresholds, low_quality: bool) -> float:
    """The nearest an IoU comes to a decision of the Matcher."""
    iou = box_iou(gt, boxes)
    best = iou.max(0).values
    gaps = [float((best - threshold).abs().min()) for threshold in thresholds]
    if len(gt) > 1:
        top = iou.topk(2, 0).values
        used = best >= thresholds[-1] if not low_quality else best > 0.25
        gaps.append(float((top[0] - top[1])[used].min()) if used.any() else 1.0)
    if low_quality:
        top = iou.topk(2, 1).values
        gaps.append(float((top[:, 0] - top[:, 1]).min()))
    return min(gaps)
