"""Small COCO-format data sets written into a temporary folder, shared by the tests of data."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

REAL = Path(os.environ.get("MB_TEST_DATA", "/nonexistent"))


def real(name: str) -> Path:
    """A folder of the real test data, or skip."""
    if not (REAL / name).is_dir():
        pytest.skip(f"MB_TEST_DATA does not point to a folder with {name}")
    return REAL / name


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    """A smooth random RGB picture."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def document(sizes: list[tuple[int, int]], objects_per_image: int = 3) -> dict[str, Any]:
    """Annotations with gaps in image ids (5, 12, 19, ...) and category ids (3, 7, 90)."""
    rng = np.random.default_rng(1)
    images, annotations = [], []
    for n, (height, width) in enumerate(sizes):
        images.append(
            {"id": 5 + 7 * n, "file_name": f"{n:04}.png", "height": height, "width": width}
        )
        for _ in range(objects_per_image):
            w, h = rng.integers(8, width // 2), rng.integers(8, height // 2)
            x, y = rng.integers(0, width - w), rng.integers(0, height - h)
            annotations.append(
                {
                    "id": 1000 + 3 * len(annotations),
                    "image_id": 5 + 7 * n,
                    "category_id": int(rng.choice([3, 7, 90])),
                    "bbox": [float(x), float(y), float(w), float(h)],
                    "area": float(w * h),
                    "iscrowd": 0,
                    "segmentation": [],
                }
            )
    categories = [
        {"id": 90, "name": "pear"},
        {"id": 3, "name": "apple"},
        {"id": 7, "name": "fig"},
    ]
    return {"images": images, "annotations": annotations, "categories": categories}


def write(folder: Path, content: dict[str, Any], pictures: bool = True) -> Path:
    """Write annotations and pictures; the path of the annotation file."""
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    (folder / "images").mkdir(exist_ok=True)
    path = folder / "annotations" / "instances.json"
    path.write_text(json.dumps(content))
    if pictures:
        for n, image in enumerate(content["images"]):
            picture(image["height"], image["width"], n).save(folder / "images" / image["file_name"])
    return path
