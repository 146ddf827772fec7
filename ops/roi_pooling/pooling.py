"""What poolings of boxes share: their inputs, and sums over pixels whose weights are a product."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from megbrain_py.dtypes import Array, DType, Layout, Shape, TensorType
from megbrain_py.errors import require
from megbrain_py.graph import Node, Var, constant
from megbrain_py.ops.conv.geometry import refuse
from megbrain_py.ops.match_boxes.match_boxes import boxes_of_objects
from megbrain_py.ops.roi_pooling.levels import Pyramid


@dataclass(frozen=True)
class RoiPooling(Pyramid):
    """Base: boxes of images are cut into `size` bins, each on the map of its level.

    The inputs of all of them end with rois [N, R, 4], their count [N] and, if the caller chooses
    the levels, level [N, R].
    """

    size: tuple[int, int]

    own_maps: ClassVar[bool] = (
        False  # image i of the maps belongs to box i, not to the boxes' image
    )

    @property
    def fields(self) -> dict[str, Any]:
        """What an operator of the same boxes needs: all fields but `shapes`, those of the maps."""
        names = [field.name for field in dataclasses.fields(self) if field.name != "shapes"]
        return {name: getattr(self, name) for name in names}

    def attrs(self) -> dict[str, Any]:
        values = super().attrs()
        values.pop("shapes", None)  # the kernel sees its outputs
        return values

    def split(self, inputs: Sequence[Any], before: int) -> tuple[list[Any], list[Any]]:
        """(the `before` first inputs; rois, count and perhaps level)."""
        found = len(inputs) - before
        require(found in (2, 3), f"takes feature maps, rois and count, found {len(inputs)} inputs")
        return list(inputs[:before]), list(inputs[before:])

    def check(self, boxes: Sequence[TensorType], shapes: Sequence[Shape]) -> None:
        """Refuse what does not fit; `shapes` are those of the feature maps."""
        rois, count = boxes[:2]
        require(min(self.size) >= 1, f"the output must be at least 1x1, is {self.size}")
        require(len(shapes) >= 1, "at least one feature map is needed")
        require(
            len(self.scales) == len(shapes),
            f"{len(shapes)} feature maps, {len(self.scales)} scales",
        )
        self.check_pyramid()
        require(all(len(s) == 4 for s in shapes), "feature maps must be [N, C, H, W]")
        first = shapes[0][:2]
        require(
            all(s[:2] == first and min(s[2:]) >= 1 for s in shapes),
            f"feature maps must share N and C and have pixels, are {', '.join(map(str, shapes))}",
        )
        require(rois.dtype.is_float, f"rois must be a float tensor, is {rois.dtype}")
        if self.own_maps:
            require(
                rois.rank == 3 and rois.shape[2] == 4 and rois.shape[0] * rois.shape[1] == first[0],
                f"boxes must be [N, R, 4] with N * R = {first[0]}, is {rois}",
            )
        else:
            require(
                rois.rank == 3 and rois.shape[0] == first[0] and rois.shape[2] == 4,
                f"rois must be [{first[0]}, R, 4], is {rois}",
            )
        images = rois.shape[0]
        require(
            count.shape == (images,) and count.dtype == DType.int32,
            f"count must be int32[{images}], is {count}",
        )
        for level in boxes[2:]:
            require(
                level.shape == rois.shape[:2] and level.dtype == DType.int32,
                f"level must be int32[{rois.shape[0]}, {rois.shape[1]}], is {level}",
            )

    def typical(self, inputs: Sequence[TensorType]) -> Sequence[Array | None]:
        made: list[Array | None] = [None] * len(inputs)
        at = next(i for i, t in enumerate(inputs) if t.rank == 3)
        images, rows = inputs[at].shape[:2]
        made[at] = boxes_of_objects(images, rows).astype(inputs[at].dtype.numpy)
        made[at + 1] = np.full(images, rows, np.int32)
        return made

    def pooled(self, rois: TensorType, features: Shape) -> Shape:
        """The shape of the bins of all boxes."""
        return (rois.shape[0] * rois.shape[1], features[1], *self.size)

    def valid(self, boxes: Sequence[Array]) -> Iterator[tuple[int, int, int, Array]]:
        """(row of the output, image of the maps, level, box in float64) of each box with a map."""
        rois, count = boxes[:2]
        rows = rois.shape[1]
        for n in range(rois.shape[0]):
            for r in range(min(int(count[n]), rows)):
                box = rois[n, r].astype(np.float64)
                level = int(boxes[2][n, r]) if len(boxes) > 2 else self.level_of(box)
                if 0 <= level < len(self.scales):
                    yield n * rows + r, n * rows + r if self.own_maps else n, level, box


@dataclass(frozen=True)
class Linear(RoiPooling):
    """Base: a bin is a sum over pixels, each weighted by a factor in y times a factor in x."""

    @abstractmethod
    def weights(self, low: float, high: float, scale: float, bins: int, pixels: int) -> Array:
        """float64[bins, pixels] along one axis for a box from low to high in the image."""

    def both(self, box: Array, level: int, shape: Shape) -> tuple[Array, Array]:
        """The weights of a box in y and in x."""
        scale = self.scales[level]
        with np.errstate(invalid="ignore", over="ignore"):  # boxes that are not numbers
            return (
                self.weights(box[1], box[3], scale, self.size[0], shape[2]),
                self.weights(box[0], box[2], scale, self.size[1], shape[3]),
            )


@dataclass(frozen=True)
class LinearPooling(Linear):
    """Base: features of every level, rois, count[, level] -> [N * R, C, height, width]."""

    adjoint: ClassVar[type[LinearAdjoint]]

    def infer(self, *inputs: TensorType) -> TensorType:
        features, boxes = self.split(inputs, len(self.scales))
        self.check(boxes, [t.shape for t in features])
        dtype = features[0].dtype
        require(
            dtype.is_float and all(t.dtype == dtype for t in (*features, boxes[0])),
            "feature maps and rois must have one float type",
        )
        return TensorType(self.pooled(boxes[0], features[0].shape), dtype)

    def layouts(self, inputs: Sequence[TensorType]) -> tuple[Sequence[Layout], Sequence[Layout]]:
        return maps_and_boxes(inputs, len(self.scales)), ["channels_last"]

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        features, boxes = self.split(node.inputs, len(self.scales))
        made = self.adjoint(**self.fields, shapes=tuple(v.shape for v in features))(dy[0], *boxes)
        return [*(made if isinstance(made, tuple) else [made]), *([None] * len(boxes))]

    def reference(self, *inputs: Array) -> Array:
        features, boxes = self.split(inputs, len(self.scales))
        y = np.zeros(self.pooled(boxes[0], features[0].shape), features[0].dtype)
        for row, n, level, box in self.valid(boxes):
            in_y, in_x = self.both(box, level, features[level].shape)
            y[row] = in_y @ features[level][n].astype(np.float64) @ in_x.T
        return y


@dataclass(frozen=True)
class LinearAdjoint(Linear):
    """Base: the gradient of a LinearPooling for every map: dy, rois, count[, level] -> maps."""

    shapes: tuple[Shape, ...]

    forward: ClassVar[type[LinearPooling]]

    def infer(self, *inputs: TensorType) -> list[TensorType]:
        (dy,), boxes = self.split(inputs, 1)
        self.check(boxes, self.shapes)
        expected = self.pooled(boxes[0], self.shapes[0])
        require(dy.shape == expected, f"dy must have shape {expected}, has {dy.shape}")
        require(dy.dtype.is_float, f"dy must be a float tensor, is {dy.dtype}")
        return [TensorType(shape, dy.dtype) for shape in self.shapes]

    def layouts(self, inputs: Sequence[TensorType]) -> tuple[Sequence[Layout], Sequence[Layout]]:
        return maps_and_boxes(inputs, 1), ["channels_last"] * len(self.shapes)

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        boxes = node.inputs[1:]
        outputs = zip(node.outputs, dy, strict=True)
        maps = [constant(np.zeros(v.shape, v.dtype.numpy)) if d is None else d for v, d in outputs]
        return [self.forward(**self.fields)(*maps, *boxes), *([None] * len(boxes))]

    def reference(self, *inputs: Array) -> list[Array]:
        (dy,), boxes = self.split(inputs, 1)
        maps = [np.zeros(shape) for shape in self.shapes]
        for row, n, level, box in self.valid(boxes):
            in_y, in_x = self.both(box, level, self.shapes[level])
            maps[level][n] += in_y.T @ dy[row].astype(np.float64) @ in_x
        return [m.astype(dy.dtype) for m in maps]


def maps_and_boxes(inputs: Sequence[TensorType], maps: int) -> list[Layout]:
    """The layouts of `maps` inputs that hold pixels, and of the others after them."""
    pixels: list[Layout] = ["channels_last"] * maps
    others: list[Layout] = ["rows"] * (len(inputs) - maps)
    return pixels + others


def pool(op: RoiPooling, features: Sequence[Var], rois: Var, count: Var, level: Var | None) -> Any:
    """Apply a pooling to its inputs."""
    if len(features) != len(op.scales):
        raise refuse(op.name, f"{len(features)} feature maps, {len(op.scales)} scales")
    return op(*features, rois, count, *([] if level is None else [level]))
