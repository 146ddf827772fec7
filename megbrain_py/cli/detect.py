"""`megbrain eval` and `megbrain predict`: what a trained detector finds."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from megbrain_py.errors import DataError

if TYPE_CHECKING:
    from megbrain_py.data import CocoDataset, Detections
    from megbrain_py.training.detector import Trained
    from megbrain_py.training.inference import InferenceConfig

_KINDS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm")
_BATCH = 4


def add_test_time(parser: argparse.ArgumentParser) -> None:
    """What `eval` and `predict` can do beyond one look at a picture (docs/testing_detectors.md)."""
    group = parser.add_argument_group("at test time")
    group.add_argument(
        "--scales",
        type=_numbers,
        default=(1.0,),
        metavar="0.75,1,1.25",
        help="look at each picture in these sizes, factors of that of the training",
    )
    group.add_argument("--flip", action="store_true", help="and at each mirrored")
    group.add_argument(
        "--vote",
        type=float,
        default=0.0,
        metavar="IOU",
        help="move a box to the mean of the boxes that overlap it so much, as 0.8",
    )
    group.add_argument(
        "--vote-score",
        choices=("id", "avg", "iou_avg"),
        default="id",
        help="its score: its own (id), or the mean of theirs",
    )
    group.add_argument(
        "--soft-nms",
        choices=("linear", "gaussian"),
        default="off",
        help="lower scores of overlapping boxes instead of dropping them",
    )
    group.add_argument("--nms-iou", type=float, metavar="IOU", help="default: the model's")
    group.add_argument(
        "--least",
        type=float,
        metavar="SCORE",
        help="boxes with a higher score take part; default: the model's",
    )
    group.add_argument("--weights", type=_numbers, default=(), metavar="1,0.5",
                       help="factors of the scores, one for each run")  # fmt: skip


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expects numbers with commas between, found {text!r}"
        ) from None


def _inference(arguments: argparse.Namespace) -> InferenceConfig:
    from megbrain_py.training.inference import InferenceConfig

    return InferenceConfig(
        scales=arguments.scales, flip=arguments.flip, weights=arguments.weights,
        score=arguments.least, nms_iou=arguments.nms_iou, soft_nms=arguments.soft_nms,
        vote=arguments.vote, vote_score=arguments.vote_score,
    )  # fmt: skip


def _load(runs: Sequence[str], which: str) -> list[Trained]:
    from megbrain_py.training.detector import load_trained

    return [load_trained(run, which) for run in runs]


def _find(
    detectors: Sequence[Trained], dataset: CocoDataset, batch: int, arguments: argparse.Namespace
) -> Detections:
    """Detections of all pictures; one detector on pictures as they are runs its own NMS."""
    from megbrain_py.training.detector import Detecting, detect_all
    from megbrain_py.training.inference import InferenceConfig, detect_views, looks_of
    from megbrain_py.training.progress import Passes

    config = _inference(arguments)
    if len(detectors) == 1 and config == InferenceConfig():
        loader = detectors[0].input.loader(dataset, batch)
        line = Passes(len(dataset.images))
        return detect_all(Detecting(detectors[0].model), loader, progress=line.add)
    line = Passes(len(dataset.images) * looks_of(detectors, config))
    return detect_views(detectors, dataset, config, batch=batch, progress=line.add)


def evaluate(arguments: argparse.Namespace) -> int:
    """Print the 12 COCO numbers and AP per class; those of masks too if the detector finds them."""
    from megbrain_py.training.pictures import draw_measured

    detectors = _load(arguments.model, arguments.checkpoint)
    dataset = data_of(detectors[0], arguments.data, arguments.images)
    for trained in detectors:
        if dataset.class_names != trained.class_names:
            raise DataError(
                f"{dataset.annotation_file}: its classes {list(dataset.class_names)} are not the "
                f"detector's {list(trained.class_names)}"
            )
    found = _find(detectors, dataset, arguments.batch, arguments)
    if arguments.output:
        found.write(arguments.output)
    result = found.evaluate()
    print(result)
    if found.has_masks:
        print(found.evaluate("segm"))
    if arguments.pictures:
        folder = Path(arguments.pictures)
        per_class = {"AP_per_class": result.ap_per_class, "AP50_per_class": result.ap50_per_class}
        draw_measured(found, per_class, folder, score=arguments.score)
        print(f"written: {folder}/*.png")
    return 0


def data_of(trained: Trained, annotations: str | None, images: str | None) -> CocoDataset:
    """The data set given, or the one that the run was measured with."""
    from megbrain_py.training.assemble import open_data

    config = trained.checkpoint.config if trained.checkpoint is not None else {}
    folder = images or ("" if annotations else str(config.get("data.val_images", "")))
    file = annotations or str(config.get("data.val", ""))
    if not file:
        raise DataError("the run has no data.val: give --data ANN.json")
    return open_data(file, folder, "--data", config.get("data.classes", ()))


def predict(arguments: argparse.Namespace) -> int:
    """Write pictures with boxes and masks, and predictions.json (COCO results, list of images).

    A file that is no readable picture is named and left out; the exit code is then 1.
    """
    runs, places = _runs_and_pictures(arguments.words)
    detectors = _load(runs, arguments.checkpoint)
    every = find_pictures(places)
    dataset, files = _dataset_of(every, detectors[0])
    output = Path(arguments.output)
    output.mkdir(parents=True, exist_ok=True)
    found = _find(detectors, dataset, min(_BATCH, len(files)), arguments)
    _draw_all(found, files, output, arguments.score)
    drawn = sum(r["score"] >= arguments.score for r in found.results)
    print(f"{len(files)} pictures, {drawn} objects with a score of {arguments.score:g} and more")
    print(f"written: {output}/*.png, {_write_json(found, files, output)}")
    return 0 if len(files) == len(every) else 1


def _runs_and_pictures(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The first word is a run, and those after it that look like one; then come pictures."""
    from megbrain_py.training.runs import is_run

    runs = [words[0], *takewhile(is_run, words[1:])]
    if len(runs) == len(words):
        raise DataError(f"no pictures are named after {' and '.join(runs)}")
    return runs, list(words[len(runs) :])


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
