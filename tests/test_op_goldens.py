"""Box and RoI operators against torchvision's, on the small inputs of goldens/ops.npz."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from golden_detector import BAR, GRADIENT_BAR, Array, Goldens, error, goldens, recipe

import megbrain_py as mb
from megbrain_py import functional as F
from megbrain_py.ops.anchors.anchors import cell_anchors
from megbrain_py.ops.match_boxes.match_boxes import MatchBoxes
from megbrain_py.ops.roi_pooling.levels import RoiLevels

WEIGHTS = {"rpn": (1.0, 1.0, 1.0, 1.0), "roi": (10.0, 10.0, 5.0, 5.0)}
SCALES = (1 / 4, 1 / 8, 1 / 16, 1 / 32)


def _numbers(name: str, *shape: int) -> Array:
    return recipe.uniform(f"ops/{name}", shape)


def _run(build, **given: Array) -> dict[str, Array]:
    """Compile what `build` makes of placeholders for these arrays, and run it."""
    x = {name: mb.placeholder(name, a.shape, a.dtype.name) for name, a in given.items()}
    return mb.compile(build(**x))(**given)


@pytest.fixture(scope="module")
def golden() -> Goldens:
    return goldens("ops")


@pytest.mark.parametrize("ratio", [2, 0, -1])
@pytest.mark.parametrize("mode", ["legacy", "aligned"])
def test_roi_align(mode: str, ratio: int, golden: Goldens) -> None:
    """Boxes inside, outside, empty, inverted; each of ours belongs to the image it stands under."""
    flat = golden["roi_align/rois"]
    of_image = [np.flatnonzero(flat[:, 0] == n) for n in range(2)]
    order = np.concatenate(of_image)
    rois = np.stack([flat[rows, 1:] for rows in of_image])
    rows = rois.shape[1]
    dy = _numbers("roi_align/weights", len(flat), 3, 5, 3)[order]

    def build(x: mb.Var, rois: mb.Var, dy: mb.Var) -> dict[str, mb.Var]:
        count = mb.graph.constant(np.full(2, rows, np.int32))
        y = F.roi_align(
            [x], rois, count, (5, 3), [0.25], sampling_ratio=ratio, aligned=mode == "aligned"
        )
        return {"output": y, "gradient": mb.gradients(F.sum(y * dy), [x])[0]}

    ours = _run(build, x=_numbers("roi_align/features", 2, 3, 12, 15), rois=rois, dy=dy)
    assert error(ours["output"], golden[f"roi_align/{mode}/{ratio}/output"][order]) <= BAR
    assert error(ours["gradient"], golden[f"roi_align/{mode}/{ratio}/gradient"]) <= GRADIENT_BAR


def test_roi_max_pool(golden: Goldens) -> None:
    flat = golden["roi_align/rois"]
    of_image = [np.flatnonzero(flat[:, 0] == n) for n in range(2)]
    order = np.concatenate(of_image)
    rois = np.stack([flat[rows, 1:] for rows in of_image])
    dy = _numbers("roi_pool/weights", len(flat), 3, 5, 3)[order]

    def build(x: mb.Var, rois: mb.Var, dy: mb.Var) -> dict[str, mb.Var]:
        count = mb.graph.constant(np.full(2, rois.shape[1], np.int32))
        y = F.roi_pool([x], rois, count, (5, 3), [0.25])
        return {"output": y, "gradient": mb.gradients(F.sum(y * dy), [x])[0]}

    ours = _run(build, x=_numbers("roi_pool/features", 2, 3, 12, 15), rois=rois, dy=dy)
    np.testing.assert_array_equal(ours["output"], golden["roi_pool/output"][order])
    assert error(ours["gradient"], golden["roi_pool/gradient"]) <= BAR


def test_level_of_a_box(golden: Goldens) -> None:
    """The kernel reads level l where map l is filled with the number l."""
    boxes, expected = golden["levels/boxes"], golden["levels/level"]
    op = RoiLevels(SCALES, 4, 224.0)
    assert [op.level_of(box) for box in boxes.astype(np.float64)] == expected.tolist()
    maps = {f"x{k}": np.full((1, 1, 512 >> k, 512 >> k), k, np.float32) for k in range(4)}
    count = mb.graph.constant(np.full(1, len(boxes), np.int32))

    def build(rois: mb.Var, **x: mb.Var) -> mb.Var:
        return F.roi_align(list(x.values()), rois, count, 1, SCALES)

    ours = _run(build, rois=boxes[None], **maps)["output"].reshape(-1)
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_pooling_from_levels(golden: Goldens) -> None:
    boxes = golden["levels/pooled_boxes"]
    maps = {f"x{k}": _numbers(f"levels/{k}", 1, 2, 64 >> k, 64 >> k) for k in range(4)}
    count = mb.graph.constant(np.full(1, len(boxes), np.int32))

    def build(rois: mb.Var, **x: mb.Var) -> mb.Var:
        return F.roi_align(list(x.values()), rois, count, 2, SCALES)

    ours = _run(build, rois=boxes[None], **maps)["output"]
    assert error(ours, golden["levels/pooled"]) <= BAR


@pytest.mark.parametrize("size", [300, 1100])
def test_nms(size: int, golden: Goldens) -> None:
    boxes, scores, classes = (
        golden[f"nms/{size}/{k}"][None] for k in ("boxes", "scores", "groups")
    )
    keep = golden[f"nms/{size}/keep"]

    def build(**x: mb.Var) -> dict[str, mb.Var]:
        index, count = F.nms(**x, rows=size, iou_threshold=0.5)
        few, few_count = F.nms(**x, rows=50, iou_threshold=0.5)
        return {"index": index, "count": count, "few": few, "few_count": few_count}

    ours = _run(build, boxes=boxes, scores=scores, classes=classes)
    assert ours["count"].tolist() == [len(keep)]
    np.testing.assert_array_equal(ours["index"][0, : len(keep)], keep)
    assert ours["few_count"].tolist() == [50]
    np.testing.assert_array_equal(ours["few"][0], keep[:50])


@pytest.mark.parametrize("which", WEIGHTS)
def test_box_coding(which: str, golden: Goldens) -> None:
    reference, anchors = golden["coder/reference"], golden["coder/anchors"]
    deltas = golden["coder/deltas"].reshape(20, 2, 4)

    def build(reference: mb.Var, anchors: mb.Var, deltas: mb.Var) -> dict[str, mb.Var]:
        return {
            "encoded": F.encode_boxes(reference, anchors, WEIGHTS[which]),
            "decoded": F.decode_boxes(deltas, anchors, WEIGHTS[which]),
        }

    ours = _run(build, reference=reference, anchors=anchors, deltas=deltas)
    assert error(ours["encoded"], golden[f"coder/{which}/encoded"]) <= BAR
    # Beyond the clamp a box is 62.5 times larger than the others: each row by its own measure.
    for mine, theirs in zip(
        ours["decoded"].reshape(20, 8), golden[f"coder/{which}/decoded"], strict=True
    ):
        assert error(mine, theirs) <= BAR


def test_matching_with_ties(golden: Goldens) -> None:
    boxes, truth = golden["matcher/boxes"], golden["matcher/gt"]

    def build(boxes: mb.Var, truth: mb.Var, count: mb.Var) -> dict[str, mb.Var]:
        matches, overlap = F.match_boxes(
            boxes, truth, count, high=0.7, low=0.3, allow_low_quality=True
        )
        return {"matches": matches, "overlap": overlap}

    padded = np.concatenate([truth, np.full((2, 4), 7, np.float32)])[None]  # rows that do not count
    ours = _run(build, boxes=boxes, truth=padded, count=np.array([2], np.int32))
    np.testing.assert_array_equal(ours["matches"][0], golden["matcher/boxes_matched"])
    assert error(ours["overlap"][0], golden["matcher/iou"].max(0)) <= 1e-6


@pytest.mark.parametrize("high, low", [(0.7, 0.3), (0.5, 0.5)])
@pytest.mark.parametrize("kind", ["plain", "low"])
@pytest.mark.parametrize("rows", [3, 4])
def test_matching_by_overlap(
    rows: int, kind: str, high: float, low: float, golden: Goldens, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rule (the reference, which the kernel follows elsewhere) on given overlaps.

    A fourth true box overlaps nothing. All boxes then tie for it at 0, and torchvision makes all
    of them positive; ours leaves them as they are without it.
    """
    module = sys.modules[MatchBoxes.__module__]
    quality = golden["matcher/quality"][:rows]
    monkeypatch.setattr(module, "box_iou", lambda truth, boxes: quality)
    size = quality.shape[1]
    given = np.zeros((size, 4), np.float32), np.zeros((1, rows, 4), np.float32)
    op = MatchBoxes(high, low, kind == "low")
    ours, best = op.reference(*given, np.array([rows], np.int32))
    expected = 3 if kind == "low" else rows
    np.testing.assert_array_equal(ours[0], golden[f"matcher/{expected}/{kind}/{high}"])
    np.testing.assert_array_equal(best[0], quality.max(0))


def test_anchors(golden: Goldens) -> None:
    """Two levels, three ratios, strides that differ by axis."""
    sizes, ratios = ((16, 23), (32, 45)), ((0.5, 1.0, 2.0), (0.5, 1.0, 3.0))
    levels = [
        F.anchors(grid, (64, 100), size, ratio)
        for grid, size, ratio in zip(((8, 12), (4, 6)), sizes, ratios, strict=True)
    ]
    for k in range(2):
        cells = cell_anchors(sizes[k], ratios[k])
        np.testing.assert_array_equal(cells, golden[f"anchors/cell/{k}"])
    ours = mb.compile(F.concat(levels, 0))()["output"]
    np.testing.assert_array_equal(ours, golden["anchors/all"])
