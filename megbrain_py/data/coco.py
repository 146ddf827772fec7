"""Read COCO-format annotations into frozen dataclasses, with contiguous labels 1..K."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from megbrain_py.errors import DataError


@dataclass(frozen=True, eq=False)
class Polygons:
    """An outline of one or more closed parts, each float64[2 * points] as x, y, x, y, ..."""

    parts: tuple[npt.NDArray[np.float64], ...]


@dataclass(frozen=True)
class RunLengths:
    """A mask as run lengths in column order; `counts` is compressed (str) or plain integers."""

    height: int
    width: int
    counts: str | tuple[int, ...]


Segmentation = Polygons | RunLengths

_LARGEST = 1 << 63  # ids are int64 in a batch
_FLOAT = float(np.finfo(np.float32).max)
_SIDE = 1 << 17  # pixels: longer pictures and outlines are mistakes, and masks of them too large
_AREA = 1 << 28


@dataclass(frozen=True)
class Category:
    """A class: the file's own id, and the label 1..K that the network uses (0 is background)."""

    id: int
    label: int
    name: str


@dataclass(frozen=True, slots=True)
class Annotation:
    """One object: box (x1, y1, x2, y2) and area in pixels of the original picture."""

    id: int
    label: int
    box: tuple[float, float, float, float]
    area: float
    crowd: bool
    segmentation: Segmentation | None


@dataclass(frozen=True)
class ImageEntry:
    """A picture of the data set and its objects (maybe none), in the order of the file."""

    id: int
    file_name: str
    height: int
    width: int
    objects: tuple[Annotation, ...]


@dataclass(frozen=True)
class CocoDataset:
    """A COCO-format data set; pictures are read from `image_folder` only when asked for."""

    annotation_file: Path
    image_folder: Path
    categories: tuple[Category, ...]
    images: tuple[ImageEntry, ...]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the labels 1..K; the name of label n is at n - 1."""
        return tuple(category.name for category in self.categories)

    @cached_property
    def by_image_id(self) -> Mapping[int, ImageEntry]:
        """The pictures by the file's own id."""
        return {image.id: image for image in self.images}

    def category_id(self, label: int) -> int:
        """The file's own category id of a label 1..K."""
        if not 1 <= label <= len(self.categories):
            raise DataError(
                f"{self.annotation_file}: label {label} is not in 1..{len(self.categories)}"
            )
        return self.categories[label - 1].id

    def path(self, image: ImageEntry) -> Path:
        """Where the picture lies."""
        return self.image_folder / image.file_name

    def take(self, indices: Iterable[int]) -> CocoDataset:
        """The same data set with only these pictures (indices into `images`)."""
        return replace(self, images=tuple(self.images[i] for i in indices))

    def only(self, names: Sequence[str]) -> CocoDataset:
        """The same pictures with the objects of these classes; labels 1..K in the order given.

        DataError for a name that no category has, or two have.
        """
        known = self.class_names
        for name in names:
            if known.count(name) != 1 or list(names).count(name) != 1:
                raise DataError(
                    f"{self.annotation_file}: {known.count(name)} categories are named {name!r}, "
                    f"expected 1, named once; there are: {', '.join(known)}"
                )
        new_label = {known.index(name) + 1: label for label, name in enumerate(names, 1)}
        by_name = {category.name: category for category in self.categories}
        chosen = tuple(replace(by_name[name], label=n) for n, name in enumerate(names, 1))
        images = tuple(
            replace(
                image,
                objects=tuple(
                    replace(a, label=new_label[a.label])
                    for a in image.objects
                    if a.label in new_label
                ),
            )
            for image in self.images
        )
        return replace(self, categories=chosen, images=images)


def load_json(path: Path) -> Any:
    """The content of a JSON file; DataError names the file, and line and column of a mistake."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}: broken JSON at line {error.lineno}, column {error.colno}: {error.msg}"
        ) from error
    except (ValueError, RecursionError) as error:  # no UTF-8, too many digits, nested too deep
        raise DataError(f"{path}: broken JSON: {error}") from error


class _Entry:
    """One JSON object together with the words for where it stands in the file."""

    def __init__(self, path: Path, section: str, index: int, value: Any) -> None:
        self.path, self.where, self.value = path, f"{section}[{index}]", value
        if not isinstance(value, dict):
            raise self.error(f"is {_kind(value)}, expected an object")
        if isinstance(value.get("id"), int):
            self.where += f" (id {value['id']})"

    def error(self, text: str) -> DataError:
        return DataError(f"{self.path}: {self.where}: {text}")

    def get(self, key: str) -> Any:
        if key not in self.value:
            raise self.error(f"the key '{key}' is missing")
        return self.value[key]

    def integer(self, key: str) -> int:
        value = self.get(key)
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        if isinstance(value, bool) or not whole or abs(value) >= _LARGEST:
            raise self.error(f"'{key}' is {_kind(value)}, expected a whole number")
        return int(value)

    def text(self, key: str) -> str:
        value = self.get(key)
        if not isinstance(value, str) or not value:
            raise self.error(f"'{key}' is {_kind(value)}, expected a text")
        return value


def is_too_large(height: float, width: float) -> bool:
    """Whether a picture's size must be a mistake: no file of it would be opened."""
    return max(height, width) > _SIDE or height * width > _AREA


def _kind(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def is_number(value: Any) -> bool:
    """Whether a JSON value is a number that float32 can hold (true and false are not)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _FLOAT


def parse_segmentation(value: Any) -> Segmentation | None:
    """What stands under 'segmentation'; None for an empty one. ValueError says what is wrong."""
    if not value:
        return None
    try:
        if isinstance(value, dict):
            height, width = (int(n) for n in value["size"])
            counts = value["counts"]
            found = RunLengths(
                height, width, counts if isinstance(counts, str) else tuple(map(int, counts))
            )
            plain = _plain_counts(found.counts)
            if min(height, width, *plain, 0) < 0 or sum(plain) != height * width:
                raise ValueError(f"the runs do not fill {width}x{height} pixels")
            return found
        parts = tuple(np.asarray(part, np.float64) for part in value)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"is neither polygons nor run lengths ({error})") from None
    for part in parts:
        if part.ndim != 1 or part.size % 2 or not (abs(part) <= _SIDE).all():
            raise ValueError(
                f"has a polygon of {part.size} numbers, expected pairs x, y of at most {_SIDE} "
                "pixels"
            )
    parts = tuple(part for part in parts if part.size >= 6)  # a point or a line covers nothing
    return Polygons(parts) if parts else None


def _segmentation(entry: _Entry) -> Segmentation | None:
    try:
        return parse_segmentation(entry.value.get("segmentation"))
    except ValueError as error:
        raise entry.error(f"'segmentation' {error}") from None


def _plain_counts(counts: str | tuple[int, ...]) -> tuple[int, ...]:
    """Run lengths as numbers; the text is pycocotools' (common/maskApi.c, rleFrString).

    A number is a string of five-bit digits, lowest first, each plus 48; the sixth bit says that
    more follow. From the fourth on it is the difference from the last but one.
    """
    if not isinstance(counts, str):
        return counts
    numbers: list[int] = []
    value = shift = 0
    for digit in (ord(letter) - 48 for letter in counts):
        if not 0 <= digit < 64 or shift > 60:
            raise ValueError("counts are no run lengths")
        value |= (digit & 31) << shift
        shift += 5
        if digit & 32:
            continue
        if digit & 16:
            value -= 1 << shift
        numbers.append(value + (numbers[-2] if len(numbers) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("counts end within a number")
    return tuple(numbers)


def _annotation(entry: _Entry, label: int) -> Annotation:
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
        raise entry.error(f"'bbox' is {_kind(box)}, expected four numbers x, y, width, height")
    x, y, w, h = (float(v) for v in box)
    area = entry.value.get("area", w * h)
    return Annotation(
        id=entry.integer("id"),
        label=label,
        box=(x, y, x + w, y + h),
        area=float(area) if is_number(area) else w * h,
        crowd=bool(entry.value.get("iscrowd", 0)),
        segmentation=_segmentation(entry),
    )


def _section(path: Path, document: Any, name: str) -> list[_Entry]:
    if not isinstance(document, dict):
        raise DataError(f"{path}: the file holds {_kind(document)}, expected an object")
    if name not in document:
        raise DataError(f"{path}: the key '{name}' is missing")
    if not isinstance(document[name], list):
        raise DataError(f"{path}: '{name}' is {_kind(document[name])}, expected a list")
    return [_Entry(path, name, i, value) for i, value in enumerate(document[name])]


def _categories(entries: list[_Entry], path: Path) -> tuple[Category, ...]:
    names: dict[int, str] = {}
    for entry in entries:
        key = entry.integer("id")
        if key in names:
            raise entry.error("this category id appears twice")
        names[key] = entry.text("name")
    if not names:
        raise DataError(f"{path}: 'categories' is empty")
    return tuple(Category(key, n + 1, names[key]) for n, key in enumerate(sorted(names)))


def read_coco(annotation_file: str | Path, image_folder: str | Path | None = None) -> CocoDataset:
    """Read a COCO-format file: polygons, run lengths, crowds, pictures without objects, id gaps.

    Labels are 1..K in the order of the file's category ids, whatever gaps these have. Without
    `image_folder` the pictures are looked for in `../images` of the file's folder.

    Raises DataError with file and entry for what cannot be understood; degenerate boxes are kept
    (training leaves them out, `check_data` reports them).
    Source of the format: https://cocodataset.org/#format-data
    """
    path = Path(annotation_file)
    folder = path.parent.parent / "images" if image_folder is None else Path(image_folder)
    document = load_json(path)
    categories = _categories(_section(path, document, "categories"), path)
    label_of = {category.id: category.label for category in categories}
    images: dict[int, tuple[_Entry, list[Annotation]]] = {}
    for entry in _section(path, document, "images"):
        if entry.integer("id") in images:
            raise entry.error("this image id appears twice")
        images[entry.integer("id")] = (entry, [])
    for entry in _section(path, document, "annotations"):
        key = entry.integer("category_id")
        if key not in label_of:
            known = ", ".join(f"{c.id} {c.name}" for c in categories[:8])
            more = ", ..." if len(categories) > 8 else ""
            raise entry.error(f"category_id {key} is not in 'categories' ({known}{more})")
        owner = entry.integer("image_id")
        if owner not in images:
            raise entry.error(f"image_id {owner} is not in 'images'")
        images[owner][1].append(_annotation(entry, label_of[key]))
    return CocoDataset(
        path, folder, categories, tuple(_image(entry, objs) for entry, objs in images.values())
    )


def _image(entry: _Entry, objects: list[Annotation]) -> ImageEntry:
    height, width = entry.integer("height"), entry.integer("width")
    if height < 1 or width < 1:
        raise entry.error(f"the picture is {width}x{height}, expected at least 1x1")
    if is_too_large(height, width):
        raise entry.error(
            f"the picture is {width}x{height}, expected at most {_SIDE} pixels a side"
        )
    return ImageEntry(entry.integer("id"), entry.text("file_name"), height, width, tuple(objects))


def run_lengths(segmentation: Segmentation, height: int, width: int) -> dict[str, Any]:
    """A segmentation as pycocotools' compressed run lengths: {"size": [h, w], "counts": bytes}."""
    from pycocotools import mask as coco_mask

    if isinstance(segmentation, Polygons):
        parts = coco_mask.frPyObjects([list(part) for part in segmentation.parts], height, width)
        return dict(coco_mask.merge(parts))
    size = [segmentation.height, segmentation.width]
    if size != [height, width]:
        raise DataError(
            f"segmentation: run lengths of {size[1]}x{size[0]} pixels in a picture of "
            f"{width}x{height}"
        )
    if isinstance(segmentation.counts, str):
        return {"size": size, "counts": segmentation.counts.encode("ascii")}
    plain = {"size": size, "counts": list(segmentation.counts)}
    return dict(coco_mask.frPyObjects(plain, *size))


def decode_mask(segmentation: Segmentation, height: int, width: int) -> npt.NDArray[np.bool_]:
    """bool[height, width]: the pixels of an object, as pycocotools fills them."""
    from pycocotools import mask as coco_mask

    decode: Any = coco_mask.decode  # pycocotools has no annotations
    return np.asarray(decode(run_lengths(segmentation, height, width)), np.bool_)
