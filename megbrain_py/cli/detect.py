"""`megbrain eval` and `megbrain predict`: what a trained detector finds."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from megbrain_py.errors import DataError

if TYPE_CHECKING:
    from megbrain_py.data import CocoDataset, Detections
    from megbrain_py.training.detector import Trained

_KINDS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm")
_BATCH = 4


def evaluate(arguments: argparse.Namespace) -> int:
    """Print the 12 COCO numbers and AP per class; those of masks too if the detector finds them."""
    from megbrain_py.training.assemble import open_data
    from megbrain_py.training.detector import Detecting, detect_all, load_trained

    trained = load_trained(arguments.model, arguments.checkpoint)
    config = trained.checkpoint.config if trained.checkpoint is not None else {}
    annotations = arguments.data or str(config.get("data.val", ""))
    images = arguments.images or ("" if arguments.data else str(config.get("data.val_images", "")))
    if not annotations:
        raise DataError("the run has no data.val: give --data ANN.json")
    classes = config.get("data.classes", ())
    dataset = open_data(annotations, images, "--data", classes)
    if dataset.class_names != trained.class_names:
        raise DataError(
            f"{annotations}: its classes {list(dataset.class_names)} are not the detector's "
            f"{list(trained.class_names)}"
        )
    loader = trained.input.loader(dataset, arguments.batch)
    found = detect_all(Detecting(trained.model), loader, progress=_progress)
    if arguments.output:
        found.write(arguments.output)
    print(found.evaluate())
    if found.has_masks:
        print(found.evaluate("segm"))
    return 0


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        end = "\n" if done == total else ""
        print(f"\r{done}/{total} batches", end=end, file=sys.stderr, flush=True)


def predict(arguments: argparse.Namespace) -> int:
    """Write pictures with boxes and masks, and predictions.json (COCO results, list of images).

    A file that is no readable picture is named and left out; the exit code is then 1.
    """
    from megbrain_py.training.detector import Detecting, detect_all, load_trained

    trained = load_trained(arguments.model, arguments.checkpoint)
    every = find_pictures(arguments.pictures)
    dataset, files = _dataset_of(every, trained)
    output = Path(arguments.output)
    output.mkdir(parents=True, exist_ok=True)
    loader = trained.input.loader(dataset, min(_BATCH, len(files)))
    found = detect_all(Detecting(trained.model), loader, progress=_progress)
    _draw_all(found, files, output, arguments.score)
    drawn = sum(r["score"] >= arguments.score for r in found.results)
    print(f"{len(files)} pictures, {drawn} objects with a score of {arguments.score:g} and more")
    print(f"written: {output}/*.png, {_write_json(found, files, output)}")
    return 0 if len(files) == len(every) else 1


def find_pictures(places: list[str]) -> list[Path]:
    """Picture files, from files and folders (all below them). DataError when there are none."""
    files: list[Path] = []
    for place in map(Path, places):
        if place.is_dir():
            files += sorted(p for p in place.rglob("*") if p.suffix.lower() in _KINDS)
        elif place.is_file():
            files.append(place)
        else:
            raise DataError(f"{place}: there is no such file or folder")
    if not files:
        raise DataError(f"no pictures in {', '.join(places)} (looked for {', '.join(_KINDS)})")
    return list(dict.fromkeys(files))


def _dataset_of(files: Sequence[Path], trained: Trained) -> tuple[CocoDataset, list[Path]]:
    """Pictures without annotations as a data set, ids 1, 2, ..., and the files that can be read.

    DataError when none can.
    """
    from megbrain_py.data import Category, CocoDataset, ImageEntry
    from megbrain_py.data.images import open_rgb

    entries: list[ImageEntry] = []
    readable: list[Path] = []
    for file in files:
        try:
            picture = open_rgb(file)
        except DataError as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        readable.append(file)
        path = str(file.resolve())
        entries.append(ImageEntry(len(readable), path, picture.height, picture.width, ()))
    if not readable:
        raise DataError(f"none of {len(files)} pictures can be read")
    classes = zip(trained.category_ids, trained.class_names, strict=True)
    categories = tuple(Category(key, n, name) for n, (key, name) in enumerate(classes, 1))
    return CocoDataset(Path("(pictures)"), Path("/"), categories, tuple(entries)), readable


def _draw_all(found: Detections, files: Sequence[Path], output: Path, least: float) -> None:
    """A picture for each file; files of one name in several folders get their number too."""
    from megbrain_py.data import read_image
    from megbrain_py.data.masks import decode
    from megbrain_py.viz.detections import draw_objects

    names = found.dataset.class_names
    label_of = {category.id: category.label for category in found.dataset.categories}
    taken: set[str] = set()
    for number, file in enumerate(files, 1):
        results = [r for r in found.results if r["image_id"] == number and r["score"] >= least]
        boxes = [[x, y, x + w, y + h] for x, y, w, h in (r["bbox"] for r in results)]
        picture = draw_objects(
            read_image(file), boxes, [label_of[r["category_id"]] for r in results], names,
            [r["score"] for r in results],
            [decode(r["segmentation"]) for r in results] if found.has_masks else None,
        )  # fmt: skip
        name = file.stem
        while name in taken:
            name += f"_{number}"
        taken.add(name)
        picture.save(output / f"{name}.png")


def _write_json(found: Detections, files: Sequence[Path], output: Path) -> Path:
    """COCO results beside the list of pictures that their image ids mean."""
    from megbrain_py.nn.serialize import write_atomically

    document = {
        "images": [
            {"id": image.id, "file_name": str(file), "width": image.width, "height": image.height}
            for image, file in zip(found.dataset.images, files, strict=True)
        ],
        "categories": [{"id": c.id, "name": c.name} for c in found.dataset.categories],
        "annotations": [
            {"id": number, **result, "area": result["bbox"][2] * result["bbox"][3], "iscrowd": 0}
            for number, result in enumerate(found.results, 1)
        ],
    }
    path = output / "predictions.json"
    write_atomically(path, json.dumps(document, indent=1).encode())
    return path
