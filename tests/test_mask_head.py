"""The mask head of the detector: names, loss, what it learns from and what it gives."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
from test_faster_rcnn import CONFIG, MOST_TRUE, _batch, _is_finite, _largest_gradients

import megbrain_py as mb
from megbrain_py import functional as F
from megbrain_py.models.faster_rcnn import FasterRCNN
from megbrain_py.models.mask import MaskHeadConfig, mask_loss

WITH_MASKS = replace(CONFIG, mask="head", mask_head=MaskHeadConfig(7, convs=2, channels=6))
CAPACITY = 6000


@cache
def _model() -> FasterRCNN:
    return FasterRCNN(WITH_MASKS, rng=0)


def _masked(counts: list[int]) -> dict[str, np.ndarray]:
    """A batch whose objects fill the left half of their boxes."""
    batch = _batch(counts)
    n = len(counts)
    batch["masks"] = np.zeros((n, CAPACITY), np.uint8)
    batch["mask_places"] = np.zeros((n, MOST_TRUE, 5), np.int32)
    for i, count in enumerate(counts):
        at = 0
        for g in range(count):
            x1, y1, x2, y2 = batch["boxes"][i, g].astype(int)
            area = (y2 - y1) * (x2 - x1)
            width = x2 - x1
            batch["masks"][i, at : at + area] = np.arange(area) % width < width // 2
            batch["mask_places"][i, g] = at, y1, x1, y2 - y1, x2 - x1
            at += area
    return batch


@cache
def _training(images: int) -> mb.Function:
    x = {k: mb.placeholder(k, v.shape, v.dtype.name) for k, v in _masked([0] * images).items()}
    losses = _model().losses(**x)
    named = _model().named_parameters()
    gradients = mb.gradients(losses["loss_mask"], list(named.values()))
    given = {k: g for k, g in zip(named, gradients, strict=True) if g is not None}
    return mb.compile({**losses, **given})


def test_names_are_torchvisions() -> None:
    own = {n.removeprefix("roi_heads.") for n in _model().named_state() if "mask" in n}
    convs = {f"mask_head.{i}.0.{part}" for i in range(2) for part in ("weight", "bias")}
    layers = ("conv5_mask", "mask_fcn_logits")
    assert own == convs | {f"mask_predictor.{n}.{p}" for n in layers for p in ("weight", "bias")}
    shapes = {n: p.shape for n, p in _model().named_state().items()}
    assert shapes["roi_heads.mask_head.0.0.weight"] == (6, 16, 3, 3)
    assert shapes["roi_heads.mask_predictor.conv5_mask.weight"] == (6, 6, 2, 2)
    assert shapes["roi_heads.mask_predictor.mask_fcn_logits.weight"] == (6, 6, 1, 1)


def test_boxes_are_what_they_are_without_masks() -> None:
    """The mask branch has weights of its own: a detector's start does not change."""
    plain = FasterRCNN(CONFIG, rng=0).named_state()
    own = _model().named_state()
    assert all(np.array_equal(own[name].value, p.value) for name, p in plain.items())


def test_the_loss_is_the_mean_over_true_maps() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (5, 4, 6, 6)).astype(np.float32)
    target = rng.random((5, 6, 6)).astype(np.float32)
    labels = np.array([1, 3, 2, 0, 0], np.int32)
    is_object = np.array([True, True, True, False, False])
    inputs = {"logits": logits, "labels": labels, "target": target, "is_object": is_object}
    x = {k: mb.placeholder(k, v.shape, v.dtype.name) for k, v in inputs.items()}
    loss = mask_loss(*x.values())
    step = mb.compile({"loss": loss, "gradient": mb.gradients(loss, [x["logits"]])[0]})
    own = logits[np.arange(3), labels[:3]].astype(np.float64)
    expected = np.logaddexp(0, own) - own * target[:3]
    found = step(**inputs)
    assert np.isclose(found["loss"], expected.mean(), rtol=1e-6)
    sigmoid = 1 / (1 + np.exp(-own))
    for row in range(3):
        expected = (sigmoid[row] - target[row]) / (3 * 36)
        assert np.allclose(found["gradient"][row, labels[row]], expected, atol=1e-7)
    assert np.count_nonzero(found["gradient"]) == 3 * 36


def test_every_weight_of_the_branch_learns_and_the_pyramid_too() -> None:
    found = _training(2)(**_masked([3, 5]))
    assert _is_finite(found) and found["loss_mask"] > 0
    for part in ("roi_heads.mask_head", "roi_heads.mask_predictor", "backbone.fpn.layer_blocks.0"):
        assert min(_largest_gradients(found, part)) > 0
    for part in ("roi_heads.box", "rpn"):
        assert max(_largest_gradients(found, part)) == 0


def test_without_objects_there_is_no_loss() -> None:
    found = _training(2)(**_masked([0, 0]))
    assert _is_finite(found) and found["loss_mask"] == 0
    assert max(_largest_gradients(found, "roi_heads.mask")) == 0


def test_detections_have_masks_in_their_rows() -> None:
    x = mb.placeholder("images", (2, 3, 64, 96))
    sizes = mb.placeholder("image_sizes", (2, 2), "int32")
    threshold = replace(CONFIG.roi, score=0.0)
    model = FasterRCNN(replace(WITH_MASKS, roi=threshold), rng=0)
    batch = _batch([2, 3])
    found = mb.compile(model.detect(x, sizes))(
        images=batch["images"], image_sizes=batch["image_sizes"]
    )
    assert found["masks"].shape == (2, CONFIG.roi.detections, 14, 14)
    for row, count in enumerate(found["count"]):
        assert count > 0
        assert ((found["masks"][row, :count] > 0) & (found["masks"][row, :count] < 1)).all()
        assert (found["masks"][row, count:] == 0).all()


def test_a_run_says_which_mask_is_nowhere() -> None:
    batch = _masked([1])
    batch["mask_places"][0, :, 0] = CAPACITY
    try:
        _training(1)(**batch)
    except mb.EngineError as error:
        assert "is outside of [0, 6000)" in str(error)
    else:
        raise AssertionError("a mask beyond the end was read")


def test_one_class_picks_its_own_map() -> None:
    logits = mb.placeholder("logits", (3, 2, 4, 4))
    labels = mb.placeholder("labels", (3,), "int32")
    from megbrain_py.models.mask import of_class

    given = np.random.default_rng(0).normal(size=(3, 2, 4, 4)).astype(np.float32)
    found = mb.compile({"y": F.identity(of_class(logits, labels))})(
        logits=given, labels=np.array([1, 0, 1], np.int32)
    )
    assert np.array_equal(found["y"], given[[0, 1, 2], [1, 0, 1]])
