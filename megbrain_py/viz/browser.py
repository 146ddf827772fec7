"""The page of `megbrain browse`: a data set's pictures with their objects, filters, histograms."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from megbrain_py.errors import DataError
from megbrain_py.viz.detections import colour_of

PAGE = "index.html"
_THUMBNAILS = "thumbnails"
_SIDE = 320  # pixels of a thumbnail's longer side
_QUALITY = 82
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Shown:
    """An object on the page: label 1..K, box x, y, width, height in pixels of the picture.

    outline: closed parts as x, y, x, y, ...; or mask bool[height, width]; or neither.
    """

    label: int
    box: tuple[float, float, float, float]
    crowd: bool = False
    outline: tuple[npt.NDArray[np.float64], ...] = ()
    mask: Mask | None = None


@dataclass(frozen=True)
class Entry:
    """A picture on the page; `open` gives a Pillow image, or raises DataError."""

    name: str
    file: Path
    height: int
    width: int
    objects: tuple[Shown, ...]
    open: Callable[[], Any]


def write_page(
    folder: Path,
    title: str,
    class_names: tuple[str, ...],
    count: int,
    entry: Callable[[int], Entry],
    progress: Callable[[int], None] | None = None,
) -> list[str]:
    """Write index.html and thumbnails into a folder; the errors of pictures that cannot be read.

    entry(i) gives picture i of `count`, one at a time, so that masks need not be in memory all at
    once. The page needs nothing from elsewhere: it opens from the disk, without a server.
    """
    (folder / _THUMBNAILS).mkdir(parents=True, exist_ok=True)
    errors: list[str] = []
    images = []
    for number in range(count):
        one = entry(number)
        thumbnail = f"{_THUMBNAILS}/{number}.jpg"
        try:
            _write_thumbnail(one.open(), folder / thumbnail)
        except DataError as error:
            errors.append(str(error))
            thumbnail = ""
        step = max(1, round(max(one.height, one.width) / _SIDE))
        images.append({
            "name": one.name,
            "file": Path(os.path.relpath(one.file, folder)).as_posix(),
            "thumb": thumbnail,
            "h": one.height,
            "w": one.width,
            "objects": [_object(shown, step) for shown in one.objects],
        })  # fmt: skip
        if progress is not None:
            progress(number + 1)
    colours = ["#{:02x}{:02x}{:02x}".format(*colour_of(n + 1)) for n in range(len(class_names))]
    data = {"title": title, "classes": class_names, "colours": colours, "images": images}
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    template = Path(__file__).with_name("browser.html").read_text(encoding="utf-8")
    page = template.replace("/*DATA*/null", text.replace("</", "<\\/"))
    (folder / PAGE).write_text(page, encoding="utf-8")
    return errors


def _write_thumbnail(picture: Any, path: Path) -> None:
    picture.thumbnail((_SIDE, _SIDE))
    picture.save(path, quality=_QUALITY)


def _object(shown: Shown, step: int) -> list[Any]:
    """[label, x, y, w, h, crowd, path]: numbers of a tenth of a pixel; the path in SVG's words."""
    box = [round(value, 1) for value in shown.box]
    path = ""
    if shown.outline:
        path = "".join(_polygon(part) for part in shown.outline)
    elif shown.mask is not None:
        path = _runs(shown.mask, step)
    return [shown.label, *box, int(shown.crowd), path]


def _polygon(part: npt.NDArray[np.float64]) -> str:
    points = " ".join(f"{value:.0f}" for value in part)
    return f"M{points}Z"


def _runs(mask: Mask, step: int) -> str:
    """The pixels of every `step`th row and column as rectangles of SVG."""
    pieces = []
    for row, values in enumerate(mask[step // 2 :: step, step // 2 :: step]):
        edges = np.flatnonzero(np.diff(np.concatenate([[False], values, [False]]).astype(np.int8)))
        for start, end in edges.reshape(-1, 2).tolist():
            length = (end - start) * step
            pieces.append(f"M{start * step} {row * step}h{length}v{step}h-{length}z")
    return "".join(pieces)
