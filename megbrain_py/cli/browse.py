"""`megbrain browse`: one HTML page on which a data set can be looked at."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from megbrain_py.errors import DataError

if TYPE_CHECKING:
    from megbrain_py.data import CocoDataset, RunLengths
    from megbrain_py.viz.browser import Entry, Mask

_TOLD = 3  # unreadable pictures that are named


def browse(annotations: str, images: str | None, output: str) -> int:
    """Write the page and its thumbnails; exit code 1 when a picture cannot be read."""
    from megbrain_py.training.assemble import open_data
    from megbrain_py.viz.browser import PAGE, write_page

    dataset = open_data(annotations, images or "", "ANN.json")
    folder, count = Path(output), len(dataset.images)

    def progress(done: int) -> None:
        if sys.stderr.isatty():
            end = "\n" if done == count else ""
            print(f"\r{done}/{count} pictures", end=end, file=sys.stderr, flush=True)

    title = dataset.annotation_file.name
    errors = write_page(
        folder, title, dataset.class_names, count, partial(_entry, dataset), progress
    )
    for error in errors[:_TOLD]:
        print(f"cannot be shown: {error}", file=sys.stderr)
    if len(errors) > _TOLD:
        print(f"and {len(errors) - _TOLD} more", file=sys.stderr)
    objects = sum(len(image.objects) for image in dataset.images)
    print(f"{count} pictures, {objects} objects: open {folder / PAGE} in a browser")
    return 1 if errors else 0


def _entry(dataset: CocoDataset, number: int) -> Entry:
    """A picture of the data set, its masks decoded."""
    from megbrain_py.data import Polygons
    from megbrain_py.data.images import open_rgb
    from megbrain_py.viz.browser import Entry, Shown

    image = dataset.images[number]
    objects = []
    for one in image.objects:
        x1, y1, x2, y2 = one.box
        box, shape = (x1, y1, x2 - x1, y2 - y1), one.segmentation
        if isinstance(shape, Polygons):
            objects.append(Shown(one.label, box, one.crowd, outline=shape.parts))
        elif shape is not None:
            mask = _mask(shape, image.height, image.width)
            objects.append(Shown(one.label, box, one.crowd, mask=mask))
        else:
            objects.append(Shown(one.label, box, one.crowd))
    path = dataset.path(image).resolve()
    return Entry(
        image.file_name, path, image.height, image.width, tuple(objects),
        lambda: open_rgb(path, (image.height, image.width)),
    )  # fmt: skip


def _mask(shape: RunLengths, height: int, width: int) -> Mask | None:
    """The pixels of run lengths; None where they fit no such picture, as check-data reports."""
    from megbrain_py.data import decode_mask

    try:
        return decode_mask(shape, height, width)
    except DataError:
        return None
