"""Faster R-CNN on hard batches: no objects, few proposals, other images, other sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from golden_detector import recipe

import megbrain_py as mb
from megbrain_py import functional as F
from megbrain_py.errors import DataError, EngineError, GraphError
from megbrain_py.models.faster_rcnn import PRESETS, FasterRCNN, FasterRCNNConfig, RoIHeadsConfig
from megbrain_py.models.rpn import RPNConfig
from megbrain_py.training.detector import make_model

Batch = dict[str, np.ndarray]
KINDS, MOST_TRUE = 5, 6
CONFIG = FasterRCNNConfig(
    num_classes=KINDS,
    backbone="laptop",
    norm="frozen",
    fpn_channels=16,
    anchor_sizes=(12.0, 24.0, 48.0, 96.0),
    canonical_scale=64.0,
    rpn=RPNConfig(40, 40, 30, 20, samples=32),
    roi=RoIHeadsConfig(samples=16, positive=0.5, hidden=24, pool=3, detections=12),
)
MANY = replace(
    CONFIG,
    rpn=replace(CONFIG.rpn, samples=9000, pre_nms_train=5000, post_nms_train=70),
    roi=replace(CONFIG.roi, samples=100),
)
LOSSES = {"loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"}


@cache
def _model(config: FasterRCNNConfig = CONFIG) -> FasterRCNN:
    """A detector with made weights that have clear opinions."""
    model = FasterRCNN(config, rng=0)
    shapes = {name: value.shape for name, value in model.named_state().items()}
    model.load_state_dict(recipe.recipe_weights(shapes))
    return model


@cache
def _training(images: int, config: FasterRCNNConfig = CONFIG) -> mb.Function:
    """Losses and gradients of a batch of 64 x 96."""
    x = {k: mb.placeholder(k, v.shape, v.dtype.name) for k, v in _batch([0] * images).items()}
    losses = _model(config).losses(**x)
    total = F.sum(F.stack(list(losses.values()), 0))
    named = _model(config).named_parameters()
    gradients = mb.gradients(total, list(named.values()))
    return mb.compile({**losses, **dict(zip(named, gradients, strict=True))})


@cache
def _detecting(images: int, height: int = 64, width: int = 96) -> mb.Function:
    x = mb.placeholder("images", (images, 3, height, width))
    sizes = mb.placeholder("image_sizes", (images, 2), "int32")
    model = _model()
    found = model.rpn.candidates(model.backbone(x), (height, width))
    proposals = model.rpn.proposals(found, sizes, training=False)
    return mb.compile(
        {**model.detect(x, sizes), "proposals": proposals.boxes, "proposal_count": proposals.count}
    )


def _batch(counts: Sequence[int], first: int = 0) -> Batch:
    """Images of 64 x 96 (an odd one smaller, padded), image i with counts[i] objects."""
    n = len(counts)
    batch = {
        "images": np.zeros((n, 3, 64, 96), np.float32),
        "image_sizes": np.zeros((n, 2), np.int32),
        "boxes": np.zeros((n, MOST_TRUE, 4), np.float32),
        "labels": np.zeros((n, MOST_TRUE), np.int32),
        "box_count": np.array(counts, np.int32),
        "key": np.arange(first, first + n, dtype=np.int64) * 7919 + 3,
    }
    for i, count in enumerate(counts):
        height, width = ((64, 96), (57, 83))[(first + i) % 2]
        picture = recipe.recipe_image(f"hard/{first + i}", height, width)
        batch["images"][i, :, :height, :width] = picture * 4 - 2
        batch["image_sizes"][i] = height, width
        places = recipe.uniform(f"hard/boxes/{first + i}", (MOST_TRUE, 4))[:count]
        corner = (places[:, :2] + 1) / 2 * [width - 40, height - 40]
        side = 20 + (places[:, 2:] + 1) * 9
        batch["boxes"][i, :count] = np.concatenate([corner, corner + side], 1)
        batch["labels"][i, :count] = 1 + np.arange(count) % KINDS
    return batch


def _largest_gradients(found: Mapping[str, np.ndarray], part: str) -> list[float]:
    """The largest |gradient| of each parameter of a part of the model."""
    return [float(np.abs(v).max()) for k, v in found.items() if k.startswith(part)]


def _is_finite(found: Mapping[str, np.ndarray]) -> bool:
    return all(np.isfinite(value).all() for value in found.values())


def _close(a: np.ndarray, b: np.ndarray, bar: float = 1e-5) -> bool:
    return bool(np.abs(a - b).max() <= bar * max(np.abs(b).max(), 1e-6))


# --- training ---


def test_every_loss_and_parameter_takes_part() -> None:
    found = _training(2, MANY)(**_batch([3, 5]))
    assert set(found) - set(_model().named_parameters()) == LOSSES
    assert _is_finite(found)
    assert all(found[name] > 0 for name in LOSSES)
    assert min(_largest_gradients(found, "")) > 0


def test_a_batch_without_any_object() -> None:
    """Only "nothing here" is learnt: boxes have no loss and get no gradient."""
    found = _training(2)(**_batch([0, 0]))
    assert _is_finite(found)
    assert found["loss_box_reg"] == found["loss_rpn_box_reg"] == 0
    assert found["loss_classifier"] > 0 and found["loss_objectness"] > 0
    for part in ("rpn.head.bbox_pred", "roi_heads.box_predictor.bbox_pred"):
        assert _largest_gradients(found, part) == [0, 0]
    for part in ("rpn.head.cls_logits", "roi_heads.box_predictor.cls_score", "backbone.body"):
        assert min(_largest_gradients(found, part)) > 0


def test_an_image_without_objects_beside_one_with() -> None:
    """Its padding rows are no objects, whatever they hold."""
    batch = _batch([0, 4])
    found = _training(2)(**batch)
    assert _is_finite(found)
    assert found["loss_box_reg"] > 0 and found["loss_rpn_box_reg"] > 0
    batch["boxes"][0] = [4, 4, 60, 60]
    batch["labels"][0] = KINDS
    batch["boxes"][1, 4:], batch["labels"][1, 4:] = [0, 0, 90, 50], 2
    again = _training(2)(**batch)
    assert all(np.array_equal(found[name], again[name]) for name in found)


def test_regression_is_divided_by_the_samples_of_the_whole_batch() -> None:
    """An image without objects beside one with halves the losses of the latter's boxes."""
    alone = _training(1)(**_batch([4], first=1))
    beside = _training(2)(**_batch([0, 4]))
    assert _close(beside["loss_rpn_box_reg"], alone["loss_rpn_box_reg"] / 2)
    assert _close(beside["loss_box_reg"], alone["loss_box_reg"] / 2)


def test_the_order_of_images_does_not_matter() -> None:
    """Keys travel with their images, so the same boxes are drawn."""
    batch = _batch([3, 0, 6])
    turned = {name: value[[2, 0, 1]] for name, value in batch.items()}
    a, b = _training(3)(**batch), _training(3)(**turned)
    assert all(_close(b[name], a[name]) for name in LOSSES)
    assert all(_close(b[name], a[name], 1e-3) for name in a)


def test_the_key_decides_what_is_drawn() -> None:
    batch = _batch([3, 5])
    first, again = _training(2)(**batch), _training(2)(**batch)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    other = _training(2)(**{**batch, "key": batch["key"] + 1})
    assert any(first[name] != other[name] for name in LOSSES)


def test_more_samples_than_boxes() -> None:
    """Counts beyond what there is: every proposal and every negative anchor is looked at."""
    found = _training(2, MANY)(**_batch([1, 0]))
    assert _is_finite(found)
    assert found["loss_box_reg"] > 0 and found["loss_rpn_box_reg"] > 0
    again = _training(2, MANY)(**{**_batch([1, 0]), "key": np.array([1, 2])})
    assert all(_close(again[name], found[name]) for name in LOSSES)  # nothing is left to chance


def test_an_image_that_yields_no_proposals() -> None:
    """Every candidate is narrower than min_size: the losses of the boxes are 0, not NaN."""
    config = replace(CONFIG, rpn=replace(CONFIG.rpn, min_size=1000.0))
    found = _training(1, config)(**_batch([0]))
    assert _is_finite(found)
    assert found["loss_classifier"] == found["loss_box_reg"] == 0 < found["loss_objectness"]


# --- detection ---


def _rows_are_right(found: Batch, sizes: np.ndarray) -> None:
    for i, count in enumerate(found["count"]):
        boxes, scores, labels = (found[k][i] for k in ("boxes", "scores", "labels"))
        height, width = sizes[i]
        assert np.isfinite(boxes).all()
        assert (np.diff(scores[:count]) <= 0).all() and (scores[:count] > CONFIG.roi.score).all()
        assert ((labels[:count] >= 1) & (labels[:count] <= KINDS)).all()
        assert not (scores[count:].any() or labels[count:].any() or boxes[count:].any())
        assert (boxes[:count] >= 0).all()
        assert (boxes[:count] <= np.array([width, height, width, height])).all()
        sides = boxes[:count, 2:] - boxes[:count, :2]
        assert (sides >= CONFIG.roi.min_size).all()


@pytest.mark.parametrize("size", [(64, 96), (96, 64), (32, 32)])
def test_detection_on_noise(size: tuple[int, int]) -> None:
    """Rows are as many for every size of image; the valid ones come first."""
    rng = np.random.default_rng(1)
    images = rng.standard_normal((2, 3, *size)).astype(np.float32)
    sizes = np.array([size, (size[0] - 5, size[1] - 9)], np.int32)
    found = _detecting(2, *size)(images=images, image_sizes=sizes)
    rows = CONFIG.roi.detections
    assert found["boxes"].shape == (2, rows, 4) and found["count"].shape == (2,)
    assert found["scores"].shape == found["labels"].shape == (2, rows)
    assert (found["count"] > 0).all()
    _rows_are_right(found, sizes)


def test_other_images_of_a_batch_change_nothing() -> None:
    batch = _batch([0, 0, 0])
    given = {name: batch[name] for name in ("images", "image_sizes")}
    together = _detecting(3)(**given)
    for i in range(3):
        alone = _detecting(1)(**{name: value[i : i + 1] for name, value in given.items()})
        for name in ("count", "proposal_count", "labels"):
            np.testing.assert_array_equal(alone[name][0], together[name][i])
        for name in ("proposals", "boxes", "scores"):
            count = int(alone["proposal_count" if name == "proposals" else "count"][0])
            assert _close(alone[name][0, :count], together[name][i, :count], 1e-4)


def test_a_high_threshold_leaves_nothing() -> None:
    config = replace(CONFIG, roi=replace(CONFIG.roi, score=0.999))
    batch = _batch([0])
    sizes = mb.placeholder("image_sizes", (1, 2), "int32")
    found = mb.compile(_model(config).detect(mb.placeholder("images", (1, 3, 64, 96)), sizes))
    ours = found(images=batch["images"], image_sizes=batch["image_sizes"])
    assert ours["count"].tolist() == [0]
    assert not any(ours[name].any() for name in ("boxes", "scores", "labels"))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_broken_image_harms_only_itself(value: float) -> None:
    """It gives no boxes; in training every loss shows it, for the guard to see."""
    batch = _batch([3, 5])
    whole = _detecting(2)(**{name: batch[name] for name in ("images", "image_sizes")})
    batch["images"][0, 1, 7, 9] = value
    found = _detecting(2)(**{name: batch[name] for name in ("images", "image_sizes")})
    assert found["count"].tolist() == [0, whole["count"][1]]
    assert all(np.array_equal(found[name][1], whole[name][1]) for name in ("boxes", "scores"))
    _rows_are_right(found, batch["image_sizes"])
    losses = _training(2)(**batch)
    assert all(np.isnan(losses[name]) for name in LOSSES)


def test_true_boxes_that_are_none() -> None:
    """Without area, outside of the image, not a number, more than there are rows: no harm."""
    batch = _batch([3, 5])
    batch["boxes"][0, :2] = [[10, 10, 10, 20], [np.nan] * 4]
    batch["boxes"][1, :2] = [[-50, -50, -20, -20], [500, 500, 600, 600]]
    assert _is_finite(_training(2)(**batch))
    batch["box_count"][:] = 100, -1
    assert _is_finite(_training(2)(**batch))


def test_a_label_beyond_the_classes_is_an_error() -> None:
    batch = _batch([3, 5])
    batch["labels"][:, :5] = KINDS + 4
    with pytest.raises(EngineError, match=f"label {KINDS + 4} of row .* is not one of 6 classes"):
        _training(2)(**batch)


# --- configuration ---


def test_printing_shows_every_choice() -> None:
    text = repr(PRESETS["r50_fpn"])
    for part in ("num_classes=80", "backbone='resnet50'", "nms_iou=0.7", "detections=100"):
        assert part in text


@pytest.mark.parametrize("name", PRESETS)
def test_presets_have_the_names_of_torchvision(name: str) -> None:
    config = replace(PRESETS[name], backbone="laptop")  # a ResNet-50's names have their own test
    names = FasterRCNN(config, rng=0).state_dict()
    for expected in (
        "backbone.body.layer4.0.conv2.weight", "backbone.fpn.inner_blocks.3.0.bias",
        "backbone.fpn.layer_blocks.0.0.weight", "rpn.head.conv.0.0.weight",
        "rpn.head.cls_logits.bias", "rpn.head.bbox_pred.weight", "roi_heads.box_head.fc6.weight",
        "roi_heads.box_head.fc7.bias", "roi_heads.box_predictor.cls_score.weight",
        "roi_heads.box_predictor.bbox_pred.bias",
    ):  # fmt: skip
        assert expected in names
    kinds = config.num_classes + 1
    assert names["roi_heads.box_predictor.cls_score.weight"].shape == (kinds, config.roi.hidden)
    assert names["roi_heads.box_predictor.bbox_pred.bias"].shape == (4 * kinds,)


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda: replace(CONFIG, num_classes=0), "num_classes must be at least 1, is 0"),
        (lambda: replace(CONFIG, anchor_sizes=(8.0,)), r"or 5 \(with P6\), has \(8.0,\)"),
        (lambda: replace(CONFIG, norm="group"), "norm must be 'batch' or 'frozen', is 'group'"),
        (lambda: RPNConfig(samples=0), "rpn: samples must be at least 1, is 0"),
        (lambda: RPNConfig(post_nms_test=-1), "rpn: post_nms_test must be at least 1, is -1"),
        (lambda: RPNConfig(positive=1.5), "rpn: positive must be in 0..1, is 1.5"),
        (lambda: RPNConfig(low=0.8), "are low 0.8, high 0.7"),
        (lambda: RPNConfig(beta=-1.0), "rpn: beta must not be negative, is -1.0"),
        (lambda: RoIHeadsConfig(hidden=0), "roi: hidden must be at least 1, is 0"),
        (lambda: RoIHeadsConfig(nms_iou=2.0), "roi: nms_iou must be in 0..1, is 2.0"),
        (lambda: RoIHeadsConfig(weights=(1, 1, 0, 1)), "roi: weights must be positive"),
        (lambda: FasterRCNN(replace(CONFIG, backbone="resnet5")), "'resnet5' is not known"),
        (lambda: FasterRCNN(replace(CONFIG, backbone="cifar20")), "C2, C3, C4; the pyramid needs"),
    ],
)
def test_what_a_configuration_refuses(make: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        make()


def test_images_must_be_padded() -> None:
    x, sizes = mb.placeholder("x", (1, 3, 64, 70)), mb.placeholder("s", (1, 2), "int32")
    with pytest.raises(GraphError, match=r"multiples of 32 .*have shape \(1, 3, 64, 70\)"):
        _model().detect(x, sizes)


def test_a_backbone_that_does_not_fit_is_an_error_of_the_configuration() -> None:
    with pytest.raises(DataError, match="config: model: backbone 'cifar20' has the stages"):
        make_model("laptop", {"backbone": "cifar20"}, 3, 0)
