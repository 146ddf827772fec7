"""Transforms of pictures and boxes; every draw comes from (seed, epoch, image id)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from megbrain_py.data.coco import Annotation, ImageEntry
from megbrain_py.data.images import open_rgb
from megbrain_py.errors import DataError

Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.float32]  # [height, width, 3], 0..255, RGB
Floats = npt.NDArray[np.float32]

MEAN = (0.485, 0.456, 0.406)  # ImageNet, RGB in 0..1
STD = (0.229, 0.224, 0.225)
_GREY = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R 601, as Pillow and torchvision


@dataclass(frozen=True)
class Resize:
    """The shorter side becomes `short_side` pixels unless the longer would exceed `long_side`.

    `method` "pillow" averages over what a pixel covers when it shrinks a picture; "torchvision"
    is exactly its detection transform (bilinear, align_corners=False, no averaging), slower.
    """

    short_side: int = 800
    long_side: int = 1333
    method: Literal["pillow", "torchvision"] = "pillow"

    def __post_init__(self) -> None:
        if not 1 <= self.short_side <= self.long_side:
            raise DataError(
                f"resize: short_side {self.short_side} is not in 1..long_side {self.long_side}"
            )
        if self.method not in ("pillow", "torchvision"):
            raise DataError(f"resize: method '{self.method}' is neither pillow nor torchvision")

    def size(self, height: int, width: int, short_side: int | None = None) -> tuple[int, int]:
        """(height, width) of a picture afterwards, maybe with a shorter side that was drawn.

        Where that is larger than usual, the longer side may be larger in the same proportion.
        """
        side = self.short_side if short_side is None else short_side
        longest = max(self.long_side, self.long_side * side // self.short_side)
        return resized_size(height, width, side, longest)


@dataclass(frozen=True)
class Augmentation:
    """What is drawn anew for each picture in each epoch.

    flip: probability of a horizontal flip. short_sides: the shorter side is one of these instead
    of Resize.short_side (each equally likely), for each picture, or with `per_batch` the same for
    all of a batch. short_side_range: or any whole number from..to. brightness, contrast,
    saturation: a factor in [1 - value, 1 + value] each.
    """

    flip: float = 0.5
    short_sides: tuple[int, ...] = ()
    short_side_range: tuple[int, int] | None = None
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    per_batch: bool = False

    def __post_init__(self) -> None:
        for name in ("flip", "brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) <= 1:
                raise DataError(f"augmentation: {name} {getattr(self, name)} is not in 0..1")
        if self.short_sides and self.short_side_range:
            raise DataError("augmentation: give short_sides or short_side_range, not both")
        if min(self.possible_short_sides(1)) < 1:
            raise DataError("augmentation: short sides must be at least 1 pixel, lowest first")

    def possible_short_sides(self, default: int) -> tuple[int, ...]:
        """Every shorter side that can be drawn, ascending."""
        if self.short_side_range is not None:
            low, high = self.short_side_range
            return tuple(range(low, high + 1)) or (0,)
        return tuple(sorted(set(self.short_sides))) or (default,)


@dataclass(frozen=True)
class Draw:
    """What was drawn for one picture in one epoch."""

    height: int
    width: int
    flip: bool = False
    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0


def resized_size(height: int, width: int, short_side: int, long_side: int) -> tuple[int, int]:
    """(height, width) after the resize; torchvision's rule, floor in double precision included."""
    scale = min(short_side / min(height, width), long_side / max(height, width))
    return max(1, math.floor(height * scale)), max(1, math.floor(width * scale))


def generator(seed: int, *key: int) -> np.random.Generator:
    """Random numbers that depend on these whole numbers only."""
    words = [int(n) & 0xFFFFFFFFFFFFFFFF for n in (seed, *key)]
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(words)))


def draw(
    image: ImageEntry,
    resize: Resize,
    augmentation: Augmentation | None,
    seed: int,
    epoch: int,
    *,
    copy: int = 0,
    short_side: int | None = None,
) -> Draw:
    """What happens to a picture in an epoch: a function of (seed, epoch, image id, copy) only.

    The same numbers are used up whatever is switched on, so one setting never changes another's.
    copy: 1, 2, ... when the epoch takes the picture again. short_side: drawn for the whole batch.
    """
    if augmentation is None:
        return Draw(*resize.size(image.height, image.width))
    u = generator(seed, epoch, image.id, *([copy] if copy else [])).random(5)
    sides = augmentation.possible_short_sides(resize.short_side)
    side = sides[int(u[0] * len(sides))] if short_side is None else short_side

    def factor(uniform: float, spread: float) -> float:
        return 1.0 + spread * (2.0 * uniform - 1.0)

    return Draw(
        *resize.size(image.height, image.width, side),
        flip=bool(u[1] < augmentation.flip),
        brightness=factor(u[2], augmentation.brightness),
        contrast=factor(u[3], augmentation.contrast),
        saturation=factor(u[4], augmentation.saturation),
    )


def side_of_batch(
    resize: Resize, augmentation: Augmentation | None, seed: int, epoch: int, number: int
) -> int | None:
    """The shorter side of all pictures of an epoch's batch; None where each draws its own."""
    if augmentation is None or not augmentation.per_batch:
        return None
    sides = augmentation.possible_short_sides(resize.short_side)
    return sides[int(generator(seed, epoch, number, -1).random() * len(sides))]


def bilinear(pixels: Pixels, height: int, width: int) -> Floats:
    """float32[height, width, 3] as torch.nn.functional.interpolate: align_corners=False, no
    antialias; src = (dst + 0.5) * in / out - 0.5, clamped at 0."""

    def weights(size: int, out: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], Floats]:
        ratio = np.float32(size / out)
        source = np.maximum((np.arange(out, dtype=np.float32) + 0.5) * ratio - 0.5, 0)
        low = np.minimum(source.astype(np.intp), size - 1)
        return low, np.minimum(low + 1, size - 1), (source - low).astype(np.float32)

    x0, x1, wx = weights(pixels.shape[1], width)
    y0, y1, wy = weights(pixels.shape[0], height)
    values = pixels.astype(np.float32)
    rows = values[:, x0] * (1 - wx)[None, :, None] + values[:, x1] * wx[None, :, None]
    return np.asarray(rows[y0] * (1 - wy)[:, None, None] + rows[y1] * wy[:, None, None], np.float32)


def load_resized(path: Path, image: ImageEntry, height: int, width: int, method: str) -> Pixels:
    """The picture of this size, 0..255; uint8 from "pillow", float32 from "torchvision"."""
    from PIL import Image

    picture = open_rgb(path, (image.height, image.width))
    if method == "torchvision":
        return bilinear(np.asarray(picture, np.uint8), height, width)
    if (picture.height, picture.width) != (height, width):
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(picture, np.uint8)


def jitter_colours(pixels: Pixels, drawn: Draw) -> Pixels:
    """Brightness, then contrast about the mean grey, then saturation; clipped to 0..255."""
    if drawn.brightness == drawn.contrast == drawn.saturation == 1.0:
        return pixels
    values = pixels.astype(np.float32)
    if drawn.brightness != 1.0:
        values = np.clip(values * np.float32(drawn.brightness), 0, 255)
    if drawn.contrast != 1.0:
        mean = np.float32((values @ _GREY).mean())
        values = np.clip(mean + (values - mean) * np.float32(drawn.contrast), 0, 255)
    if drawn.saturation != 1.0:
        grey = (values @ _GREY)[..., None]
        values = np.clip(grey + (values - grey) * np.float32(drawn.saturation), 0, 255)
    return values


def normalise_into(
    out: Floats, pixels: Pixels, mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    """out[3, H, W] = (pixels / 255 - mean) / std in its top left corner; the rest stays."""
    height, width = pixels.shape[:2]
    for channel in range(3):
        target = out[channel, :height, :width]
        np.multiply(pixels[..., channel], np.float32(1 / (255 * std[channel])), out=target)
        target -= np.float32(mean[channel] / std[channel])


def training_objects(image: ImageEntry, smallest: float = 1e-3) -> list[Annotation]:
    """What is learnt from a picture: no crowds, no boxes with a side of at most `smallest` pixels
    inside the picture."""

    def sides(box: tuple[float, float, float, float]) -> tuple[float, float]:
        x1, x2 = (min(max(x, 0.0), image.width) for x in box[0::2])
        y1, y2 = (min(max(y, 0.0), image.height) for y in box[1::2])
        return x2 - x1, y2 - y1

    return [a for a in image.objects if not a.crowd and min(sides(a.box)) > smallest]


def training_boxes(image: ImageEntry, drawn: Draw) -> tuple[Floats, npt.NDArray[np.int32]]:
    """float32[n, 4] boxes (x1, y1, x2, y2 in resized pixels) and int32[n] labels of a picture's
    `training_objects`: clipped to the picture, scaled per axis, flipped."""
    objects = training_objects(image)
    boxes = np.array([found.box for found in objects], np.float64).reshape(-1, 4)
    labels = np.array([found.label for found in objects], np.int32)
    boxes[:, 0::2] = boxes[:, 0::2].clip(0, image.width)
    boxes[:, 1::2] = boxes[:, 1::2].clip(0, image.height)
    boxes[:, 0::2] *= drawn.width / image.width
    boxes[:, 1::2] *= drawn.height / image.height
    if drawn.flip:
        boxes[:, 0::2] = drawn.width - boxes[:, 2::-2]
    return boxes.astype(np.float32), labels
