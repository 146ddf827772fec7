"""Make the demo data set: real handwritten digits on real photographs, in COCO format.

The digits (8x8 grey, from scikit-learn's copy of the UCI handwritten digits) are enlarged to 10 to
64 pixels, turned, coloured and laid over each other on crops of scikit-learn's two sample
photographs. Training and validation share neither a digit nor a part of a photograph.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from megbrain_py.data.transforms import generator
from megbrain_py.errors import DataError

Floats = npt.NDArray[np.float32]
_Box = tuple[int, int, int, int]  # x1, y1, x2, y2

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_VALIDATION_DIGITS = 0.3  # of the digits of each class
_LARGER = 0.75  # below 1: more large digits than a log-uniform size has (median 30 pixels)
_LARGEST_SWALLOWED = 0.15  # part of the pixels under a digit that are nearly as grey as it
_GREY = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class SceneStyle:
    """How a scene looks; sizes in pixels of the finished picture."""

    size: int = 128
    objects: tuple[int, int] = (1, 8)
    digit_size: tuple[float, float] = (10.0, 64.0)  # longer side of a digit's box
    largest_turn: float = 25.0  # degrees either way; more would mix up 6 and 9
    contrast: float = 0.35  # least difference of grey to the background under the digit, of 1
    largest_iou: float = 0.3  # of the boxes of two digits
    least_visible: float = 0.75  # part of a digit that later digits together leave visible


@dataclass(frozen=True)
class _Sources:
    digits: tuple[tuple[Floats, ...], ...]  # for each class the 8x8 pictures, 0..1
    photographs: tuple[npt.NDArray[np.uint8], ...]  # [height, width, 3]


@dataclass
class _Placed:
    label: int
    box: _Box  # of the visible part
    pixels: npt.NDArray[np.bool_]  # the visible part in the whole scene
    area: int  # pixels before anything covered it


def _sources() -> tuple[_Sources, _Sources]:
    """Digits and photographs of training and of validation."""
    try:
        from sklearn import datasets
    except ImportError as error:
        raise DataError(
            "digit scenes need scikit-learn: pip install scikit-learn (or megbrain_py[demo])"
        ) from error
    load: Any = datasets  # without annotations of types
    data = load.load_digits()
    pictures = (data.images / 16.0).astype(np.float32)
    photographs = [np.asarray(p, np.uint8) for p in load.load_sample_images().images]
    halves = [p.shape[1] // 2 for p in photographs]
    train, val = [], []
    for digit in range(10):
        own = pictures[data.target == digit]
        # The file goes from writer to writer, so the cut also parts most of the writers.
        cut = round(len(own) * (1 - _VALIDATION_DIGITS))
        train.append(tuple(own[:cut]))
        val.append(tuple(own[cut:]))
    return (
        _Sources(tuple(train), tuple(p[:, :h] for p, h in zip(photographs, halves, strict=True))),
        _Sources(tuple(val), tuple(p[:, h:] for p, h in zip(photographs, halves, strict=True))),
    )


def _background(sources: _Sources, size: int, rng: np.random.Generator) -> Floats:
    """A crop of a photograph: any place, 0.75 to 1.5 times the size, mirrored or not, darker or
    brighter; float32[size, size, 3] in 0..1."""
    from PIL import Image

    photograph = sources.photographs[int(rng.random() * len(sources.photographs))]
    height, width = photograph.shape[:2]
    side = min(int(size * (0.75 + 0.75 * rng.random())), height, width)
    y, x = int(rng.random() * (height - side + 1)), int(rng.random() * (width - side + 1))
    crop = Image.fromarray(photograph[y : y + side, x : x + side])
    pixels = np.asarray(crop.resize((size, size), Image.Resampling.BICUBIC), np.float32) / 255
    if rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    return np.asarray(np.clip(pixels * (0.7 + 0.5 * rng.random()), 0, 1), np.float32)


def _digit(picture: Floats, size: float, turn: float) -> Floats:
    """The opacity of a digit, 0..1, whose upright box has this longer side, turned by
    degrees and cut out tightly."""
    from PIL import Image

    inked = np.argwhere(picture > 0.25)
    (top, left), (bottom, right) = inked.min(axis=0), inked.max(axis=0) + 1
    scale = size / max(bottom - top, right - left)
    work = 4  # pixels around the 8x8, so that nothing is lost at the border
    canvas = np.pad(picture, work)
    side = max(8, round(canvas.shape[0] * scale))
    smooth = Image.fromarray(canvas).resize((side, side), Image.Resampling.BICUBIC)
    turned = np.asarray(smooth.rotate(turn, Image.Resampling.BILINEAR), np.float32)
    # A steeper edge than the enlarged grey values have: strokes with a border, not fog.
    steep = 1 + 0.5 * scale
    opacity = np.clip((turned - 0.45) * steep + 0.5, 0, 1)
    solid = np.argwhere(opacity > 0.5)
    if not len(solid):
        return np.zeros((0, 0), np.float32)
    (top, left), (bottom, right) = solid.min(axis=0), solid.max(axis=0) + 1
    return np.asarray(opacity[top:bottom, left:right], np.float32)


def _colour(under: Floats, style: SceneStyle, rng: np.random.Generator) -> Floats | None:
    """A colour that stands out from what lies under the digit's box, or None if none was found.

    Its grey differs from the mean by at least `contrast`, and by half of that from most pixels, so
    that neither a photograph's texture nor another digit swallows a stroke.
    """
    greys = under.reshape(-1, 3) @ _GREY
    mean, least = float(greys.mean()), style.contrast
    for _ in range(4):
        brighter = rng.random() < 0.5
        part = rng.random()
        if mean + least > 1 or (mean - least >= 0 and not brighter):
            target = (mean - least) * part
        else:
            target = mean + least + (1 - mean - least) * part
        if (np.abs(greys - target) < least / 2).mean() <= _LARGEST_SWALLOWED:
            break
    else:
        return None
    tint = rng.random(3).astype(np.float32) - np.float32(0.5)
    tint -= tint @ _GREY  # changes the hue, not the grey
    room = [(1 - target) / t if t > 0 else -target / t for t in tint.tolist() if abs(t) > 1e-6]
    return np.asarray(target + tint * min([1.0, *room]), np.float32)


def _box(pixels: npt.NDArray[np.bool_]) -> _Box:
    """x1, y1, x2, y2 of the true pixels; there must be one."""
    rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _iou(a: _Box, b: _Box) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def _longer(box: _Box) -> int:
    return max(box[2] - box[0], box[3] - box[1])


def _fits(
    placed: list[_Placed], box: _Box, pixels: npt.NDArray[np.bool_], style: SceneStyle
) -> bool:
    """Whether a digit with this box and these pixels may lie over the others."""
    for other in placed:
        if _iou(box, other.box) > style.largest_iou:
            return False
        if _iou(box, other.box) == 0:
            continue
        left = other.pixels & ~pixels
        if (
            left.sum() < style.least_visible * other.area
            or _longer(_box(left)) < style.digit_size[0]
        ):
            return False
    return True


def _scene(
    sources: _Sources, style: SceneStyle, rng: np.random.Generator
) -> tuple[npt.NDArray[np.uint8], list[_Placed]]:
    """One picture, uint8[size, size, 3], and its digits."""
    size = style.size
    scene = _background(sources, size, rng)
    low, high = style.objects
    wanted = low + int(rng.random() * (high - low + 1))
    placed: list[_Placed] = []
    for _ in range(20 * wanted):
        if len(placed) == wanted:
            break
        label = int(rng.random() * 10)
        own = sources.digits[label]
        shortest, longest = style.digit_size
        opacity = _digit(
            own[int(rng.random() * len(own))],
            shortest * (longest / shortest) ** (rng.random() ** _LARGER),
            style.largest_turn * (2 * rng.random() - 1),
        )
        height, width = opacity.shape
        y, x = int(rng.random() * (size - height + 1)), int(rng.random() * (size - width + 1))
        if not shortest <= max(height, width) <= min(longest, size) or min(height, width) < 2:
            continue
        pixels = np.zeros((size, size), np.bool_)
        pixels[y : y + height, x : x + width] = opacity > 0.5
        box = (x, y, x + width, y + height)
        if not _fits(placed, box, pixels, style):
            continue
        window = scene[y : y + height, x : x + width]
        colour = _colour(window, style, rng)
        if colour is None:
            continue
        for other in placed:
            if _iou(box, other.box) > 0:
                other.pixels = other.pixels & ~pixels
                other.box = _box(other.pixels)
        window += opacity[..., None] * (colour - window)
        placed.append(_Placed(label + 1, box, pixels, int(pixels.sum())))
    noise = rng.random((size, size, 1)).astype(np.float32) - 0.5
    finished = np.clip(scene + 0.04 * noise, 0, 1)
    return (finished * 255 + 0.5).astype(np.uint8), placed


def _run_lengths(pixels: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Uncompressed COCO run lengths: column order, the first run counts zeros."""
    flat = pixels.T.ravel()
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = np.concatenate([[0], changes, [flat.size]])
    counts = np.diff(edges).tolist()
    return {"size": list(pixels.shape), "counts": [0, *counts] if flat[0] else counts}


def _write_split(
    folder: Path,
    split: str,
    sources: _Sources,
    count: int,
    style: SceneStyle,
    seed: int,
    first: int,
) -> Path:
    from PIL import Image

    def make(number: int) -> tuple[dict[str, Any], list[_Placed]]:
        scene, placed = _scene(sources, style, generator(seed, first + number))
        name = f"{split}_{number:05}.jpg"
        Image.fromarray(scene).save(folder / "images" / name, quality=95, subsampling=0)
        entry = {"id": first + number, "file_name": name, "width": style.size, "height": style.size}
        return entry, placed

    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(make, range(count)))
    annotations: list[dict[str, Any]] = []
    for entry, placed in made:
        for found in placed:
            x1, y1, x2, y2 = found.box
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": entry["id"],
                    "category_id": found.label,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": int(found.pixels.sum()),
                    "iscrowd": 0,
                    "segmentation": _run_lengths(found.pixels),
                }
            )
    document = {
        "info": {"description": f"digit scenes, {split}, seed {seed}"},
        "images": [entry for entry, _ in made],
        "annotations": annotations,
        "categories": [{"id": n, "name": name} for n, name in enumerate(NAMES, 1)],
    }
    path = folder / "annotations" / f"instances_{split}.json"
    path.write_text(json.dumps(document))
    return path


def make_digit_scenes(
    folder: str | Path,
    train: int = 1200,
    val: int = 300,
    *,
    seed: int = 0,
    style: SceneStyle | None = None,
) -> tuple[Path, Path]:
    """Write `images/*.jpg` and `annotations/instances_{train,val}.json`; gives the two JSON paths.

    The same arguments give the same data set. Boxes and masks (run lengths) are those of the
    visible part of a digit. Needs scikit-learn, else DataError.
    Sources: sklearn.datasets.load_digits (Alpaydin, Kaynak 1998) and load_sample_images.
    """
    folder, style = Path(folder), style or SceneStyle()
    training, validation = _sources()
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "annotations").mkdir(exist_ok=True)
    return (
        _write_split(folder, "train", training, train, style, seed, first=1),
        _write_split(folder, "val", validation, val, style, seed, first=1_000_001),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """`python -m megbrain_py.data.digit_scenes FOLDER`."""
    parser = argparse.ArgumentParser(description="Make the digit scenes, in COCO format.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--train", type=int, default=1200, help="training pictures")
    parser.add_argument("--val", type=int, default=300, help="validation pictures")
    parser.add_argument("--size", type=int, default=SceneStyle.size, help="side in pixels")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    style = SceneStyle(size=given.size)
    for path in make_digit_scenes(
        given.folder, given.train, given.val, seed=given.seed, style=style
    ):
        print(path)


if __name__ == "__main__":
    main()
