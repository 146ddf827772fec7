"""Boxes as offsets from other boxes and back; clipping to the image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from megbrain_py.dtypes import Array, DType, Shape, TensorType
from megbrain_py.errors import require
from megbrain_py.graph import Node, Operator, Var

Weights: TypeAlias = tuple[float, float, float, float]
LARGEST_LOG_SIDE = math.log(1000.0 / 16)  # a box grows at most from 16 to 1000 pixels


def _check_rows(name: str, rows: TensorType, base: TensorType) -> None:
    """`rows` [..., 4] each belong to a row of `base`: equal shapes, or repeated on either side."""
    require(rows.rank >= 2 and rows.shape[-1] == 4, f"{name} must be [..., 4], is {rows}")
    require(
        rows.dtype.is_float and base.dtype == rows.dtype,
        f"{name} and boxes must have one float type, are {rows.dtype}, {base.dtype}",
    )
    require(
        base.shape[-1:] == (4,) and _fits(rows.shape, base.shape),
        f"boxes {base.shape} must have the shape of {name} {rows.shape}, or lack its first axis, "
        "or its last but one",
    )


def _fits(rows: Shape, base: Shape) -> bool:
    return base in (rows, rows[1:], (*rows[:-2], 4))


def _spread(base: Array, rows: Shape) -> Array:
    """boxes repeated to the shape of the rows."""
    if base.shape not in (rows, rows[1:]):
        base = base[..., None, :]
    return np.broadcast_to(base, rows)


def _centre(boxes: Array) -> tuple[Array, Array]:
    """(centres, sides), each [..., 2]."""
    sides = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + sides / 2, sides


@dataclass(frozen=True)
class EncodeBoxes(Operator, kernel="encode_boxes"):
    """Offsets that turn `boxes` into `target`."""

    weights: Weights

    def infer(self, target: TensorType, boxes: TensorType) -> TensorType:
        _check_rows("target", target, boxes)
        return target

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        return [None, None]  # offsets of true boxes are what is learnt, not what learns

    def reference(self, target: Array, boxes: Array) -> Array:
        middle, sides = _centre(_spread(boxes, target.shape))
        centre, extent = _centre(target)
        weights = np.array(self.weights, target.dtype)
        with np.errstate(divide="ignore", invalid="ignore"):
            offsets = np.concatenate([(centre - middle) / sides, np.log(extent / sides)], -1)
        usable = ((sides > 0) & (extent > 0)).all(-1, keepdims=True)
        return np.where(usable, weights * offsets, 0)


@dataclass(frozen=True)
class DecodeBoxes(Operator, kernel="decode_boxes"):
    """Boxes moved and scaled by offsets."""

    weights: Weights
    clamp: float

    def infer(self, offsets: TensorType, boxes: TensorType) -> TensorType:
        _check_rows("offsets", offsets, boxes)
        return offsets

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        return [DecodeBoxesBackward(self.weights, self.clamp)(dy[0], *node.inputs), None]

    def reference(self, offsets: Array, boxes: Array) -> Array:
        middle, sides = _centre(_spread(boxes, offsets.shape))
        scaled = offsets / np.array(self.weights, offsets.dtype)
        centre = scaled[..., :2] * sides + middle
        extent = np.exp(np.minimum(scaled[..., 2:], self.clamp)) * sides
        return np.concatenate([centre - extent / 2, centre + extent / 2], -1)


@dataclass(frozen=True)
class DecodeBoxesBackward(Operator, kernel="decode_boxes_backward"):
    """The gradient of DecodeBoxes for the offsets, from dy, offsets and boxes."""

    weights: Weights
    clamp: float

    def infer(self, dy: TensorType, offsets: TensorType, boxes: TensorType) -> TensorType:
        _check_rows("offsets", offsets, boxes)
        require(dy.shape == offsets.shape, f"dy must have shape {offsets.shape}, has {dy.shape}")
        return offsets

    def reference(self, dy: Array, offsets: Array, boxes: Array) -> Array:
        _, sides = _centre(_spread(boxes, offsets.shape))
        weights = np.array(self.weights, offsets.dtype)
        scaled = (offsets / weights)[..., 2:]
        extent = np.exp(np.minimum(scaled, self.clamp)) * sides
        moved = (dy[..., :2] + dy[..., 2:]) * sides
        grown = np.where(scaled <= self.clamp, (dy[..., 2:] - dy[..., :2]) / 2 * extent, 0)
        result: Array = np.concatenate([moved, grown], -1) / weights
        return result


@dataclass(frozen=True)
class ClipBoxes(Operator, kernel="clip_boxes"):
    """Boxes cut off at the borders of their image."""

    def infer(self, boxes: TensorType, image_sizes: TensorType) -> TensorType:
        require(
            boxes.rank >= 2 and boxes.shape[-1] == 4 and boxes.dtype.is_float,
            f"boxes must be float [N, ..., 4], is {boxes}",
        )
        require(
            image_sizes.shape == (boxes.shape[0], 2) and image_sizes.dtype == DType.int32,
            f"image_sizes must be int32[{boxes.shape[0]},2], is {image_sizes}",
        )
        return boxes

    def may_overwrite(
        self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]
    ) -> Sequence[tuple[int, int]]:
        return [(0, 0)]

    def reference(self, boxes: Array, image_sizes: Array) -> Array:
        limit = image_sizes[:, [1, 0, 1, 0]].astype(boxes.dtype)
        limit = limit.reshape(-1, *[1] * (boxes.ndim - 2), 4)
        clipped: Array = np.minimum(np.maximum(boxes, 0), limit)
        return clipped


def encode_boxes(target: Var, boxes: Var, weights: Weights = (1.0, 1.0, 1.0, 1.0)) -> Var:
    """Offsets (dx, dy, dw, dh) from boxes to target: [..., 4], the shape of target.

    dx = wx * (centre of target - centre of box) / width of box; dw = ww * log(width ratio).
    Boxes are x1, y1, x2, y2; `boxes` has target's shape, or lacks its first axis. A row with a
    box or target without area gives 0. No gradients. Source: Girshick et al. 2014 (R-CNN).
    """
    result: Var = EncodeBoxes(_weights(weights))(target, boxes)
    return result


def decode_boxes(
    offsets: Var,
    boxes: Var,
    weights: Weights = (1.0, 1.0, 1.0, 1.0),
    *,
    clamp: float = LARGEST_LOG_SIDE,
) -> Var:
    """Boxes moved by offsets (dx, dy, dw, dh): x1, y1, x2, y2 of the offsets' shape [..., 4].

    boxes: the offsets' shape, or without its first axis (anchors [A, 4] for [N, A, 4]), or without
    its last but one (one box for the offsets of K classes: [N, R, 4] for [N, R, K, 4]).
    clamp: the largest log of a side's growth. The gradient goes to the offsets alone.
    """
    result: Var = DecodeBoxes(_weights(weights), float(clamp))(offsets, boxes)
    return result


def clip_boxes(boxes: Var, image_sizes: Var) -> Var:
    """boxes [N, ..., 4] clipped to [0, width] and [0, height]; image_sizes int32[N, 2] (h, w)."""
    result: Var = ClipBoxes()(boxes, image_sizes)
    return result


def _weights(weights: Sequence[float]) -> Weights:
    x, y, w, h = (float(v) for v in weights)
    return x, y, w, h
