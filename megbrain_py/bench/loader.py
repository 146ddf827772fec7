"""What the loader costs a training: steps on fresh batches beside steps on one batch."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from megbrain_py import optim
from megbrain_py.bench import inputs, pairs
from megbrain_py.bench.pairs import Verdict
from megbrain_py.data import Loader, Resize, read_coco
from megbrain_py.training.detector import make_model
from megbrain_py.training.step import TrainStep

PICTURES = 8  # files; each is decoded again in every batch
GRID = 12  # blobs along a side: pictures that JPEG compresses as it does photographs


def write_pictures(folder: Path, count: int, size: int, boxes: int) -> Path:
    """JPEG files and their COCO annotations; the path of these."""
    from PIL import Image

    rng = np.random.default_rng(0)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(1, count + 1):
        name = f"{number}.jpg"
        coarse = rng.integers(0, 256, (GRID, GRID, 3)).astype(np.uint8)
        smooth = Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)
        noise = rng.normal(0.0, 6.0, (size, size, 3))
        pixels = np.clip(np.asarray(smooth) + noise, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / name, quality=90)
        images.append({"id": number, "file_name": name, "width": size, "height": size})
        for x0, y0, x1, y1 in inputs.random_boxes(rng, boxes, size, 32.0).tolist():
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "iscrowd": 0,
                    "category_id": int(rng.integers(1, inputs.CLASSES + 1)),
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": (x1 - x0) * (y1 - y0),
                }
            )
    categories = [{"id": n, "name": f"class {n}"} for n in range(1, inputs.CLASSES + 1)]
    document = {"images": images, "annotations": annotations, "categories": categories}
    path = folder / "annotations.json"
    path.write_text(json.dumps(document))
    return path


def loader_share(
    batch: int, size: int, boxes: int, *, steps: int = 3, count: int = 15, preset: str = "r50_fpn"
) -> Verdict:
    """Turns of some steps: with a loader that starts anew, and on a batch that is there.

    The pictures are not cached and have no head start: the share is an upper bound.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset = read_coco(write_pictures(folder, PICTURES, size, boxes), folder)
        loader = Loader(dataset, batch, resize=Resize(size, size), cache_bytes=0)
        model = make_model(preset, {}, inputs.CLASSES, seed=0)
        step = TrainStep(model, optim.SGD(model.parameters(), momentum=0.9, weight_decay=1e-4))
        ready = loader.batch(0)
        step([ready], 0, 0, 0.001)
        done = [0]

        def loaded() -> None:
            start = done[0]
            done[0] += steps
            with loader.batches(start, start + steps) as batches:
                for made in batches:
                    _use(step, made)

        def fixed() -> None:
            for _ in range(steps):
                _use(step, ready)

        def each(work: Any) -> float:
            return pairs.seconds(work) / steps

        return pairs.compare(lambda: each(loaded), lambda: each(fixed), count)


def _use(step: TrainStep, batch: Any) -> None:
    step([batch], 0, 0, 0.001)
