"""Masks of COCO files: in batches, from boxes back to pictures, scored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_files import document, write
from pycocotools import mask as coco_mask

from megbrain_py.data import Augmentation, Detections, Loader, Resize, read_coco
from megbrain_py.data import masks as masks_of
from megbrain_py.data.coco import decode_mask
from megbrain_py.errors import DataError

SIZES = [(60, 84), (84, 60), (50, 50)]


def _with_masks(sizes: list[tuple[int, int]] = SIZES) -> dict[str, Any]:
    """Every second object is a polygon in its box, the others run lengths, plain or compressed."""
    content = document(sizes)
    size_of = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
    for n, entry in enumerate(content["annotations"]):
        x, y, w, h = entry["bbox"]
        polygon = [x + w / 2, y, x + w, y + h / 2, x + w / 3, y + h, x, y + h / 3]
        entry["segmentation"] = [polygon]
        if n % 2:
            height, width = size_of[entry["image_id"]]
            found = coco_mask.merge(coco_mask.frPyObjects([polygon], height, width))
            counts = found["counts"].decode()
            if n % 4 == 1:
                flat = coco_mask.decode(found).reshape(-1, order="F")
                changes = np.flatnonzero(np.diff(flat, prepend=0))
                counts = np.diff(changes, prepend=0, append=flat.size).tolist()
            entry["segmentation"] = {"size": [height, width], "counts": counts}
    return content


def _whole(batch: dict[str, Any], row: int, thing: int) -> np.ndarray:
    """A mask of a batch on the padded picture."""
    found = np.zeros(batch["images"].shape[2:], np.uint8)
    at, top, left, h, w = batch["mask_places"][row, thing]
    found[top : top + h, left : left + w] = batch["masks"][row, at : at + h * w].reshape(h, w)
    return found


def _nearest(size: int, out: int) -> np.ndarray:
    return np.floor(np.arange(out, dtype=np.float32) * np.float32(size / out)).astype(int)


def test_a_batch_holds_the_masks_of_the_pictures_that_it_holds(tmp_path: Path) -> None:
    """Resized to other sizes, flipped or not; every mask fits its box."""
    dataset = read_coco(write(tmp_path, _with_masks()))
    loader = Loader(
        dataset, 2, resize=Resize(96, 160), masks=True,
        augmentation=Augmentation(flip=0.5, short_side_range=(64, 128)),
    )  # fmt: skip
    flipped = 0
    for step in range(8):
        batch, plan = loader.batch(step), loader.plan(step)
        assert batch["masks"].shape == (2, plan.signature.mask_pixels)
        for row, (index, drawn) in enumerate(zip(plan.indices, plan.draws, strict=True)):
            image = dataset.images[index]
            flipped += drawn.flip
            rows = _nearest(image.height, drawn.height)
            columns = _nearest(image.width, drawn.width)
            for thing in range(batch["box_count"][row]):
                segmentation = image.objects[thing].segmentation
                assert segmentation is not None
                mask = decode_mask(segmentation, image.height, image.width)
                expected = mask[rows][:, columns]
                expected = expected[:, ::-1] if drawn.flip else expected
                found = _whole(batch, row, thing)
                assert np.array_equal(found[: drawn.height, : drawn.width], expected)
                assert found.sum() == expected.sum() > 0
                x1, y1, x2, y2 = batch["boxes"][row, thing]
                ys, xs = np.nonzero(found)
                edges = np.array(
                    [xs.min() - x1, ys.min() - y1, xs.max() + 1 - x2, ys.max() + 1 - y2]
                )
                assert np.abs(edges).max() <= 3 * drawn.width / image.width
    assert 0 < flipped < 16


def test_workers_and_the_cache_change_nothing(tmp_path: Path) -> None:
    dataset = read_coco(write(tmp_path, _with_masks()))
    plain = Loader(dataset, 2, resize=Resize(64, 96), masks=True, cache_bytes=0)
    cached = Loader(dataset, 2, resize=Resize(64, 96), masks=True)
    with cached.batches(0, 6, workers=3) as batches:
        for step, batch in enumerate(batches):
            alone = plain.batch(step)
            assert all(np.array_equal(batch[name], alone[name]) for name in alone)


def test_room_is_enough_for_every_picture_and_says_so(tmp_path: Path) -> None:
    """Objects as large as the picture, each: the bound that shapes the batch holds."""
    content = _with_masks([(64, 64)])
    for entry in content["annotations"]:
        entry["segmentation"] = [[0, 0, 64, 0, 64, 64, 0, 64]]
    dataset = read_coco(write(tmp_path, content))
    loader = Loader(dataset, 1, resize=Resize(96, 96), masks=True)
    assert 3 * 96 * 96 <= loader.signature(0).mask_pixels <= 3 * 100 * 100 + 4096
    assert loader.batch(0)["masks"].sum() == 3 * 96 * 96
    assert f"{loader.signature(0).mask_pixels} mask pixels" in loader.describe()


def test_an_object_without_a_mask_is_named(tmp_path: Path) -> None:
    content = _with_masks()
    content["annotations"][4]["segmentation"] = []
    dataset = read_coco(write(tmp_path, content))
    with pytest.raises(DataError, match="annotation 1012 of image 12 has no segmentation"):
        Loader(dataset, 2, masks=True)
    content["annotations"][4]["iscrowd"] = 1  # not learnt from
    Loader(read_coco(write(tmp_path, content)), 2, masks=True)


def test_encoding_is_pycocotools() -> None:
    rng = np.random.default_rng(0)
    for trial in range(60):
        height, width = (int(n) for n in rng.integers(1, 20, 2))
        h, w = int(rng.integers(0, height + 1)), int(rng.integers(0, width + 1))
        top, left = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
        mask = rng.random((h, w)) < (1.0 if trial % 5 == 0 else 0.6)
        whole = np.zeros((height, width), np.uint8, order="F")
        whole[top : top + h, left : left + w] = mask
        found = masks_of.encode(mask, top, left, height, width)
        assert found == coco_mask.encode(whole)
        assert np.array_equal(masks_of.decode(found), whole)


def test_a_map_of_ones_fills_its_box() -> None:
    """Also over the border, also thinner than a pixel; never beyond the picture."""
    for box in ((3, 4, 21, 30), (-5, -5, 4, 4), (30, 30, 40, 60), (7.2, 7.2, 7.3, 9.1)):
        top, left, values = masks_of.paste(np.ones((28, 28), np.float32), box, 40, 36)
        whole = np.zeros((40, 36), bool)
        whole[top : top + values.shape[0], left : left + values.shape[1]] = values > 0.5
        ys, xs = np.nonzero(whole)
        x1, y1, x2, y2 = np.clip(box, 0, [36, 40, 36, 40])
        assert len(ys) and abs(ys.min() - y1) <= 1 and abs(ys.max() + 1 - y2) <= 1.5
        assert abs(xs.min() - x1) <= 1 and abs(xs.max() + 1 - x2) <= 1.5


def test_true_masks_score_one_and_moved_ones_less(tmp_path: Path) -> None:
    """Maps cut out of the true masks, through pasting, run lengths and pycocotools."""
    dataset = read_coco(write(tmp_path, _with_masks(), pictures=False))
    scores = {}
    for moved in (0, 6):
        found = Detections(dataset)
        for image in dataset.images:
            boxes = np.array([a.box for a in image.objects])
            maps = np.zeros((len(boxes), 28, 28), np.float32)
            for n, thing in enumerate(image.objects):
                assert thing.segmentation is not None
                mask = decode_mask(thing.segmentation, image.height, image.width)
                x1, y1, x2, y2 = thing.box
                grid = (np.arange(28) + 0.5) / 28
                ys = (y1 + grid * (y2 - y1)).astype(int)
                xs = (x1 + grid * (x2 - x1)).astype(int)
                maps[n] = np.roll(mask[ys][:, xs], moved, 1)
            labels = [a.label for a in image.objects]
            found.add(image.id, boxes, np.full(len(boxes), 0.9), labels, maps=maps)
        assert found.has_masks
        scores[moved] = found.evaluate("segm").numbers
        assert found.evaluate("bbox").numbers["AP"] == 1
    assert scores[0]["AP50"] == 1 and scores[0]["AP"] > 0.75
    assert scores[6]["AP"] < scores[0]["AP"] - 0.2
