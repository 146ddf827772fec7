"""Our Faster R-CNN against torchvision's, stage by stage, with the same made weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from golden_detector import (
    BAR,
    CONFIG,
    GRADIENT_BAR,
    ORIGINAL_SIZES,
    PADDED,
    Array,
    Goldens,
    batch,
    detector,
    error,
    goldens,
    made,
    rows_of,
    summary_error,
)

import megbrain_py as mb
from megbrain_py import functional as F
from megbrain_py.models.faster_rcnn.roi_heads import Drawn, RoIHeads
from megbrain_py.models.rpn import Proposals
from megbrain_py.models.rpn.rpn import Candidates

LEVELS = (40, 20, 10, 5, 3)  # sides of P2..P6 of a padded image
SMALL = ((112, 140), (144, 108))  # image sizes of the `alone` goldens
PIXEL_BAR = BAR * PADDED[0]
ALONE_ROIS = 12


def _pair(kind: str, stage: str, key: str) -> list[Array]:
    """`<stage>/<kind>/<image><key>` of both images."""
    return [goldens("faster_rcnn")[f"{stage}/{kind}/{i}{key}"] for i in range(2)]


def _check_detections(found: dict[str, Array], stage: str, scales: Array | None = None) -> None:
    """Boxes, scores and labels of both images; `scales` [2, 4] take ours to the golden's pixels."""
    arrays = goldens("faster_rcnn")
    for i in range(2):
        golden = {k: arrays[f"{stage}/detections/{i}/{k}"] for k in ("boxes", "scores", "labels")}
        count = int(found["count"][i])
        boxes = found["boxes"][i, :count] * (1.0 if scales is None else scales[i])
        assert count == len(golden["labels"])
        # The same proposal may give boxes of two classes at one place: labels are told apart.
        apart = 1000.0 * found["labels"][i, :count, None], 1000.0 * golden["labels"][:, None]
        rows = rows_of(boxes + apart[0], golden["boxes"] + apart[1], PIXEL_BAR)
        np.testing.assert_array_equal(found["labels"][i, rows], golden["labels"])
        assert np.abs(found["scores"][i, rows] - golden["scores"]).max() <= BAR


@pytest.fixture(scope="module")
def golden() -> Goldens:
    return goldens("faster_rcnn")


@pytest.fixture(scope="module")
def chain(golden: Goldens) -> dict[str, Array]:
    """One run from images to detections; pooling and box head also on the golden proposals."""
    model = detector()
    given = batch(int(golden["chain/seed"]))
    images = mb.placeholder("images", given["images"].shape)
    sizes = mb.placeholder("image_sizes", (2, 2), "int32")
    rois = mb.placeholder("rois", (2, CONFIG.rpn.post_nms_test, 4))
    stages = model.backbone.body.stages(images)
    levels = model.backbone.fpn(list(stages.values()))
    found = model.rpn.candidates(levels, PADDED)
    proposals = model.rpn.proposals(found, sizes, training=False)
    count = mb.graph.constant(np.full(2, CONFIG.rpn.post_nms_test, np.int32))
    class_logits, box_deltas = model.roi_heads.predict(levels, rois, count)
    outputs = {
        **stages,
        **{f"P{k + 2}": level for k, level in enumerate(levels)},
        **{f"logits/{k}": v for k, v in enumerate(found.logits)},
        **{f"deltas/{k}": v for k, v in enumerate(found.deltas)},
        "anchors": F.concat(found.anchors, 0),
        "proposals": proposals.boxes,
        "objectness": F.sigmoid(proposals.scores),
        "proposal_count": proposals.count,
        "pooled": model.roi_heads.pooled(levels, rois, count),
        "class_logits": class_logits,
        "box_deltas": box_deltas,
        **{f"detect/{k}": v for k, v in model.detect(images, sizes).items()},
    }
    run = mb.compile(outputs)
    fed = {"images": given["images"], "image_sizes": given["image_sizes"]}
    return {**given, **run(**fed, rois=np.stack(_pair("proposals", "chain", "")))}


def test_transform(golden: Goldens, chain: dict[str, Array]) -> None:
    np.testing.assert_array_equal(chain["image_sizes"], golden["chain/sizes"])
    assert summary_error(golden, "chain/images", chain["images"]) <= BAR
    for i, count in enumerate(chain["box_count"]):
        assert error(chain["boxes"][i, :count], golden[f"train/gt_boxes/{i}"]) <= 1e-6
        np.testing.assert_array_equal(chain["labels"][i, :count], golden[f"train/gt_labels/{i}"])


@pytest.mark.parametrize("name", [*(f"C{k}" for k in range(2, 6)), *(f"P{k}" for k in range(2, 7))])
def test_backbone_and_pyramid(name: str, golden: Goldens, chain: dict[str, Array]) -> None:
    assert summary_error(golden, f"chain/{name}", chain[name]) <= BAR


@pytest.mark.parametrize("level", range(5))
def test_rpn_head(level: int, golden: Goldens, chain: dict[str, Array]) -> None:
    side = LEVELS[level]
    for name, numbers in (("logits", 1), ("deltas", 4)):
        flat = chain[f"{name}/{level}"].reshape(2, side, side, 3 * numbers)  # ours: y, x, anchor
        ours = np.ascontiguousarray(flat.transpose(0, 3, 1, 2))
        assert summary_error(golden, f"chain/rpn/{name}/{level}", ours) <= BAR


def test_anchors(golden: Goldens, chain: dict[str, Array]) -> None:
    assert [3 * side * side for side in LEVELS] == golden["chain/anchors_per_level"].tolist()
    assert summary_error(golden, "chain/anchors", chain["anchors"]) == 0


@pytest.mark.parametrize("image", range(2))
def test_proposals(image: int, golden: Goldens, chain: dict[str, Array]) -> None:
    count = int(chain["proposal_count"][image])
    ours = chain["proposals"][image, :count]
    rows = rows_of(ours, golden[f"chain/proposals/{image}"], PIXEL_BAR)
    scores = chain["objectness"][image, rows]
    assert error(scores, golden[f"chain/objectness/{image}"]) <= BAR


@pytest.mark.parametrize("name", ["pooled", "class_logits", "box_deltas"])
def test_second_stage(name: str, golden: Goldens, chain: dict[str, Array]) -> None:
    ours = chain[name] if name == "pooled" else chain[name].reshape(60, -1)
    assert summary_error(golden, f"chain/{name}", ours) <= BAR


def test_detections(chain: dict[str, Array]) -> None:
    old, new = np.array(ORIGINAL_SIZES, np.float64), chain["image_sizes"]
    scales = (old / new)[:, [1, 0, 1, 0]]
    _check_detections({k[7:]: v for k, v in chain.items() if "detect/" in k}, "chain", scales)


# --- stages fed with made numbers ---


def test_rpn_head_alone(golden: Goldens) -> None:
    sides = LEVELS[1:]
    given = {f"x{k}": made(f"features/{k}", 2, 256, s, s) for k, s in enumerate(sides)}
    outputs = {}
    for k, value in enumerate(given.values()):
        logits, deltas = detector().rpn.head(mb.placeholder(f"x{k}", value.shape))
        outputs[f"logits/{k}"], outputs[f"deltas/{k}"] = logits, deltas
    for name, ours in mb.compile(outputs)(**given).items():
        assert summary_error(golden, f"alone/rpn_head/{name}", ours) <= BAR, name


def test_proposals_alone(golden: Goldens) -> None:
    rows = [3 * side * side for side in LEVELS]
    logits = 3 * made("objectness", 2, sum(rows))
    deltas = made("rpn_deltas", 2, sum(rows), 4) * np.float32(0.5)
    ends = np.cumsum([0, *rows])
    x, d = mb.placeholder("logits", logits.shape), mb.placeholder("deltas", deltas.shape)
    found = Candidates([], [], [])
    for k, (side, size) in enumerate(zip(LEVELS, CONFIG.anchor_sizes, strict=True)):
        found.logits.append(x[:, int(ends[k]) : int(ends[k + 1])])
        found.deltas.append(d[:, int(ends[k]) : int(ends[k + 1])])
        found.anchors.append(F.anchors((side, side), PADDED, [size]))
    sizes = mb.placeholder("sizes", (2, 2), "int32")
    made_of = detector().rpn.proposals(found, sizes, training=False)
    run = mb.compile(
        {"boxes": made_of.boxes, "scores": F.sigmoid(made_of.scores), "count": made_of.count}
    )
    ours = run(logits=logits, deltas=deltas, sizes=np.array(SMALL, np.int32))
    for i in range(2):
        count = int(ours["count"][i])
        at = rows_of(ours["boxes"][i, :count], golden[f"alone/proposals/{i}"], PIXEL_BAR)
        assert error(ours["scores"][i, at], golden[f"alone/proposal_scores/{i}"]) <= BAR


def test_pooling_alone(golden: Goldens) -> None:
    maps = {f"p{k}": made(f"pool/{k}", 2, 8, side, side) for k, side in enumerate(LEVELS[:4])}
    rois = np.stack([boxes[:ALONE_ROIS] for boxes in _pair("proposals", "alone", "")])
    levels = [mb.placeholder(name, value.shape) for name, value in maps.items()]
    count = mb.graph.constant(np.full(2, ALONE_ROIS, np.int32))
    pooled = detector().roi_heads.pooled(levels, mb.placeholder("rois", rois.shape), count)
    ours = mb.compile(pooled)(**maps, rois=rois)["output"]
    assert summary_error(golden, "alone/pooled", ours) <= BAR


def test_box_head_alone(golden: Goldens) -> None:
    given = made("head", 24, 256, 7, 7)
    heads = detector().roi_heads
    logits, deltas = heads.box_predictor(heads.box_head(mb.placeholder("x", given.shape)))
    ours = mb.compile({"class_logits": logits, "box_deltas": deltas})(x=given)
    for name, value in ours.items():
        assert error(value, golden[f"alone/{name}"]) <= BAR, name


def test_detections_alone() -> None:
    kinds = CONFIG.num_classes + 1
    given = {
        "logits": (2 * made("post/logits", 24, kinds)).reshape(2, ALONE_ROIS, kinds),
        "deltas": made("post/deltas", 24, 4 * kinds).reshape(2, ALONE_ROIS, kinds, 4),
        "rois": np.stack([boxes[:ALONE_ROIS] for boxes in _pair("proposals", "alone", "")]),
    }
    x = {name: mb.placeholder(name, value.shape) for name, value in given.items()}
    count = mb.graph.constant(np.full(2, ALONE_ROIS, np.int32))
    sizes = mb.graph.constant(np.array(SMALL, np.int32))
    proposals = Proposals(x["rois"], mb.graph.constant(np.zeros((2, ALONE_ROIS), "f")), count)
    found = detector().roi_heads.detections(x["logits"], x["deltas"], proposals, sizes)
    _check_detections(mb.compile(found)(**given), "alone")


def test_box_losses_alone(golden: Goldens) -> None:
    kinds = CONFIG.num_classes + 1
    labels = golden["alone/loss/labels"].astype(np.int32)[None]
    positives = int((labels > 0).sum())
    order = np.argsort(labels[0] == 0, kind="stable")  # ours: positives first
    rois = np.array([[20.0, 30.0, 70.0, 60.0]] * 24, np.float32)
    sides = np.tile(rois[:, 2:] - rois[:, :2], 2)
    goal = made("loss/targets", 24, 4) / np.array(CONFIG.roi.weights, np.float32)
    middle = (rois[:, :2] + rois[:, 2:]) / 2 + goal[:, :2] * sides[:, :2]
    extent = np.exp(goal[:, 2:]) * sides[:, 2:]
    truth = np.concatenate([middle - extent / 2, middle + extent / 2], 1)
    given = {
        "logits": (2 * made("loss/logits", 24, kinds))[order][None],
        "deltas": made("loss/deltas", 24, 4 * kinds)[order].reshape(1, 24, kinds, 4),
    }
    x = {name: mb.placeholder(name, value.shape) for name, value in given.items()}
    constant = mb.graph.constant
    drawn = Drawn(
        constant(rois[order][None]), constant(truth[order][None].astype(np.float32)),
        constant(labels[:, order]), constant(np.array([positives], np.int32)),
        constant(np.array([24], np.int32)), constant(labels[:, order]),
    )  # fmt: skip
    config = replace(CONFIG.roi, positive=0.5, hidden=4)  # more positives than a draw would hold
    heads = RoIHeads(config, 1, CONFIG.num_classes, (4,), 224.0, rng=0)
    losses = heads.losses_of(x["logits"], x["deltas"], drawn)
    gradients = mb.gradients(F.add(*losses.values()), list(x.values()))
    run = mb.compile({**losses, **dict(zip(x, gradients, strict=True))})
    ours = run(**given)
    for name in ("classifier", "box_reg"):
        assert error(ours[f"loss_{name}"], golden[f"alone/loss/{name}"]) <= BAR
    for name in x:
        flat = ours[name].reshape(24, -1)
        assert error(flat, golden[f"alone/loss/{name}_gradient"][order]) <= GRADIENT_BAR
