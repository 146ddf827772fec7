"""COCO evaluation: the official numbers, also for what our own writer made of the detections."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import data_files
import numpy as np
import pytest

from megbrain_py.data import (
    NUMBERS,
    Detections,
    Loader,
    Resize,
    evaluate,
    match_table,
    read_coco,
    run_lengths,
    write_results,
)
from megbrain_py.errors import DataError


def perfect(path: Path, masks: bool = False) -> Detections:
    """The ground truth as detections, through the writer, in coordinates of halved pictures."""
    data = read_coco(path)
    found = Detections(data)
    for image in data.images:
        objects = [o for o in image.objects if not o.crowd]
        boxes = np.array([o.box for o in objects], np.float64).reshape(-1, 4) * [
            0.5,
            0.25,
            0.5,
            0.25,
        ]
        found.add(
            image.id,
            boxes.astype(np.float32),
            np.linspace(0.9, 0.5, len(objects), dtype=np.float32),
            [o.label for o in objects],
            image_size=(image.height * 0.25, image.width * 0.5),
            masks=[run_lengths(o.segmentation, image.height, image.width) for o in objects]
            if masks
            else None,
        )
    return found


def content() -> dict[str, Any]:
    """Id gaps, an annotation id 0, a picture without objects and a crowd."""
    made = data_files.document([(400, 600), (600, 400), (300, 300)], 4)
    made["images"].append({"id": 77, "file_name": "e.png", "height": 20, "width": 20})
    made["annotations"][0]["id"] = 0
    made["annotations"][1].update(
        iscrowd=1, segmentation={"size": [400, 600], "counts": [1000, 5000, 240000 - 6000]}
    )
    for annotation in made["annotations"]:
        if not annotation["segmentation"]:
            x, y, w, h = annotation["bbox"]
            annotation["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    return made


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_perfect_detections_score_one(tmp_path: Path, kind: Any) -> None:
    path = data_files.write(tmp_path, content(), pictures=False)
    found = perfect(path, masks=kind == "segm")
    found.write(tmp_path / "out" / "results.json")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["results.json"]
    score = evaluate(path, tmp_path / "out" / "results.json", kind)
    assert tuple(score.numbers) == NUMBERS
    for name in ("AP", "AP50", "AP75", "AP_large", "AR_100"):
        assert score.numbers[name] == pytest.approx(1, abs=1e-9)
    assert list(score.ap_per_class) == ["apple", "fig", "pear"]
    assert set(score.ap50_per_class.values()) == {1.0}
    assert found.evaluate(kind).numbers == pytest.approx(score.numbers, nan_ok=True)
    assert f"{kind} AP50" in str(score)


def test_results_file_holds_coco_ids_and_original_pixels(tmp_path: Path) -> None:
    path = data_files.write(tmp_path, content(), pictures=False)
    found = Detections(read_coco(path))
    box = [[10, 20, 30, 50], [90, -5, 130, 5]]
    found.add(12, box, [0.5, 0.25], [3, 1], image_size=(300, 100))  # file: 600 x 400
    found.write(tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text()) == [
        {"image_id": 12, "category_id": 90, "bbox": [40, 40, 80, 60], "score": 0.5},
        {"image_id": 12, "category_id": 3, "bbox": [360, 0, 40, 10], "score": 0.25},
    ]


def test_no_detections_and_nothing_to_find(tmp_path: Path) -> None:
    path = data_files.write(tmp_path, content(), pictures=False)
    score = evaluate(path, [])
    assert score.numbers["AP"] == 0
    found = Detections(read_coco(path))
    found.add(77, [], [], [])
    write_results(tmp_path / "r.json", found.results)
    assert json.loads((tmp_path / "r.json").read_text()) == []
    assert evaluate(path, tmp_path / "r.json", "segm").numbers["AP"] == 0
    only_empty = evaluate(path, [], image_ids=[77])
    assert all(math.isnan(value) for value in only_empty.numbers.values())
    assert "-" in str(only_empty)
    false = {"image_id": 77, "category_id": 3, "bbox": [1, 1, 5, 5], "score": 0.9}
    assert math.isnan(evaluate(path, [false], image_ids=[77]).numbers["AP"])


def test_a_false_positive_lowers_precision_as_computed_by_hand(tmp_path: Path) -> None:
    made = data_files.document([(100, 100)], 0)
    box = [10.0, 10.0, 40.0, 40.0]
    for n in (1, 2):
        made["annotations"].append(
            {
                "id": n,
                "image_id": 5,
                "category_id": 3,
                "bbox": [v + 45 * (n - 1) for v in box[:2]] + box[2:],
            }
        )  # no area, no iscrowd, no segmentation
    path = data_files.write(tmp_path, made, pictures=False)
    detections = [
        {"image_id": 5, "category_id": 3, "bbox": [0, 60, 30, 30], "score": 0.9},  # false
        {"image_id": 5, "category_id": 3, "bbox": box, "score": 0.8},
    ]
    score = evaluate(path, detections)
    # precision is 1/2 for recall 0..0.5 and 0 above: 51 of 101 points
    assert score.numbers["AP"] == pytest.approx(0.5 * 51 / 101)
    assert score.numbers["AR_100"] == pytest.approx(0.5)
    assert math.isnan(score.ap_per_class["fig"])
    assert detections[0].keys() == {"image_id", "category_id", "bbox", "score"}


def test_equal_class_names_stay_apart(tmp_path: Path) -> None:
    made = data_files.document([(100, 100)], 9)
    for category in made["categories"]:
        category["name"] = "fruit"
    path = data_files.write(tmp_path, made, pictures=False)
    names = list(evaluate(path, []).ap_per_class)
    assert names == ["fruit (id 3)", "fruit (id 7)", "fruit (id 90)"]


def test_batches_of_a_loader(tmp_path: Path) -> None:
    path = data_files.write(tmp_path, data_files.document([(40, 60), (60, 40), (40, 60)]))
    data = read_coco(path)
    loader = Loader(data, 2, resize=Resize(64, 96), shuffle=False)
    found = Detections(data)
    with loader.pass_over() as batches:
        for batch in batches:
            scores = np.full(batch["labels"].shape, 0.5, np.float32)
            detected = {"boxes": batch["boxes"], "scores": scores, "labels": batch["labels"]}
            found.add_batch(batch, {**detected, "count": batch["box_count"]})
    assert sorted(found.image_ids) == [5, 12, 19]
    assert found.evaluate().numbers["AP"] == pytest.approx(1)


def test_errors(tmp_path: Path) -> None:
    path = data_files.write(tmp_path, content(), pictures=False)
    good = {"image_id": 5, "category_id": 3, "bbox": [1, 1, 5, 5], "score": 0.9}
    for change, text in [
        ({"image_id": 6}, "detection 1: image_id 6 is unknown"),
        ({"category_id": 6}, "detection 1: category_id 6 is unknown"),
    ]:
        with pytest.raises(DataError, match=text):
            evaluate(path, [good, {**good, **change}])
    with pytest.raises(DataError, match="detection 0 is without bbox, score"):
        evaluate(path, [{"image_id": 5, "category_id": 3}])
    with pytest.raises(DataError, match="detection 0 is without segmentation"):
        evaluate(path, [good], "segm")
    (tmp_path / "r.json").write_text('{"a": 1}')
    with pytest.raises(DataError, match=r"r\.json: expected a list"):
        evaluate(path, tmp_path / "r.json")
    with pytest.raises(DataError, match="not a COCO annotation file"):
        evaluate(tmp_path / "r.json", [])
    plain = content()
    plain["annotations"][3]["segmentation"] = []
    other = data_files.write(tmp_path / "o", plain, pictures=False)
    with pytest.raises(DataError, match=r"annotations\[3\] has no segmentation"):
        evaluate(other, [], "segm")
    found = Detections(read_coco(path))
    for arguments, text in [
        ((6, [], [], []), "has no such image"),
        ((5, [[1, 2, 3, 4]], [1], []), "1 boxes, 1 scores, 0 labels"),
        ((5, [[1, 2, 3, math.nan]], [1], [1]), "not finite"),
        ((5, [[1, 2, 3, 4]], [1], [4]), r"label 4 is not in 1\.\.3"),
    ]:
        with pytest.raises(DataError, match=text):
            found.add(*arguments)  # type: ignore[arg-type]
    found.add(5, [], [], [])
    with pytest.raises(DataError, match="was added before"):
        found.add(5, [], [], [])


def rewritten(truth: Path, results: list[dict[str, Any]], folder: Path) -> Path:
    """Results through our writer: labels, corners, float32, other picture sizes, one file."""
    data = read_coco(truth)
    label = {category.id: category.label for category in data.categories}
    by_image: dict[int, list[dict[str, Any]]] = {image.id: [] for image in data.images}
    for result in results:
        by_image[result["image_id"]].append(result)
    found = Detections(data)
    for image in data.images:
        own = by_image[image.id]
        boxes = np.array([r.get("bbox", [0, 0, 1, 1]) for r in own], np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        boxes *= np.tile([800 / image.width, 608 / image.height], 2)
        masks = [r["segmentation"] for r in own] if own and "segmentation" in own[0] else None
        found.add(
            image.id,
            boxes.astype(np.float32),
            np.array([r["score"] for r in own], np.float32),
            np.array([label[r["category_id"]] for r in own], np.int32),
            image_size=(608, 800),
            masks=masks,
        )
    found.write(folder / "results.json")
    return folder / "results.json"


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_official_numbers(tmp_path: Path, kind: Any) -> None:
    folder = data_files.real("coco_eval_ref")
    expected = json.loads((folder / "expected.json").read_text())[kind]
    truth, results = folder / expected["ground_truth"], folder / expected["results"]
    score = evaluate(truth, results, kind)
    assert score.numbers == pytest.approx(expected["pycocotools"], abs=1e-12)
    rounded = {name: round(value, 3) for name, value in score.numbers.items()}
    assert rounded == expected["official_3_decimals"]
    for name, value in expected["pycocotools_AP_per_class"].items():
        assert score.ap_per_class[name] == pytest.approx(value, abs=1e-12)
    ours = evaluate(truth, rewritten(truth, json.loads(results.read_text()), tmp_path), kind)
    rounded = {name: round(value, 3) for name, value in ours.numbers.items()}
    assert rounded == expected["official_3_decimals"]
    assert ours.numbers == pytest.approx(expected["pycocotools"], abs=1e-4)


def has_detections_on_crowds(truth: Path, results: Path) -> bool:
    """Does a detection of a crowd's class have its middle in the crowd's box?"""
    document = json.loads(truth.read_text())
    crowds = [a for a in document["annotations"] if a["iscrowd"]]
    for result in json.loads(results.read_text()):
        x, y, w, h = result["bbox"]
        for crowd in crowds:
            left, top, width, height = crowd["bbox"]
            same = all(crowd[key] == result[key] for key in ("image_id", "category_id"))
            if same and 0 <= x + w / 2 - left <= width and 0 <= y + h / 2 - top <= height:
                return True
    return False


def has_ties_across_pictures(results: Path) -> bool:
    """Do two detections of a class have one score, so that their order must be the official one?"""
    found = [(r["category_id"], r["score"]) for r in json.loads(results.read_text())]
    return len(set(found)) < len(found)


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_real_detectors_output(tmp_path: Path, split: str) -> None:
    folder = data_files.real("pretrained_small")
    expected = json.loads((folder / "FastestDet_dets_expected.json").read_text())[split]
    truth = folder.parent / "coco_mini" / "annotations" / f"instances_{split}.json"
    results = folder / f"FastestDet_dets_coco_mini_{split}.json"
    assert has_detections_on_crowds(truth, results)
    assert has_ties_across_pictures(results)
    score = evaluate(truth, results)
    assert score.numbers == pytest.approx(expected["pycocotools"], abs=1e-12)
    for name, value in expected["pycocotools_AP_per_class"].items():
        assert score.ap_per_class[name] == pytest.approx(value, abs=1e-12)
    table = match_table(truth, results)
    ones = table.figures(np.ones((1, len(table.image_ids))))
    numbers = {name: float(ones[name][0]) for name in NUMBERS}
    assert numbers == pytest.approx(expected["pycocotools"], abs=1e-12)
    # its boxes reach over the borders; the writer cuts them there, so compare with cut ones
    cut = json.loads(results.read_text())
    images = read_coco(truth).by_image_id
    for result in cut:
        x, y, w, h = result["bbox"]
        image = images[result["image_id"]]
        right, low = min(x + w, image.width), min(y + h, image.height)
        x, y = max(x, 0), max(y, 0)
        result["bbox"] = [x, y, right - x, low - y]
    ours = evaluate(truth, rewritten(truth, json.loads(results.read_text()), tmp_path))
    assert ours.numbers == pytest.approx(evaluate(truth, cut).numbers, abs=1e-3)
    assert ours.numbers["AP"] > score.numbers["AP"]
