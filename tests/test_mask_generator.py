"""The mask generator: windows, their targets and loss, and pasting back to the picture."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from test_faster_rcnn import CONFIG, _batch, _is_finite, _largest_gradients
from test_mask_head import _masked

import megbrain_py as mb
from megbrain_py import functional as F
from megbrain_py.data import masks as masks_of
from megbrain_py.models.faster_rcnn import FasterRCNN
from megbrain_py.models.mask import MaskGenerator, MaskGeneratorConfig, generator_loss

GENERATOR = MaskGeneratorConfig(window=16, grid=7, convs=2, channels=6, pixel_convs=1, skip=4)
WITH_MASKS = replace(CONFIG, mask="generator", mask_generator=GENERATOR)
SCALES = (1 / 4, 1 / 8, 1 / 16)


def _generator(config: MaskGeneratorConfig = GENERATOR) -> MaskGenerator:
    return MaskGenerator(config, 3, 2, SCALES, np.random.default_rng(0))


def _windows(boxes: list[list[float]]) -> dict[str, np.ndarray]:
    rois = mb.placeholder("rois", (1, len(boxes), 4))
    found = _generator().windows(rois)
    outputs = {
        "level": found.level, "corner": found.corner, "inside": found.inside,
        "in_image": found.in_image(), "near": found.near(16, 1.0), "strict": found.near(16, 0.0),
    }  # fmt: skip
    return dict(mb.compile(outputs)(rois=np.array([boxes], np.float32)))


def test_a_box_lies_in_its_window_at_the_finest_level_that_holds_it() -> None:
    rng = np.random.default_rng(0)
    corner, side = rng.uniform(0, 200, (60, 2)), rng.uniform(1, 224, (60, 2))
    boxes = np.concatenate([corner, corner + side], 1)
    found = _windows(boxes.tolist())
    longest = side.max(1)
    expected = (longest > 14 * 4).astype(int) + (longest > 14 * 8)
    assert np.array_equal(found["level"][0], expected)
    inside = found["inside"][0]
    assert inside.min() >= -0.01 and inside.max() <= 15.01
    assert np.array_equal(found["corner"], np.round(found["corner"]))
    stride = 4.0 * 2 ** found["level"][0][:, None]
    assert np.allclose(inside * stride + np.tile(found["in_image"][0, :, :2], 2), boxes, atol=1e-3)


def test_pixels_that_are_learnt() -> None:
    found = _windows([[21, 40, 50, 61]])
    inside = found["inside"][0, 0]
    at = np.arange(16)
    for name, margin in (("near", 1), ("strict", 0)):
        x = (at >= inside[0] - margin) & (at <= inside[2] + margin)
        y = (at >= inside[1] - margin) & (at <= inside[3] + margin)
        assert np.array_equal(found[name][0], y[:, None] & x)


def test_a_box_wider_than_the_coarsest_window_keeps_its_middle() -> None:
    found = _windows([[0, 0, 600, 100]])
    assert found["level"][0, 0] == 2
    inside = found["inside"][0, 0]
    assert inside[0] < 0 and inside[2] > 16 and abs((inside[0] + inside[2]) / 2 - 7.5) <= 0.5


def test_the_loss_is_the_mean_over_the_pixels_near_boxes() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (3, 3, 8, 8)).astype(np.float32)
    target = rng.random((3, 8, 8)).astype(np.float32)
    near = rng.random((3, 8, 8)) < 0.5
    labels, is_object = np.array([2, 1, 0], np.int32), np.array([True, True, False])
    given = {"l": logits, "c": labels, "t": target, "n": near, "o": is_object}
    x = {k: mb.placeholder(k, v.shape, v.dtype.name) for k, v in given.items()}
    found = mb.compile({"loss": generator_loss(*x.values())})(**given)["loss"]
    own = logits[[0, 1], labels[:2]].astype(np.float64)
    every = np.logaddexp(0, own) - own * target[:2]
    assert np.isclose(found, every[near[:2]].mean(), rtol=1e-6)


def test_a_window_that_knows_the_mask_gives_it_back() -> None:
    """Targets of a disc, said of pixels of 4, pasted into a picture of another size."""
    height, width, seen = 90, 120, (60, 80)
    y, x = np.mgrid[:height, :width] + 0.5
    disc = ((y - 47) / 27) ** 2 + ((x - 61) / 33) ** 2 < 1
    rows, columns = (np.arange(60) * 1.5).astype(int), (np.arange(80) * 1.5).astype(int)
    cropped = masks_of.crop(disc[rows][:, columns])
    pixels, places = np.zeros((1, 4000), np.uint8), np.zeros((1, 1, 5), np.int32)
    masks_of.pack([cropped], pixels[0], places[0])
    box = np.array([28, 20, 94, 74]) / 1.5
    windows = _generator(replace(GENERATOR, window=20)).windows(
        F.identity(mb.placeholder("rois", (1, 1, 4)))
    )
    target = F.mask_targets(
        *(mb.placeholder(n, v.shape, v.dtype.name) for n, v in
          (("masks", pixels), ("places", places), ("sizes", np.array([seen], np.int32)))),
        windows.boxes(20), mb.placeholder("objects", (1, 1), "int32"),
        mb.placeholder("count", (1,), "int32"), 20,
    )  # fmt: skip
    found = mb.compile({"target": target, "window": windows.in_image()})(
        rois=box.astype(np.float32)[None, None], masks=pixels, places=places,
        sizes=np.array([seen], np.int32), objects=np.zeros((1, 1), np.int32),
        count=np.ones(1, np.int32),
    )  # fmt: skip
    assert found["window"][0, 0, 2] == 4
    top, left, values = masks_of.paste_window(
        found["target"][0], found["window"][0, 0], box * 1.5, (height, width), seen
    )
    whole = np.zeros((height, width), bool)
    whole[top : top + values.shape[0], left : left + values.shape[1]] = values > 0.5
    assert not whole[:20].any() and not whole[74:].any() and not whole[:, :28].any()
    inside = np.zeros_like(disc)
    inside[20:74, 28:94] = disc[20:74, 28:94]
    assert (whole & inside).sum() / (whole | inside).sum() > 0.96


@cache
def _training(images: int) -> mb.Function:
    x = {k: mb.placeholder(k, v.shape, v.dtype.name) for k, v in _masked([0] * images).items()}
    model = FasterRCNN(WITH_MASKS, rng=0)
    losses = model.losses(**x)
    named = model.named_parameters()
    gradients = mb.gradients(losses["loss_mask"], list(named.values()))
    return mb.compile({**losses, **dict(zip(named, gradients, strict=True))})


def test_every_weight_learns() -> None:
    found = _training(2)(**_masked([3, 5]))
    assert _is_finite(found) and 0.1 < found["loss_mask"] < 10
    for part in ("roi_heads.mask_generator", "backbone.fpn.layer_blocks.0"):
        assert min(_largest_gradients(found, part)) > 0
    none = _training(2)(**_masked([0, 0]))
    assert _is_finite(none) and none["loss_mask"] == 0


@pytest.mark.parametrize("images", [1, 2])
def test_detections_say_where_their_windows_are(images: int) -> None:
    model = FasterRCNN(replace(WITH_MASKS, roi=replace(CONFIG.roi, score=0.0)), rng=0)
    x = mb.placeholder("images", (images, 3, 64, 96))
    sizes = mb.placeholder("image_sizes", (images, 2), "int32")
    batch = _batch([1] * images)
    found = mb.compile(model.detect(x, sizes))(
        images=batch["images"], image_sizes=batch["image_sizes"]
    )
    rows = CONFIG.roi.detections
    assert found["masks"].shape == (images, rows, 16, 16)
    assert found["mask_windows"].shape == (images, rows, 3)
    for row, count in enumerate(found["count"]):
        boxes, windows = found["boxes"][row, :count], found["mask_windows"][row, :count]
        first, last = windows[:, :2], windows[:, :2] + 15 * windows[:, 2:]
        assert (
            count and (first <= boxes[:, :2] + 0.01).all() and (last >= boxes[:, 2:] - 0.01).all()
        )
        assert (found["masks"][row, count:] == 0).all()
