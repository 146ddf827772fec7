"""Pictures with the objects that a detector found, or that people marked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

Pixels = npt.NDArray[np.uint8]

# Okabe and Ito 2008, told apart by the colour-blind too; then lighter turns of the same.
_COLOURS = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178),
    (213, 94, 0), (204, 121, 167), (148, 220, 80), (190, 140, 255), (255, 150, 140),
)  # fmt: skip
_SHORTEST = 480  # pixels: smaller pictures are enlarged, so that names fit
_LONGEST = 2400  # pixels: pictures of many objects are enlarged to no more than this
_MANY = 30  # objects: of so many, half shall be at least _READABLE pixels wide
_READABLE = 36
_LINES = 25  # pixels of an object's side for each pixel of its line's width


def colour_of(label: int) -> tuple[int, int, int]:
    """The colour of a class label 1..K."""
    return _COLOURS[(label - 1) % len(_COLOURS)]


def draw_objects(
    pixels: Pixels,
    boxes: npt.ArrayLike,
    labels: Sequence[int],
    names: Sequence[str],
    scores: Sequence[float] | None = None,
    masks: Sequence[npt.NDArray[np.bool_]] | None = None,
) -> Image.Image:
    """A picture with boxes, class names and scores, and masks.

    pixels uint8[h, w, 3]; boxes [n, 4] x1, y1, x2, y2 in its pixels; labels 1..K, `names[label-1]`
    is the class; scores 0..1; masks bool[h, w] each. Where there is only one class, objects differ
    in colour. Pictures that are small, or full of small objects, are enlarged (whole factors).
    Lines are thinner around smaller objects. Each tag is put above its box, or where it covers no
    other tag; when there are many objects, tags shrink to the score, then to nothing but the
    coloured box, and a line below says how many there are of each class; of many objects of one
    class the tags are scores only.
    """
    from PIL import Image, ImageDraw

    factor = _enlargement(pixels.shape[:2], np.asarray(boxes, np.float64).reshape(-1, 4))
    picture = Image.fromarray(np.asarray(pixels, np.uint8))
    if factor > 1:
        size = (picture.width * factor, picture.height * factor)
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    scaled = np.asarray(boxes, np.float64).reshape(-1, 4) * factor
    order = _weakest_first(scaled, scores)  # the surest objects lie on top
    colours = [colour_of(n + 1 if len(names) == 1 else label) for n, label in enumerate(labels)]
    widest = max(1, round(max(picture.size) / 400))
    if masks is not None:
        painted = np.array(picture)
        for i in order:
            _paint(painted, masks[i], factor, colours[i])
        picture = Image.fromarray(painted)
        widest = max(1, widest // 2)
    draw = ImageDraw.Draw(picture, "RGBA")
    for i in order:
        width = max(1, min(widest, round(_side(scaled[i]) / _LINES)))
        draw.rectangle(_tidy(scaled[i]), outline=(*colours[i], 255), width=width)
    tagged = [names[label - 1] for label in labels]
    left_out = _draw_tags(draw, picture.size, scaled, order[::-1], colours, tagged, scores)
    return _with_legend(picture, labels, names) if left_out else picture


def _side(box: npt.NDArray[np.float64]) -> float:
    x1, y1, x2, y2 = _tidy(box)
    return math.sqrt((x2 - x1) * (y2 - y1))


def _enlargement(size: tuple[int, ...], boxes: npt.NDArray[np.float64]) -> int:
    """So that the picture is no thumbnail, and half of many objects large enough for a tag."""
    small = math.ceil(_SHORTEST / max(1, *size))
    if len(boxes) >= _MANY:
        side = float(np.median([_side(box) for box in boxes]))
        small = max(small, min(math.ceil(_READABLE / max(side, 1.0)), _LONGEST // max(size)))
    return max(1, min(4, small))


def _with_legend(picture: Image.Image, labels: Sequence[int], names: Sequence[str]) -> Image.Image:
    """The picture with a line below: the classes in it, with their colours and numbers."""
    from PIL import Image, ImageDraw

    font = _font(max(11, min(18, round(max(picture.size) / 50))))
    height = int(font.getbbox("Ag")[3]) + 10
    strip = Image.new("RGB", (picture.width, height), "white")
    draw = ImageDraw.Draw(strip)
    x = 6.0
    for label in sorted(set(labels), key=lambda n: -labels.count(n)):
        text = f"{names[label - 1]} {labels.count(label)}"
        square = height - 12
        if x + square + 5 + font.getlength(text) > picture.width:
            draw.text((x, 5), "…", font=font, fill="black")
            break
        draw.rectangle((x, 6, x + square, 6 + square), fill=colour_of(label))
        draw.text((x + square + 5, 4), text, font=font, fill="black")
        x += square + 5 + font.getlength(text) + 16
    whole = Image.new("RGB", (picture.width, picture.height + height), "white")
    whole.paste(picture, (0, 0))
    whole.paste(strip, (0, picture.height))
    return whole


def _paint(
    picture: Pixels, mask: npt.NDArray[np.bool_], factor: int, colour: tuple[int, int, int]
) -> None:
    """Tint an object's pixels of an enlarged picture and draw its outline."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    inner = mask[top:bottom, left:right].repeat(factor, 0).repeat(factor, 1)
    place = picture[top * factor : bottom * factor, left * factor : right * factor]
    place[inner] = (0.6 * place[inner] + 0.4 * np.array(colour)).astype(np.uint8)
    padded = np.pad(inner, 1)
    around = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    place[inner & ~around] = colour


def _weakest_first(boxes: npt.NDArray[np.float64], scores: Sequence[float] | None) -> list[int]:
    if scores is not None:
        return [int(i) for i in np.argsort(np.asarray(scores), kind="stable")]
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return [int(i) for i in np.argsort(-areas, kind="stable")]


def _tidy(box: npt.NDArray[np.float64]) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (float(v) for v in box)
    return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


@lru_cache(maxsize=8)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    from PIL import ImageFont

    try:
        return ImageFont.load_default(size)
    except TypeError:  # Pillow before 10.1 has one size
        return ImageFont.load_default()


def _draw_tags(
    draw: ImageDraw.ImageDraw,
    size: tuple[int, int],
    boxes: npt.NDArray[np.float64],
    order: Sequence[int],
    colours: Sequence[tuple[int, int, int]],
    names: Sequence[str],
    scores: Sequence[float] | None,
) -> int:
    """Tags of the surest objects first; how many found no free place and are left out."""
    largest = max(11, min(18, round(max(size) / 50)))
    if len(order) >= _MANY:  # a tag no wider than its object leaves room for the others
        largest = max(10, min(largest, round(float(np.median([_side(b) for b in boxes])) / 3)))
    font = _font(largest)
    taken = np.zeros((0, 4))
    named = len(order) < _MANY or len(set(names)) > 1
    left_out = 0 if named else len(order)
    for i in order:
        name = names[i]
        texts = [name] if named else []
        if scores is not None:
            digits = f"{100 * scores[i]:.0f}"
            texts = [f"{name} {digits}", f"{name[:4]} {digits}", digits] if named else [digits]
        for text in texts:
            place = _free_place(draw, text, font, _tidy(boxes[i]), size, taken)
            if place is not None:
                taken = np.vstack([taken, place])
                _tag(draw, text, font, place, colours[i])
                break
        else:
            left_out += 1
    return left_out


def _free_place(
    draw: ImageDraw.ImageDraw,
    text: str,
    font: Any,
    box: tuple[float, float, float, float],
    size: tuple[int, int],
    taken: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64] | None:
    """Where a tag may lie: above, inside or below its box, at the left or the right."""
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    width, height = right - left + 6, bottom - top + 5
    x1, y1, x2, y2 = box
    for y in (y1 - height, y2, y1, y2 - height):
        for side in (x1, x2 - width):
            x = min(max(side, 0.0), size[0] - width)
            place = np.array([x, y, x + width, y + height])
            inside = y >= 0 and y + height <= size[1] and x >= 0
            apart = (
                (taken[:, 2] <= place[0]) | (taken[:, 0] >= place[2])
                | (taken[:, 3] <= place[1]) | (taken[:, 1] >= place[3])
            )  # fmt: skip
            if inside and bool(apart.all()):
                return place
    return None


def _tag(
    draw: ImageDraw.ImageDraw,
    text: str,
    font: Any,
    place: npt.NDArray[np.float64],
    colour: tuple[int, int, int],
) -> None:
    left, top, _, _ = draw.textbbox((0, 0), text, font=font)
    x1, y1, x2, y2 = (float(v) for v in place)
    draw.rectangle((x1, y1, x2, y2), fill=(*colour, 215))
    dark = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] < 128
    ink = (255, 255, 255) if dark else (0, 0, 0)
    draw.text((x1 + 3 - left, y1 + 2 - top), text, font=font, fill=ink)


def contact_sheet(
    pictures: Sequence[Image.Image], path: str | Path, *, columns: int = 4, side: int = 420
) -> None:
    """Many pictures on one sheet, in rows, each with a longer side of `side` pixels."""
    from PIL import Image

    gap = 6
    fitted = []
    for picture in pictures:
        scale = side / max(picture.size)
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        fitted.append(picture.resize(size, Image.Resampling.LANCZOS))
    rows = [fitted[start : start + columns] for start in range(0, len(fitted), columns)]
    width = max((sum(p.width + gap for p in row) for row in rows), default=0) + gap
    heights = [max(p.height for p in row) + gap for row in rows]
    sheet = Image.new("RGB", (width, sum(heights) + gap), "white")
    y = gap
    for row, height in zip(rows, heights, strict=True):
        x = gap
        for picture in row:
            sheet.paste(picture, (x, y))
            x += picture.width + gap
        y += height
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
