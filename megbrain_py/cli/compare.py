"""`megbrain compare`: two sets of detections side by side, with intervals and pictures."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megbrain_py.errors import DataError

if TYPE_CHECKING:
    from megbrain_py.data import CocoDataset, Difference, ImageEntry, MatchTable
    from megbrain_py.data.evaluation import Kind, Result
    from megbrain_py.viz.compare import Comparison, Table

_COLUMNS = ("first", "second", "second - first", "95 % interval", "")


def add_compare(commands: Any) -> None:
    """The command and what it takes."""
    parser = commands.add_parser(
        "compare", help="two detectors or result files side by side, with intervals and pictures"
    )
    parser.add_argument("first", metavar="A", help="COCO results (.json), or a run")
    parser.add_argument("second", metavar="B", help="the same")
    parser.add_argument("--data", metavar="ANN.json", help="annotations; default: a run's data.val")
    parser.add_argument("--images", metavar="DIR", help="pictures; default: beside the annotations")
    parser.add_argument("-o", "--output", default="comparison", metavar="DIR", help="of the page")
    parser.add_argument("--resamples", type=int, default=1000, help="of the pictures")
    parser.add_argument("--seed", type=int, default=0, help="of the resamples")
    parser.add_argument("--pictures", type=int, default=20, help="shown on the page")
    parser.add_argument("--score", type=float, default=0.5, help="least score that is drawn")
    parser.add_argument("--batch", type=int, default=4, help="pictures at a time, of a run")


@dataclass(frozen=True)
class Side:
    """One of the two: what it is called and what it found."""

    name: str
    results: list[Result]


def compare(arguments: argparse.Namespace) -> int:
    """Print the tables, write the page."""
    from megbrain_py.data import differences, match_table
    from megbrain_py.viz.compare import write_page

    if arguments.resamples < 1:
        raise DataError(f"--resamples must be at least 1, is {arguments.resamples}")
    dataset, first, second = _sides(arguments)
    tables: list[Table] = []
    matches: list[tuple[MatchTable, MatchTable]] = []
    ids = [category.id for category in dataset.categories]
    images = [image.id for image in dataset.images]
    for kind in _kinds(dataset, first, second):
        one, two = (
            match_table(
                dataset.annotation_file, side.results, kind, image_ids=images, category_ids=ids
            )
            for side in (first, second)
        )
        found = differences(one, two, resamples=arguments.resamples, seed=arguments.seed)
        matches.append((one, two))
        tables.append(_table(kind, found))
    note = (
        f"first: {first.name}; second: {second.name}; {len(images)} pictures of "
        f"{dataset.annotation_file.name}; intervals from {arguments.resamples} paired resamples "
        "of the pictures"
    )
    print(note)
    for table in tables:
        print(_text(table))
    shown = _comparisons(dataset, (first, second), matches[0], arguments)
    title = f"{first.name} and {second.name}"
    print(f"written: {write_page(Path(arguments.output), title, note, tables, shown)}")
    return 0


def _sides(arguments: argparse.Namespace) -> tuple[CocoDataset, Side, Side]:
    """The data set and both sets of detections; a run is asked for them now."""
    from megbrain_py.cli.detect import data_of
    from megbrain_py.data.coco import load_json
    from megbrain_py.training.assemble import open_data
    from megbrain_py.training.detector import Detecting, detect_all, load_trained
    from megbrain_py.training.progress import Passes

    given = [arguments.first, arguments.second]
    trained = [None if Path(g).suffix == ".json" else load_trained(g) for g in given]
    runs = [found for found in trained if found is not None]
    if runs:
        dataset = data_of(runs[0], arguments.data, arguments.images)
    else:
        dataset = open_data(arguments.data or "", arguments.images or "", "--data")
    sides = []
    for place, found in zip(given, trained, strict=True):
        if found is None:
            results = load_json(Path(place))
        elif found.class_names != dataset.class_names:
            raise DataError(
                f"{dataset.annotation_file}: its classes {list(dataset.class_names)} are not those "
                f"of {place}: {list(found.class_names)}"
            )
        else:
            loader = found.input.loader(dataset, arguments.batch)
            line = Passes(len(dataset.images))
            results = detect_all(Detecting(found.model), loader, progress=line.add).results
        sides.append(Side(place, results))
    if sides[0].name == sides[1].name:
        raise DataError(f"compare: {sides[0].name} is compared with itself")
    return dataset, _short(sides[0], sides[1]), _short(sides[1], sides[0])


def _short(side: Side, other: Side) -> Side:
    """Its last folder or file, where that tells the two apart."""
    own = Path(side.name).name
    return side if own == Path(other.name).name else Side(own, side.results)


def _kinds(dataset: CocoDataset, *sides: Side) -> list[Kind]:
    """Boxes where both have them, masks where both and the annotations do."""
    kinds: list[Kind] = []
    objects = [found for image in dataset.images for found in image.objects]
    for kind, key in (("bbox", "bbox"), ("segm", "segmentation")):
        has = all(
            isinstance(side.results, list)
            and all(isinstance(r, dict) and key in r for r in side.results)
            for side in sides
        )
        if kind == "segm":
            has = has and any(side.results for side in sides)
            has = has and all(found.segmentation is not None for found in objects)
        if has:
            kinds.append(kind)  # type: ignore[arg-type]
    return kinds or ["bbox"]  # whose checks say what is missing


def _table(kind: str, found: Sequence[Difference]) -> Table:
    from megbrain_py.viz.compare import Row, Table

    def number(value: float, signed: bool = False) -> str:
        return "-" if math.isnan(value) else f"{value:+.3f}" if signed else f"{value:.3f}"

    rows = []
    for d in found:
        known = not math.isnan(d.low)  # there are objects of this kind
        interval = f"{number(d.low, True)} .. {number(d.high, True)}" if known else "-"
        remark = "within noise" if known and d.within_noise else ""
        moved = number(d.second - d.first, True)
        cells = (d.name, number(d.first), number(d.second), moved, interval, remark)
        rows.append(Row(cells, not d.within_noise))
    return Table(kind, ("", *_COLUMNS), rows)


def _text(table: Table) -> str:
    lines = [(table.title, *table.columns[1:]), *(row.cells for row in table.rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    shown = []
    for name, *cells in lines:
        numbers = [f"{cell:>{w}}" for cell, w in zip(cells[:-1], widths[1:-1], strict=True)]
        shown.append("  ".join([f"{name:<{widths[0]}}", *numbers, cells[-1]]).rstrip())
    return "\n".join(shown)


def _comparisons(
    dataset: CocoDataset,
    sides: tuple[Side, Side],
    matches: tuple[MatchTable, MatchTable],
    arguments: argparse.Namespace,
) -> list[Comparison]:
    """The pictures whose own AP differs most; then those with the most different mistakes."""
    import numpy as np

    from megbrain_py.data.bootstrap import of_each_picture
    from megbrain_py.viz.compare import Comparison, Panel

    scores = [of_each_picture(table) for table in matches]
    counts = [table.counts(arguments.score) for table in matches]
    apart = np.nan_to_num(np.abs(scores[0] - scores[1]))
    mistakes = np.abs(counts[0][:, 1:] - counts[1][:, 1:]).sum(1)
    order = np.lexsort((-mistakes, -apart))
    differing = [int(i) for i in order if apart[i] > 0 or mistakes[i] > 0]
    shown = []
    for i in differing[: arguments.pictures]:
        image = dataset.by_image_id[matches[0].image_ids[i]]
        truth = f"truth: {len(image.objects)} object{'s'[: len(image.objects) != 1]}"
        panels = [Panel(_drawn(dataset, image), truth)]
        for side, score, count in zip(sides, scores, counts, strict=True):
            hits, false, missed = (int(n) for n in count[i])
            caption = f"AP {score[i]:.2f}, {hits} right, {false} false, {missed} missed"
            own = [
                r for r in side.results
                if r["image_id"] == image.id and r["score"] >= arguments.score
            ]  # fmt: skip
            panels.append(Panel(_drawn(dataset, image, own), f"{side.name}: {caption}"))
        shown.append(Comparison(image.file_name, panels))
    return shown


def _drawn(dataset: CocoDataset, image: ImageEntry, results: list[Result] | None = None) -> Any:
    """The picture with its true objects, or with detections; with masks where all have them."""
    from megbrain_py.data import decode_mask, read_image
    from megbrain_py.data.masks import decode
    from megbrain_py.viz.detections import draw_objects

    pixels, names = read_image(dataset.path(image)), dataset.class_names
    if results is None:
        outlines = [found.segmentation for found in image.objects]
        masks = [decode_mask(o, image.height, image.width) for o in outlines if o is not None]
        return draw_objects(
            pixels, [list(found.box) for found in image.objects],
            [found.label for found in image.objects], names,
            masks=masks if len(masks) == len(outlines) else None,
        )  # fmt: skip
    label_of = {category.id: category.label for category in dataset.categories}
    return draw_objects(
        pixels, [[x, y, x + w, y + h] for x, y, w, h in map(_box, results)],
        [label_of[r["category_id"]] for r in results], names, [r["score"] for r in results],
        [decode(r["segmentation"]) for r in results]
        if all("segmentation" in r for r in results) else None,
    )  # fmt: skip


def _box(result: Result) -> list[float]:
    """x, y, width, height of a detection, from its mask where it has no box."""
    if "bbox" in result:
        return list(result["bbox"])
    from pycocotools import mask as coco_mask

    to_box: Any = coco_mask.toBbox  # pycocotools has no annotations
    return [float(v) for v in to_box(result["segmentation"])]
