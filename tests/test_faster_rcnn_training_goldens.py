"""A training step of our Faster R-CNN against torchvision's: matching, losses, gradients."""

from __future__ import annotations

import numpy as np
import pytest
from golden_detector import (
    BAR,
    CONFIG,
    GRADIENT_BAR,
    MOST_TRUE,
    PADDED,
    Array,
    Goldens,
    batch,
    detector,
    error,
    goldens,
    padded,
    rows_of,
    summary_error,
)

import megbrain_py as mb
from megbrain_py import functional as F
from megbrain_py.models.faster_rcnn.roi_heads import Drawn
from megbrain_py.models.rpn import Proposals

LOSSES = ("loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg")
GRADIENTS = "train/gradient/"


def _pair(name: str) -> list[Array]:
    return [goldens("faster_rcnn")[f"train/{name}/{i}"] for i in range(2)]


def _counts(rows: list[Array]) -> Array:
    return np.array([len(row) for row in rows], np.int32)


def _anchors_drawn() -> dict[str, Array]:
    """torchvision's sample of anchors, positives first."""
    positive, negative = _pair("rpn_positive"), _pair("rpn_negative")
    both = [np.concatenate(rows) for rows in zip(positive, negative, strict=True)]
    return {
        "drawn": padded(both, CONFIG.rpn.samples, np.int32),
        "rpn_positives": _counts(positive),
        "rpn_total": _counts(both),
        "matches": np.stack(_pair("rpn_matched")).astype(np.int32),
    }


def _rois_drawn() -> dict[str, Array]:
    """torchvision's sample of proposals, positives first."""
    labels = _pair("roi_labels")
    order = [np.argsort(row == 0, kind="stable") for row in labels]
    size = CONFIG.roi.samples
    truth = [b[n] for b, n in zip(_pair("gt_boxes"), _pair("roi_gt"), strict=True)]

    def sorted_(rows: list[Array], dtype: type[np.generic]) -> Array:
        return padded([row[at] for row, at in zip(rows, order, strict=True)], size, dtype)

    return {
        "rois": sorted_(_pair("rois"), np.float32),
        "truth": sorted_(truth, np.float32),
        "roi_labels": sorted_(labels, np.int32),
        "roi_positives": _counts([row[row > 0] for row in labels]),
        "roi_total": _counts(labels),
        "targets": sorted_(_pair("roi_targets"), np.float32),
    }


@pytest.fixture(scope="module")
def golden() -> Goldens:
    return goldens("faster_rcnn")


@pytest.fixture(scope="module")
def step(golden: Goldens) -> dict[str, Array]:
    """Proposals, losses and gradients of one step with torchvision's samples injected."""
    model = detector()
    given = batch(int(golden["chain/seed"]))
    fed = {k: given[k] for k in ("images", "image_sizes", "boxes")}
    fed |= {**_anchors_drawn(), **{k: v for k, v in _rois_drawn().items() if k != "targets"}}
    x = {k: mb.placeholder(k, v.shape, v.dtype.name) for k, v in fed.items()}
    levels = model.backbone(x["images"])
    found = model.rpn.candidates(levels, PADDED)
    proposals = model.rpn.proposals(found, x["image_sizes"], training=True)
    drawn = Drawn(
        x["rois"], x["truth"], x["roi_labels"], x["roi_positives"], x["roi_total"], x["roi_labels"]
    )  # the last, an object's row, is only for masks
    sample = x["matches"], x["drawn"], x["rpn_positives"], x["rpn_total"]
    losses = {
        **model.roi_heads.losses(levels, drawn),
        **model.rpn.losses_of(found, x["boxes"], *sample),
    }
    names = model.named_parameters()
    watched = [name for name in names if f"{GRADIENTS}{name}/samples" in golden]
    total = F.add(F.add(losses[LOSSES[0]], losses[LOSSES[1]]), losses[LOSSES[2]])
    gradients = mb.gradients(F.add(total, losses[LOSSES[3]]), [names[n] for n in watched])
    outputs = {
        **losses,
        **{f"{GRADIENTS}{n}": g for n, g in zip(watched, gradients, strict=True)},
        "proposals": proposals.boxes,
        "proposal_count": proposals.count,
    }
    return {**given, **mb.compile(outputs)(**fed)}


@pytest.mark.parametrize("image", range(2))
def test_training_proposals(image: int, golden: Goldens, step: dict[str, Array]) -> None:
    ours = step["proposals"][image, : step["proposal_count"][image]]
    rows_of(ours, golden[f"train/proposals/{image}"], BAR * PADDED[0])


def test_matching_of_anchors(golden: Goldens, step: dict[str, Array]) -> None:
    sides = (40, 20, 10, 5, 3)
    anchors = F.concat([F.anchors((s, s), PADDED, [size]) for s, size in
                        zip(sides, CONFIG.anchor_sizes, strict=True)], 0)  # fmt: skip
    boxes = mb.placeholder("boxes", (2, MOST_TRUE, 4))
    count = mb.placeholder("count", (2,), "int32")
    c = CONFIG.rpn
    found, _ = F.match_boxes(anchors, boxes, count, high=c.high, low=c.low, allow_low_quality=True)
    ours = mb.compile(found)(boxes=step["boxes"], count=step["box_count"])["output"]
    np.testing.assert_array_equal(ours, np.stack(_pair("rpn_matched")))


def test_matching_and_drawing_of_proposals(golden: Goldens, step: dict[str, Array]) -> None:
    """Which are drawn is chance; how many, of which kind, with which truth is not."""
    rows = _pair("proposals")
    given = {
        "proposals": padded(rows, CONFIG.rpn.post_nms_train, np.float32),
        "count": _counts(rows),
        **{k: step[k] for k in ("boxes", "labels", "box_count")},
        "key": np.array([5, 6]),
    }
    x = {k: mb.placeholder(k, v.shape, v.dtype.name) for k, v in given.items()}
    proposals = Proposals(x["proposals"], x["proposals"][:, :, 0], x["count"])
    heads = detector().roi_heads
    drawn = heads.draw(proposals, x["boxes"], x["labels"], x["box_count"], x["key"])
    ours = mb.compile({k: getattr(drawn, k) for k in Drawn.__dataclass_fields__})(**given)
    np.testing.assert_array_equal(ours["total"], [24, 24])
    for i, matched in enumerate(_pair("roi_matched")):
        every = np.concatenate([rows[i], golden[f"train/gt_boxes/{i}"]])
        positives = min(int((matched >= 0).sum()), 6)
        assert ours["positives"][i] == positives == (golden[f"train/roi_labels/{i}"] > 0).sum()
        at = [int(np.abs(every - roi).max(1).argmin()) for roi in ours["rois"][i]]
        assert len(set(at)) == 24
        assert (matched[at[:positives]] >= 0).all() and (matched[at[positives:]] == -1).all()
        labels = golden[f"train/gt_labels/{i}"][matched[at[:positives]]]
        np.testing.assert_array_equal(ours["labels"][i, :positives], labels)
        assert not ours["labels"][i, positives:].any()
        truth = step["boxes"][i][matched[at[:positives]]]
        np.testing.assert_array_equal(ours["truth"][i, :positives], truth)


def test_regression_targets() -> None:
    drawn = _rois_drawn()
    names = ("truth", "rois")
    truth, rois = (mb.placeholder(name, drawn[name].shape) for name in names)
    encoded = F.encode_boxes(truth, rois, CONFIG.roi.weights)
    ours = mb.compile(encoded)(**{name: drawn[name] for name in names})["output"]
    assert error(ours, drawn["targets"]) <= BAR


@pytest.mark.parametrize("name", LOSSES)
def test_losses(name: str, golden: Goldens, step: dict[str, Array]) -> None:
    assert error(step[name], golden[f"train/losses/{name}"]) <= BAR


def test_gradients(golden: Goldens, step: dict[str, Array]) -> None:
    keys = [key.removesuffix("/samples") for key in golden if key.startswith(GRADIENTS)]
    keys = [key for key in keys if not key.endswith("/stats")]
    errors = {key: summary_error(golden, key, step[key]) for key in keys}
    assert len(errors) == 53 + 16 + 6 + 8  # body, pyramid, proposals, heads: every parameter
    assert {f"{GRADIENTS}{name}" for name in detector().named_parameters()} == set(errors)
    assert max(errors.values()) <= GRADIENT_BAR, max(errors, key=errors.__getitem__)
