"""Resizing, augmentation, bucketing and the loader: batches are a pure function of the step."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import data_files
import numpy as np
import pytest
from PIL import Image

from megbrain_py.data import Augmentation, CocoDataset, Loader, Resize, read_coco, read_image
from megbrain_py.data.buckets import group_images
from megbrain_py.data.coco import Annotation, ImageEntry
from megbrain_py.data.transforms import (
    MEAN,
    STD,
    Draw,
    bilinear,
    draw,
    jitter_colours,
    resized_size,
    training_boxes,
)
from megbrain_py.errors import DataError

SIZES = [(40, 60)] * 5 + [(60, 40)] * 4 + [(48, 48)] * 3 + [(40, 90)]
ALL = Augmentation(flip=0.5, short_sides=(48, 64), brightness=0.3, contrast=0.3, saturation=0.3)


def made(folder: Path, sizes: list[tuple[int, int]] | None = None, objects: int = 3) -> CocoDataset:
    return read_coco(data_files.write(folder, data_files.document(sizes or SIZES, objects)))


def entry(height: int, width: int, boxes: list[Any], key: int = 1) -> ImageEntry:
    objects = tuple(Annotation(n, 1, tuple(b), 1.0, False, None) for n, b in enumerate(boxes))
    return ImageEntry(key, "x.png", height, width, objects)


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize(
    ("size", "sides", "expected"),
    [
        ((480, 640), (800, 1333), (800, 1066)),
        ((480, 640), (240, 320), (240, 320)),
        ((427, 640), (800, 1333), (800, 1199)),
        ((200, 640), (800, 1333), (416, 1333)),  # the longer side decides
        ((640, 200), (800, 1333), (1333, 416)),
        ((1, 5000), (32, 64), (1, 64)),  # never 0
    ],
)
def test_resized_size(size: tuple[int, int], sides: tuple[int, int], expected: Any) -> None:
    assert resized_size(*size, *sides) == expected


def test_a_larger_drawn_side_may_be_longer_too() -> None:
    resize = Resize(240, 320)
    assert resize.size(480, 640) == (240, 320)
    assert resize.size(480, 640, 180) == (180, 240)
    assert resize.size(480, 640, 300) == (300, 400)
    assert resize.size(240, 640, 120) == (120, 320)


def slow_bilinear(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    out = np.zeros((height, width, 3))
    for y in range(height):
        for x in range(width):
            sy = max((y + 0.5) * pixels.shape[0] / height - 0.5, 0)
            sx = max((x + 0.5) * pixels.shape[1] / width - 0.5, 0)
            y0, x0 = int(sy), int(sx)
            y1, x1 = min(y0 + 1, pixels.shape[0] - 1), min(x0 + 1, pixels.shape[1] - 1)
            top = pixels[y0, x0] * (1 - sx + x0) + pixels[y0, x1] * (sx - x0)
            low = pixels[y1, x0] * (1 - sx + x0) + pixels[y1, x1] * (sx - x0)
            out[y, x] = top * (1 - sy + y0) + low * (sy - y0)
    return out


@pytest.mark.parametrize("size", [(7, 5), (13, 9), (26, 40), (1, 1)])
def test_bilinear_against_the_definition(size: tuple[int, int]) -> None:
    pixels = np.asarray(data_files.picture(13, 9))
    expected = slow_bilinear(pixels.astype(np.float64), *size)
    np.testing.assert_allclose(bilinear(pixels, *size), expected, atol=1e-3)


def test_bilinear_against_torch_values() -> None:
    """torch 2.14 interpolate([0, 10, 40, 100], size=3 and 6, mode="bilinear")."""
    row = np.repeat(np.array([[0, 10, 40, 100]], np.uint8)[..., None], 3, axis=2)
    np.testing.assert_allclose(bilinear(row, 1, 3)[0, :, 0], [5 / 3, 25, 90], atol=1e-4)
    expected = [0, 5, 15, 35, 70, 100]
    np.testing.assert_allclose(bilinear(row, 1, 6)[0, :, 0], expected, atol=1e-4)


def test_training_boxes_scale_flip_clip_and_drop() -> None:
    image = entry(
        100,
        200,
        [(10, 20, 30, 60), (-10, 90, 20, 130), (5, 5, 5, 50), (250, 0, 300, 9), (9, 9, 3, 3)],
    )
    boxes, labels = training_boxes(image, Draw(50, 400))
    np.testing.assert_allclose(boxes, [[20, 10, 60, 30], [0, 45, 40, 50]])
    np.testing.assert_array_equal(labels, [1, 1])
    flipped, _ = training_boxes(image, Draw(50, 400, flip=True))
    np.testing.assert_allclose(flipped, [[340, 10, 380, 30], [360, 45, 400, 50]])
    empty, none = training_boxes(entry(9, 9, []), Draw(9, 9, flip=True))
    assert empty.shape == (0, 4)
    assert none.shape == (0,)


def test_draws_depend_on_seed_epoch_and_id_only() -> None:
    image = entry(100, 200, [], key=17)
    first = draw(image, Resize(64, 128), ALL, 3, 5)
    assert first == draw(image, Resize(64, 128), ALL, 3, 5)
    assert first != draw(image, Resize(64, 128), ALL, 3, 6)
    assert first != draw(image, Resize(64, 128), ALL, 4, 5)
    assert first != draw(entry(100, 200, [], key=18), Resize(64, 128), ALL, 3, 5)
    plain = draw(image, Resize(64, 128), Augmentation(flip=0.5, short_sides=(48, 64)), 3, 5)
    assert (plain.flip, plain.height) == (first.flip, first.height)
    many = [draw(image, Resize(64, 128), ALL, 0, epoch) for epoch in range(400)]
    assert 160 < sum(d.flip for d in many) < 240
    assert 160 < sum(d.height == 48 for d in many) < 240
    assert 0.7 <= min(d.contrast for d in many) < 0.75
    wide = Augmentation(short_side_range=(50, 53))
    assert {draw(image, Resize(64, 128), wide, 0, e).height for e in range(99)} == {50, 51, 52, 53}


def test_colours() -> None:
    pixels = np.asarray(data_files.picture(16, 16))
    assert jitter_colours(pixels, Draw(16, 16)) is pixels
    grey = np.asarray(Image.fromarray(pixels).convert("L"), np.float32)
    faded = jitter_colours(pixels, Draw(16, 16, saturation=0.0))
    np.testing.assert_allclose(faded, np.repeat(grey[..., None], 3, 2), atol=0.51)
    flat = jitter_colours(pixels, Draw(16, 16, contrast=0.0))
    np.testing.assert_allclose(flat, grey.mean(), atol=0.51)
    bright = jitter_colours(pixels, Draw(16, 16, brightness=2.0))
    np.testing.assert_allclose(bright, np.minimum(pixels * 2.0, 255))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Resize(900, 800),
        lambda: Resize(8, 16, "nearest"),  # type: ignore[arg-type]
        lambda: Augmentation(flip=2),
        lambda: Augmentation(brightness=-0.1),
        lambda: Augmentation(short_sides=(1, 2), short_side_range=(1, 2)),
        lambda: Augmentation(short_sides=(0,)),
        lambda: Augmentation(short_side_range=(9, 3)),
    ],
)
def test_wrong_settings(wrong: Any) -> None:
    with pytest.raises(DataError):
        wrong()


def test_groups_hold_every_picture_and_stay_few() -> None:
    rng = np.random.default_rng(0)
    images = [entry(int(h), int(w), []) for h, w in rng.integers(60, 640, (200, 2))]
    for most in (1, 2, 4):
        sides = range(160, 241)
        groups = group_images(images, Resize(240, 400), sides, most_groups=most)
        assert len(groups) <= most
        assert sorted(i for g in groups for i in g.images) == list(range(200))
        for group in groups:
            assert 1 <= len(group.sizes) <= 3
            assert all(n % 32 == 0 for size in group.sizes for n in size)
            for i in group.images:
                for side in (160, 200, 240):
                    h, w = resized_size(images[i].height, images[i].width, side, 400)
                    size = group.fit(h, w)
                    assert size[0] >= h
                    assert size[1] >= w
    exact = group_images([entry(480, 640, [])] * 9, Resize(240, 320), (240,))
    assert exact[0].sizes == ((256, 320),)


def test_batches_are_a_pure_function_of_the_step(tmp_path: Path) -> None:
    data = made(tmp_path)
    resize = Resize(64, 96)
    one = Loader(data, 2, seed=7, resize=resize, augmentation=ALL)
    two = Loader(data, 2, seed=7, resize=resize, augmentation=ALL, cache_bytes=0)
    steps = [*range(2 * one.steps_per_epoch)]
    expected = [one.batch(step) for step in steps]
    for step in reversed(steps):
        assert same(two.batch(step), expected[step])
    with two.batches(3, len(steps), workers=3, ahead=5) as resumed:
        for step, batch in enumerate(resumed, 3):
            assert resumed.state == step + 1
            assert same(batch, expected[step])
    assert step == steps[-1]
    other = Loader(data, 2, seed=8, resize=resize, augmentation=ALL)
    assert any(not same(other.batch(step), expected[step]) for step in steps)


def test_content_of_a_batch(tmp_path: Path) -> None:
    data = made(tmp_path)
    loader = Loader(data, 2, resize=Resize(40, 90), augmentation=Augmentation(flip=0.5), seed=1)
    flips = 0
    for step in range(loader.steps_per_epoch):
        batch, plan = loader.batch(step), loader.plan(step)
        size = loader.signature(step)
        assert batch["images"].shape == (2, 3, size.height, size.width)
        assert batch["boxes"].shape == (2, 16, 4)
        for key in ("labels", "box_count", "image_sizes", "original_sizes"):
            assert batch[key].dtype == np.int32
        assert batch["images"].dtype == batch["boxes"].dtype == np.float32
        assert batch["image_ids"].dtype == np.int64
        for row in range(2):
            image = data.by_image_id[int(batch["image_ids"][row])]
            assert tuple(batch["original_sizes"][row]) == (image.height, image.width)
            h, w = batch["image_sizes"][row]
            count = batch["box_count"][row]
            assert count == len(image.objects)
            assert (batch["labels"][row, :count] > 0).all()
            assert not batch["labels"][row, count:].any()
            assert not batch["boxes"][row, count:].any()
            assert not batch["images"][row, :, h:].any()
            assert not batch["images"][row, :, :, w:].any()
            if (image.height, image.width) == (h, w):  # not resized: the file's own pixels
                pixels = read_image(data.path(image)).transpose(2, 0, 1) / 255.0
                found = batch["images"][row, :, :h, :w] * np.reshape(STD, (3, 1, 1))
                found = found + np.reshape(MEAN, (3, 1, 1))
                boxes = np.array([o.box for o in image.objects])
                if plan.draws[row].flip:
                    flips += 1
                    found = found[:, :, ::-1]
                    boxes = np.stack(
                        [w - boxes[:, 2], boxes[:, 1], w - boxes[:, 0], boxes[:, 3]], axis=1
                    )
                np.testing.assert_allclose(found, pixels, atol=1e-5)
                np.testing.assert_allclose(batch["boxes"][row, :count], boxes, atol=1e-4)
    assert flips > 0


def test_an_epoch_shows_every_group_and_no_picture_twice(tmp_path: Path) -> None:
    data = made(tmp_path)
    loader = Loader(data, 2, resize=Resize(40, 90), seed=3)
    orders = []
    for epoch in range(3):
        steps = range(epoch * loader.steps_per_epoch, (epoch + 1) * loader.steps_per_epoch)
        plans = [loader.plan(step) for step in steps]
        seen = [i for plan in plans for i in plan.indices]
        assert 12 in seen  # the only picture of its shape, completed by others
        assert len(set(seen)) >= len(seen) - 1
        assert all(len(plan.indices) == 2 for plan in plans)
        assert [loader.epoch(step) for step in steps] == [epoch] * len(plans)
        orders.append(seen)
    assert orders[0] != orders[1]
    tiny = Loader(data.take([0, 1, 2]), 8, resize=Resize(40, 90))
    assert tiny.steps_per_epoch == 1
    assert set(tiny.batch(0)["image_ids"]) == {5, 12, 19}


def test_evaluation_shows_every_picture_once(tmp_path: Path) -> None:
    data = made(tmp_path)
    for fill in (True, False):
        loader = Loader(data, 4, resize=Resize(40, 90), shuffle=False, fill=fill)
        with loader.pass_over() as batches:
            found = list(batches)
        ids = np.concatenate([batch["image_ids"] for batch in found])
        assert sorted(ids[ids >= 0]) == [image.id for image in data.images]
        assert (ids < 0).any() == fill
        if fill:
            assert {len(batch["images"]) for batch in found} == {4}
            blank = found[-1]
            rows = blank["image_ids"] < 0
            assert not blank["images"][rows].any()
            assert not blank["box_count"][rows].any()
        assert same(loader.batch(0), loader.batch(loader.steps_per_epoch))


def test_signatures_are_few_and_known_without_reading(tmp_path: Path) -> None:
    data = made(tmp_path)
    for path in (tmp_path / "images").iterdir():
        path.unlink()
    loader = Loader(data, 2, resize=Resize(64, 96), augmentation=ALL)
    signatures = loader.signatures(3)
    assert sum(signatures.values()) == 3 * loader.steps_per_epoch
    assert len(signatures) <= sum(len(group.sizes) for group in loader.groups)
    text = loader.describe()
    assert text.startswith(f"13 pictures, {loader.steps_per_epoch} batches of 2 an epoch")


def test_ground_truth_rows(tmp_path: Path) -> None:
    box = (1.0, 1.0, 9.0, 9.0)
    images = tuple(entry(32, 32, [box] * n, key=n) for n in (16, 17, 64, 65, 256, 300))
    data = made(tmp_path, [(32, 32)], 1)
    data_files.picture(32, 32).save(tmp_path / "images" / "x.png")
    data = CocoDataset(data.annotation_file, data.image_folder, data.categories, images)
    loader = Loader(data, 1, resize=Resize(32, 32), shuffle=False)
    assert [loader.signature(step).rows for step in range(6)] == [16, 64, 64, 256, 256, 256]
    assert loader.overfull_images == (300,)
    assert "1 pictures have more than 256 objects" in loader.describe()
    assert loader.batch(5)["box_count"].tolist() == [256]


def test_crowds_and_empty_pictures(tmp_path: Path) -> None:
    content = data_files.document([(40, 60)] * 3, 2)
    content["annotations"][0]["iscrowd"] = 1
    content["annotations"] = content["annotations"][:4]
    data = read_coco(data_files.write(tmp_path, content))
    every = Loader(data, 3, resize=Resize(40, 60), shuffle=False).batch(0)
    assert every["box_count"].tolist() == [1, 2, 0]
    some = Loader(data, 2, resize=Resize(40, 60), shuffle=False, skip_empty=True).batch(0)
    assert some["image_ids"].tolist() == [5, 12]
    with pytest.raises(DataError, match="no pictures with objects"):
        Loader(data.take([2]), 1, skip_empty=True)
    with pytest.raises(DataError, match=r"instances\.json: no pictures"):
        Loader(data.take([]), 1)
    with pytest.raises(DataError, match="batch_size is 0"):
        Loader(data, 0)
    with pytest.raises(DataError, match="step -1 is negative"):
        Loader(data, 1).batch(-1)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_picture_is_named_and_threads_end(tmp_path: Path, workers: int) -> None:
    data = made(tmp_path, [(40, 60)] * 6)
    (tmp_path / "images" / "0004.png").write_bytes(b"junk")
    before = threading.active_count()
    loader = Loader(data, 2, resize=Resize(40, 60), shuffle=False)
    batches = loader.batches(workers=workers)
    next(batches)
    next(batches)
    with pytest.raises(DataError, match=r"0004\.png: the picture cannot be decoded"):
        next(batches)
    batches.close()
    assert threading.active_count() == before
    with loader.batches(workers=workers) as unfinished:
        next(unfinished)
    assert threading.active_count() == before
    with pytest.raises(StopIteration):
        next(unfinished)


def test_the_two_ways_to_resize_agree_on_a_smooth_picture(tmp_path: Path) -> None:
    data = made(tmp_path, [(64, 96)])
    ways = [
        Loader(data, 1, resize=Resize(80, 120, method), shuffle=False).batch(0)["images"]
        for method in ("pillow", "torchvision")
    ]
    assert np.abs(ways[0] - ways[1]).max() < 0.02 / min(STD)


def test_real_pictures_load() -> None:
    folder = data_files.real("coco_mini")
    data = read_coco(folder / "annotations" / "instances_train.json")
    loader = Loader(data, 4, resize=Resize(200, 333), augmentation=Augmentation())
    with loader.batches(0, loader.steps_per_epoch, workers=2) as batches:
        for batch in batches:
            assert np.isfinite(batch["images"]).all()
            assert 0.1 < batch["images"].std() < 3
    assert len(loader.signatures(5)) <= 12


def test_ranks_take_neighbouring_rows_of_one_global_order(tmp_path: Path) -> None:
    """Whatever their number: unequal parts, and none."""
    dataset = made(tmp_path, [(40, 60)] * 7 + [(60, 40)] * 3)
    given: dict[str, Any] = {"resize": Resize(64, 96), "seed": 5, "augmentation": Augmentation()}
    whole = Loader(dataset, 4, **given)
    for ranks in (2, 3, 6):
        parts = [Loader(dataset, 4, part=(rank, ranks), **given) for rank in range(ranks)]
        for step in range(5):
            expected, batches = whole.batch(step), [part.batch(step) for part in parts]
            assert {b["images"].shape[1:] for b in batches} == {expected["images"].shape[1:]}
            for name, array in expected.items():
                np.testing.assert_array_equal(np.concatenate([b[name] for b in batches]), array)


def test_ranks_pass_over_every_batch_once(tmp_path: Path) -> None:
    dataset = made(tmp_path, [(40, 60)] * 7 + [(60, 40)] * 3)
    loader = Loader(dataset, 2, resize=Resize(64, 96), shuffle=False)
    seen: list[int] = []
    for rank in range(3):
        with loader.pass_over(part=(rank, 3)) as batches:
            seen += [i for batch in batches for i in batch["image_ids"].tolist() if i >= 0]
    assert sorted(seen) == sorted(image.id for image in dataset.images)
