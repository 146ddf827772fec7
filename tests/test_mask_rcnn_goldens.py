"""Our Mask R-CNN against torchvision's, from images to pasted masks, with the same made weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from golden_detector import (
    BAR,
    CONFIG,
    ORIGINAL_SIZES,
    PADDED,
    Array,
    Goldens,
    batch,
    goldens,
    padded,
    recipe,
    rows_of,
    summary_error,
)

import megbrain_py as mb
from megbrain_py.data import masks as masks_of
from megbrain_py.models.faster_rcnn import FasterRCNN

IMAGES = range(len(ORIGINAL_SIZES))


def _pair(golden: Goldens, name: str) -> list[Array]:
    return [golden[f"chain/{name}/{i}"] for i in IMAGES]


@pytest.fixture(scope="module")
def golden() -> Goldens:
    return goldens("faster_rcnn")


@pytest.fixture(scope="module")
def found(golden: Goldens) -> Goldens:
    """Detections with masks, and mask logits of torchvision's boxes."""
    model = FasterRCNN(replace(CONFIG, mask="head"), rng=0)
    shapes = {name: p.shape for name, p in model.named_state().items()}
    model.load_state_dict(recipe.recipe_weights(shapes))
    given = batch(int(golden["chain/seed"]))
    boxes = _pair(golden, "mask_boxes")
    fed = {
        "images": given["images"],
        "image_sizes": given["image_sizes"],
        "boxes": padded(boxes, CONFIG.roi.detections, np.float32),
        "count": np.array([len(rows) for rows in boxes], np.int32),
    }
    x = {name: mb.placeholder(name, v.shape, v.dtype.name) for name, v in fed.items()}
    detections = model.detect(x["images"], x["image_sizes"])
    levels = model.backbone(x["images"])
    logits = model.roi_heads.mask_logits(levels, x["boxes"], x["count"])
    return {**given, **mb.compile({**detections, "logits": logits})(**fed)}


def test_mask_logits(found: Goldens, golden: Goldens) -> None:
    rows = [len(boxes) for boxes in _pair(golden, "mask_boxes")]
    whole = found["logits"].reshape(2, -1, *found["logits"].shape[1:])
    ours = np.concatenate([part[:n] for part, n in zip(whole, rows, strict=True)])
    assert summary_error(golden, "chain/mask_logits", ours) <= BAR


@pytest.mark.parametrize("image", IMAGES)
def test_pasted_masks(image: int, found: Goldens, golden: Goldens) -> None:
    """Every detection's mask in the original picture."""
    height, width = ORIGINAL_SIZES[image]
    count = int(found["count"][image])
    labels = golden[f"chain/mask_labels/{image}"]
    apart = 1000.0 * found["labels"][image, :count, None], 1000.0 * labels[:, None]
    boxes = found["boxes"][image, :count]
    rows = rows_of(boxes + apart[0], golden[f"chain/mask_boxes/{image}"] + apart[1],
                   BAR * PADDED[0])  # fmt: skip
    sizes = found["image_sizes"][image]
    scale = np.array([width / sizes[1], height / sizes[0]] * 2)
    whole = np.zeros((count, height, width), np.float32)
    for out, row in zip(whole, rows, strict=True):
        box = (boxes[row] * scale).astype(np.float32)
        top, left, values = masks_of.paste(found["masks"][image, row], box, height, width)
        out[top : top + values.shape[0], left : left + values.shape[1]] = values
    assert summary_error(golden, f"chain/masks/{image}", whole) <= 10 * BAR
