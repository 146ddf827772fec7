"""Masks of objects: cropped for a training batch, and from a detector's boxes back to pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from megbrain_py.data.coco import Annotation, ImageEntry, Polygons, decode_mask, run_lengths
from megbrain_py.data.transforms import Draw
from megbrain_py.errors import DataError

THRESHOLD = 0.5  # a pixel belongs to a detected object when the mask says more


@dataclass(frozen=True)
class CroppedMask:
    """A mask within the rectangle outside of which it is 0; its corner's place in the picture."""

    top: int
    left: int
    pixels: npt.NDArray[np.uint8]  # [h, w], 0 or 1


def require_masks(image: ImageEntry, objects: Sequence[Annotation], where: object) -> None:
    """DataError names the first object without a segmentation."""
    for found in objects:
        if found.segmentation is None:
            raise DataError(
                f"{where}: annotation {found.id} of image {image.id} has no segmentation, which a "
                "mask head learns from"
            )


def extents(image: ImageEntry, objects: Sequence[Annotation]) -> npt.NDArray[np.float64]:
    """[n, 2]: height and width of rectangles that hold the masks, as shares of the picture's.

    No mask is filled, so that it is quick for a whole data set.
    """
    size = np.array([image.height, image.width], np.float64)
    sides = np.zeros((len(objects), 2))
    for n, found in enumerate(objects):
        if isinstance(found.segmentation, Polygons):
            points = np.concatenate(found.segmentation.parts).reshape(-1, 2)[:, ::-1]
            low, high = np.floor(points.min(0)) - 1, np.ceil(points.max(0)) + 1
            sides[n] = np.minimum(high, size) - np.maximum(low, 0)
        elif found.segmentation is not None:
            from pycocotools import mask as coco_mask

            to_box: Any = coco_mask.toBbox  # pycocotools has no annotations
            *_, w, h = to_box(run_lengths(found.segmentation, image.height, image.width))
            sides[n] = h, w
    return sides.clip(0) / size


def capacity(shares: npt.NDArray[np.float64], height: int, width: int) -> int:
    """Pixels that are enough for cropped masks of these `extents` in a picture of this size."""
    rows, columns = (np.ceil(shares * [height, width]) + 1).T
    return int((rows * columns).sum())


def crop(mask: npt.NDArray[Any], top: int = 0, left: int = 0) -> CroppedMask:
    """The rectangle of a mask's pixels; without any an empty one. `top`, `left` of the mask."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return CroppedMask(0, 0, np.zeros((0, 0), np.uint8))
    inner = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return CroppedMask(top + int(rows[0]), left + int(columns[0]), inner.astype(np.uint8))


def own_masks(image: ImageEntry, objects: Sequence[Annotation]) -> list[CroppedMask]:
    """The objects' masks in pixels of the original picture, as pycocotools fills them."""
    found = []
    for one in objects:
        assert one.segmentation is not None
        found.append(crop(decode_mask(one.segmentation, image.height, image.width)))
    return found


def _source(size: int, out: int) -> npt.NDArray[np.int64]:
    """Which pixel each of `out` pixels takes: torch's nearest, floor(i * size / out) in float32."""
    step = np.float32(size / out)
    at = np.floor(np.arange(out, dtype=np.float32) * step).astype(np.int64)
    return np.asarray(np.minimum(at, size - 1))


def training_masks(
    image: ImageEntry, masks: Sequence[CroppedMask], drawn: Draw
) -> list[CroppedMask]:
    """The masks as `training_boxes` treats boxes: resized (nearest, as torchvision), flipped."""
    rows = _source(image.height, drawn.height)
    columns = _source(image.width, drawn.width)
    result = []
    for mask in masks:
        height, width = mask.pixels.shape
        top, bottom = np.searchsorted(rows, [mask.top, mask.top + height])
        left, right = np.searchsorted(columns, [mask.left, mask.left + width])
        pixels = mask.pixels[rows[top:bottom, None] - mask.top, columns[left:right] - mask.left]
        if drawn.flip:
            pixels, left = pixels[:, ::-1], drawn.width - right
        result.append(CroppedMask(int(top), int(left), pixels))
    return result


def pack(
    masks: Sequence[CroppedMask],
    pixels: npt.NDArray[np.uint8],
    places: npt.NDArray[np.int32],
) -> None:
    """Lay masks one after the other into pixels uint8[P]; places int32[G, 5]: see mask_targets."""
    at = 0
    for n, mask in enumerate(masks):
        size = mask.pixels.size
        pixels[at : at + size] = mask.pixels.reshape(-1)
        places[n] = at, mask.top, mask.left, *mask.pixels.shape
        at += size


# --- from a detector's maps to pictures ---


def _resize(mask: npt.NDArray[np.float32], height: int, width: int) -> npt.NDArray[np.float32]:
    """Bilinear, align_corners=False: torch.nn.functional.interpolate on one map."""

    def taps(size: int, out: int) -> tuple[Any, Any, npt.NDArray[np.float32]]:
        at = (np.arange(out, dtype=np.float32) + 0.5) * np.float32(size / out) - 0.5
        at = np.maximum(at, 0, dtype=np.float32)
        low = np.minimum(at.astype(np.int64), size - 1)
        return low, np.minimum(low + 1, size - 1), (at - low).astype(np.float32)

    y0, y1, wy = taps(mask.shape[0], height)
    x0, x1, wx = taps(mask.shape[1], width)
    rows = mask[y0] * (1 - wy)[:, None] + mask[y1] * wy[:, None]
    return np.asarray(rows[:, x0] * (1 - wx) + rows[:, x1] * wx, np.float32)


def paste(
    mask: npt.NDArray[np.float32], box: npt.ArrayLike, height: int, width: int
) -> tuple[int, int, npt.NDArray[np.float32]]:
    """A map of a box x1, y1, x2, y2 at its place: top, left and what is within the picture.

    Semantics: torchvision's paste_masks_in_image: a border of one 0, the box enlarged likewise
    and truncated to whole pixels, bilinear.
    """
    size = mask.shape[0]
    padded = np.pad(np.asarray(mask, np.float32), 1)
    scale = np.float32((size + 2) / size)
    x1, y1, x2, y2 = np.asarray(box, np.float32)
    half = np.array([x2 - x1, y2 - y1], np.float32) * np.float32(0.5) * scale
    middle = np.array([x2 + x1, y2 + y1], np.float32) * np.float32(0.5)
    left, top = np.trunc(middle - half).astype(np.int64).tolist()
    right, bottom = np.trunc(middle + half).astype(np.int64).tolist()
    whole = _resize(padded, max(bottom - top + 1, 1), max(right - left + 1, 1))
    y, x = max(top, 0), max(left, 0)
    inside = whole[y - top : max(height - top, 0), x - left : max(width - left, 0)]
    return y, x, inside


def paste_window(
    mask: npt.NDArray[np.float32],
    window: npt.ArrayLike,
    box: npt.ArrayLike,
    size: Sequence[int],
    seen: Sequence[int],
) -> tuple[int, int, npt.NDArray[np.float32]]:
    """A map that is said of pixels of a pyramid: top, left and what lies in the box.

    window: x and y of the first pixel's middle and the distance of two, in pixels of the picture
    as the network saw it, of (height, width) `seen`; box: x1, y1, x2, y2 in the picture of `size`.
    Bilinear in absolute coordinates; 0 beyond the map, and outside of the box.
    """
    x0, y0, stride = (float(v) for v in np.asarray(window))
    x1, y1, x2, y2 = (float(v) for v in np.asarray(box))
    top, bottom = math.ceil(max(y1, 0) - 0.5), math.floor(min(y2, size[0]) - 0.5) + 1
    left, right = math.ceil(max(x1, 0) - 0.5), math.floor(min(x2, size[1]) - 0.5) + 1

    def weights(first: int, end: int, axis: int, corner: float) -> npt.NDArray[np.float32]:
        """[pixels of the picture, pixels of the map]: a hat about each."""
        at = (np.arange(first, max(end, first)) + 0.5) * (seen[axis] / size[axis]) - 0.5
        apart = (at[:, None] - corner) / stride - np.arange(mask.shape[axis])
        return np.asarray(np.maximum(1 - np.abs(apart), 0), np.float32)

    inside = weights(top, bottom, 0, y0) @ mask @ weights(left, right, 1, x0).T
    return top, left, np.asarray(inside, np.float32)


def encode(
    mask: npt.NDArray[np.bool_], top: int, left: int, height: int, width: int
) -> dict[str, Any]:
    """Compressed run lengths of a mask at its place in a picture of height x width."""
    from pycocotools import mask as coco_mask

    rows, columns = mask.shape
    # A row of 0 below ends every run within its column; positions are then those of the picture.
    flat = np.zeros((columns, rows + 1), np.int8)
    flat[:, :rows] = mask.T
    ends = np.flatnonzero(np.diff(flat.reshape(-1), prepend=0))
    at = (left + ends // (rows + 1)) * height + top + ends % (rows + 1)
    at, times = np.unique(at, return_counts=True)  # twice: from the lowest row to the next column
    counts = np.diff(at[times == 1], prepend=0, append=height * width).tolist()
    if counts[-1] == 0:
        counts.pop()
    plain: Any = {"size": [height, width], "counts": counts}
    return dict(coco_mask.frPyObjects(plain, height, width))


def decode(encoded: dict[str, Any]) -> npt.NDArray[np.bool_]:
    """bool[height, width]: what compressed run lengths say."""
    from pycocotools import mask as coco_mask

    decoder: Any = coco_mask.decode  # pycocotools has no annotations
    return np.asarray(decoder(encoded), np.bool_)
