"""Several views and detectors merged: what must not change, and what must."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import data_files
import fake_detector
import numpy as np
import pytest
from PIL import Image

from megbrain_py import functional as F
from megbrain_py.data import CocoDataset, Detections, read_coco
from megbrain_py.data.masks import decode
from megbrain_py.dtypes import Array
from megbrain_py.errors import DataError
from megbrain_py.graph import Var, constant
from megbrain_py.ops.nms.nms import Nms
from megbrain_py.training.detector import Detecting, InputConfig, Trained, detect_all, make_model
from megbrain_py.training.inference import InferenceConfig, detect_views, looks_of
from megbrain_py.training.views import View

_CLASSES = ("apple", "fig", "pear")


def a_detector(seed: int = 0, **options: object) -> Trained:
    """A real one, untrained, with weights so large that its boxes and scores differ."""
    small = {"anchor_sizes": [16, 32, 64, 128], "fpn_channels": 16, "roi.hidden": 32}
    model = make_model("laptop", {**small, "roi.detections": 20, **options}, 3, seed)
    parameters = model.named_parameters()
    for name, factor in (("box_predictor.bbox_pred", 100), ("box_predictor.cls_score", 30)):
        weight = parameters[f"roi_heads.{name}.weight"]
        weight.set(weight.value * factor)
    for name, parameter in parameters.items():
        if "mask" in name and "logits" in name:  # some pixels belong to an object, some do not
            is_bias = name.endswith("bias")
            signs = 1 - 2 * (np.arange(parameter.value[0].size) % 2).reshape(-1, 1, 1)
            value = np.zeros(parameter.shape) if is_bias else np.abs(parameter.value) * signs
            parameter.set(value.astype(np.float32))
    return Trained(model, _CLASSES, (3, 7, 90), InputConfig(64, 96))


@dataclass(frozen=True)
class Scripted:
    """A detector that finds the same boxes (fractions of a picture) everywhere."""

    boxes: Array
    scores: Array
    labels: Array
    config: fake_detector.Config = field(
        default_factory=lambda: fake_detector.Config(roi=fake_detector.RoI(detections=15))
    )

    def scored_boxes(self, images: Var, image_sizes: Var, most: int) -> dict[str, Var]:
        sides = F.cast(F.gather(image_sizes, constant(np.array([1, 0, 1, 0])), axis=1), "float32")
        count = images.shape[0]
        return {
            "boxes": F.expand_dims(sides, 1) * constant(self.boxes),
            "scores": constant(np.tile(self.scores, (count, 1))) + F.sum(images) * 0.0,
            "labels": constant(np.tile(self.labels, (count, 1))),
        }


def scripted(seed: int, rows: int, short_side: int = 64) -> Trained:
    rng = np.random.default_rng(seed)
    first = rng.uniform(0, 0.6, (rows, 2))
    boxes = np.concatenate([first, first + rng.uniform(0.15, 0.4, (rows, 2))], 1)
    model = Scripted(
        boxes.astype(np.float32), rng.random(rows, np.float32),
        rng.integers(1, 4, rows, dtype=np.int32),
    )  # fmt: skip
    return Trained(model, _CLASSES, (3, 7, 90), InputConfig(short_side, 2 * short_side))


@pytest.fixture
def pictures(tmp_path: Path) -> CocoDataset:
    """Three pictures of two shapes."""
    content = data_files.document([(60, 90), (80, 50), (61, 90)])
    return read_coco(data_files.write(tmp_path / "plain", content))


def rows(found: Detections) -> list[tuple[float, ...]]:
    """Detections as sorted numbers."""
    keys = ("image_id", "category_id")
    return sorted((*(r[k] for k in keys), r["score"], *r["bbox"]) for r in found.results)


def test_one_view_of_one_detector_is_its_own_detection(pictures: CocoDataset) -> None:
    detector = a_detector()
    own = detect_all(Detecting(detector.model), detector.input.loader(pictures, 2))
    merged = detect_views([detector], pictures, InferenceConfig(), batch=2)
    assert len(own.results) > 20
    np.testing.assert_allclose(rows(merged), rows(own), atol=2e-3)
    assert merged.image_ids == [5, 12, 19]


def test_mirrored_pictures_have_mirrored_detections(pictures: CocoDataset, tmp_path: Path) -> None:
    """With different heads and sizes of input; only if every view is mapped back rightly."""
    detectors = [a_detector(), a_detector(1, **{"roi.hidden": 16, "roi.pool": 5})]
    alone = pictures.take([0])
    other = replace(alone, image_folder=tmp_path)
    with Image.open(alone.path(alone.images[0])) as opened:
        mirrored = opened.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        mirrored.save(other.path(other.images[0]))
    config = InferenceConfig(scales=(1.0, 1.4), flip=True, vote=0.7)
    found, of_mirrored = (detect_views(detectors, data, config, batch=1) for data in (alone, other))
    assert len(found.results) == 20
    for result in of_mirrored.results:
        x, _, w, _ = result["bbox"]
        result["bbox"][0] = alone.images[0].width - x - w
    np.testing.assert_allclose(rows(of_mirrored), rows(found), atol=2e-2)


_MASKED = {"mask": "head", "mask_head.channels": 8}
_GENERATED = {"mask": "generator", "mask_generator.channels": 8, "mask_generator.skip": 8}


def overlaps(one: Detections, two: Detections, mirrored: bool = False) -> list[float]:
    """Overlap of the masks of like detections; `mirrored`: those of the second are."""
    found = []
    pairs = (sorted(d.results, key=lambda r: (r["image_id"], -r["score"])) for d in (one, two))
    for a, b in zip(*pairs, strict=True):
        first, second = decode(a["segmentation"]), decode(b["segmentation"])
        second = second[:, ::-1] if mirrored else second
        union = (first | second).sum()
        found.append(float((first & second).sum() / union) if union else 1.0)
    return found


@pytest.mark.parametrize("mask", [_MASKED, _GENERATED], ids=["head", "generator"])
def test_masks_of_one_view_are_the_detectors_own(pictures: CocoDataset, mask: Any) -> None:
    detector = a_detector(**mask)
    own = detect_all(Detecting(detector.model), detector.input.loader(pictures, 2))
    merged = detect_views([detector], pictures, InferenceConfig(), batch=2)
    assert merged.has_masks
    assert np.median([decode(r["segmentation"]).sum() for r in own.results]) > 20
    assert np.mean(overlaps(merged, own)) > 0.995


def test_masks_of_views_and_different_heads(pictures: CocoDataset, tmp_path: Path) -> None:
    """Mirrored pictures have mirrored masks; a detector without masks takes part with boxes."""
    detectors = [a_detector(**_MASKED), a_detector(1, **_GENERATED), a_detector(2)]
    alone = pictures.take([0])
    other = replace(alone, image_folder=tmp_path)
    with Image.open(alone.path(alone.images[0])) as opened:
        mirrored = opened.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        mirrored.save(other.path(other.images[0]))
    config = InferenceConfig(flip=True, vote=0.7)
    assert looks_of(detectors, config) == 2 * (3 + 2)
    found, of_mirrored = (detect_views(detectors, data, config, batch=1) for data in (alone, other))
    assert np.mean(overlaps(found, of_mirrored, mirrored=True)) > 0.9  # pasting truncates corners
    assert np.mean(overlaps(found, of_mirrored)) < 0.6


def test_union_of_two_detectors_and_one_nms(pictures: CocoDataset) -> None:
    """Of different numbers of boxes and sizes of input, beside NMS's reference on all boxes."""
    detectors = [scripted(0, 40), scripted(1, 70, short_side=100)]
    found = detect_views(detectors, pictures, InferenceConfig(weights=(1, 0.9)), batch=2)
    models = [trained.model for trained in detectors]
    boxes = np.concatenate([model.boxes for model in models])[None]
    scores = np.concatenate([models[0].scores, models[1].scores * np.float32(0.9)])
    labels = np.concatenate([model.labels for model in models])
    above = np.concatenate([model.scores for model in models]) > 0.05
    scores[~above] = 0
    index, count = Nms(15, 0.5, 0.0, 0.0, "exact").reference(
        boxes, scores[None], labels[None], np.array([len(scores)], np.int32)
    )
    kept = index[0, : count[0]]
    assert min(kept) < 40 <= max(kept)
    for image in pictures.images:
        corners = boxes[0, kept, :2] * [image.width, image.height]
        own = [r for r in found.results if r["image_id"] == image.id]
        np.testing.assert_allclose([r["score"] for r in own], scores[kept], rtol=1e-6)
        np.testing.assert_allclose([r["bbox"][:2] for r in own], corners, atol=1e-2)
        assert [r["category_id"] for r in own] == [(3, 7, 90)[k - 1] for k in labels[kept]]


def test_a_detector_beside_itself_changes_nothing(pictures: CocoDataset) -> None:
    one = scripted(0, 60)
    alone = rows(detect_views([one], pictures, InferenceConfig()))
    for weights in ((1, 0.5), (0.5, 0.5)):  # the largest weight counts as 1
        twice = detect_views([one, one], pictures, InferenceConfig(weights=weights))
        assert rows(twice) == alone
    larger = detect_views([one], pictures, InferenceConfig(scales=(1, 2)))
    np.testing.assert_allclose(rows(larger), alone, atol=1e-3)


def test_voting_soft_nms_and_thresholds(pictures: CocoDataset) -> None:
    def found(**options: object) -> list[tuple[float, ...]]:
        config = InferenceConfig(**options)  # type: ignore[arg-type]
        return rows(detect_views([scripted(0, 80)], pictures, config))

    plain, voted, soft = found(), found(vote=0.5), found(soft_nms="gaussian")
    assert [row[:3] for row in voted] == [row[:3] for row in plain]  # only boxes move
    assert voted != plain
    assert max(row[2] for row in soft) == max(row[2] for row in plain)
    assert soft != plain
    assert found(vote=0.5, vote_score="avg") != voted
    assert min(row[2] for row in found(score=0.9)) > 0.9
    assert len(found(detections=1)) == 3
    assert len(found(detections=99, nms_iou=1.0)) > len(plain) + 10


def test_progress_counts_every_view(pictures: CocoDataset) -> None:
    told: list[tuple[int, str]] = []
    config = InferenceConfig(scales=(1, 0.75), flip=True)
    several = [scripted(0, 5), scripted(1, 5)]
    detect_views(several, pictures, config, progress=lambda n, view: told.append((n, view)))
    assert sum(n for n, _ in told) == 3 * 4 * 2 == 3 * looks_of(several, config)
    assert config.views[1] == View(1, True)
    assert told[-1][1] == "detector 2 of 2, scale 0.75, mirrored"


def test_pictures_without_boxes(pictures: CocoDataset) -> None:
    found = detect_views([scripted(0, 5)], pictures, InferenceConfig(score=1.0, vote=0.5))
    assert found.results == []
    assert found.image_ids == [5, 12, 19]


def test_refuses(pictures: CocoDataset) -> None:
    one = scripted(0, 5)
    with pytest.raises(DataError, match="scales must be positive, are 1, 0"):
        InferenceConfig(scales=(1, 0))
    with pytest.raises(DataError, match="scales: give at least one"):
        InferenceConfig(scales=())
    with pytest.raises(DataError, match=r"vote must be in 0\.\.1, is 2"):
        InferenceConfig(vote=2)
    with pytest.raises(DataError, match="detections must be at least 1, is -1"):
        InferenceConfig(detections=-1)
    with pytest.raises(DataError, match="2 weights for 1 detectors"):
        detect_views([one], pictures, InferenceConfig(weights=(1, 2)))
    with pytest.raises(DataError, match=r"its classes .* are not the detector's"):
        detect_views([one], pictures.only(["fig"]), InferenceConfig())
