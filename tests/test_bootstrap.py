"""Figures from match tables: pycocotools' own, also when pictures are repeated; intervals."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import data_files
import numpy as np
import pytest

from megbrain_py.data import evaluate, match_table
from megbrain_py.data.bootstrap import Difference, differences, of_each_picture


def noisy(content: dict[str, Any], seed: int, spread: float = 4.0) -> list[dict[str, Any]]:
    """Detections near the objects, some of another class, some missing, some twice, ties."""
    rng = np.random.default_rng(seed)
    found = []
    for a in content["annotations"]:
        for _ in range(int(rng.integers(0, 3))):
            box = np.array(a["bbox"]) + rng.normal(0, spread, 4)
            category = a["category_id"] if rng.random() < 0.8 else 7
            found.append(
                {
                    "image_id": a["image_id"], "category_id": category,
                    "bbox": [*box[:2], *np.abs(box[2:])], "score": round(float(rng.random()), 1),
                }
            )  # fmt: skip
    return found


@pytest.fixture
def content() -> dict[str, Any]:
    """Twelve pictures with all sizes of objects, crowds, and one picture without."""
    made = data_files.document([(300, 400)] * 6 + [(90, 60)] * 6, 5)
    for n, annotation in enumerate(made["annotations"]):
        annotation["iscrowd"] = int(n % 9 == 0)
    made["images"].append({"id": 777, "file_name": "e.png", "height": 50, "width": 60})
    return made


def repeated(content: dict[str, Any], results: list[dict[str, Any]], times: list[int]) -> Any:
    """Pictures with their objects and detections, some several times, others not at all."""
    made: dict[str, Any] = {"images": [], "annotations": [], "categories": content["categories"]}
    found = []
    for image, count in zip(content["images"], times, strict=True):
        for n in range(count):
            key = image["id"] * 100 + n
            made["images"].append({**image, "id": key})
            own = [a for a in content["annotations"] if a["image_id"] == image["id"]]
            made["annotations"] += [{**copy.deepcopy(a), "image_id": key} for a in own]
            found += [{**r, "image_id": key} for r in results if r["image_id"] == image["id"]]
    return made, found


def test_repeated_pictures_score_as_pycocotools_says(
    tmp_path: Path, content: dict[str, Any]
) -> None:
    """With distinct scores: equal ones of a repeated picture stand in another order there."""
    results = noisy(content, 0)
    for n, result in enumerate(results):
        result["score"] += n * 1e-5
    path = data_files.write(tmp_path / "once", content, pictures=False)
    table = match_table(path, results)
    draws = np.random.default_rng(3).multinomial(13, np.full(13, 1 / 13), 4)
    draws = np.concatenate([np.ones((1, 13), np.int64), draws])
    figures = table.figures(draws)
    for b, times in enumerate(draws):
        made, found = repeated(content, results, times.tolist())
        again = data_files.write(tmp_path / str(b), made, pictures=False)
        expected = evaluate(again, found)
        ours = {name: values[b] for name, values in figures.items()}
        for name, value in expected.numbers.items():
            assert ours[name] == pytest.approx(value, abs=1e-12, nan_ok=True), (b, name)
        for name, value in expected.ap_per_class.items():
            assert ours[f"AP {name}"] == pytest.approx(value, abs=1e-12, nan_ok=True)


def test_ties_and_nothing(tmp_path: Path, content: dict[str, Any]) -> None:
    path = data_files.write(tmp_path, content, pictures=False)
    for results in (noisy(content, 1), []):
        expected = evaluate(path, results)
        figures = match_table(path, results).figures(np.ones((1, 13)))
        ours = {name: float(values[0]) for name, values in figures.items()}
        assert {n: ours[n] for n in expected.numbers} == pytest.approx(
            expected.numbers, abs=1e-12, nan_ok=True
        )
    nothing = match_table(path, noisy(content, 1)).figures(np.zeros((1, 13)))
    assert all(math.isnan(values[0]) for values in nothing.values())


def test_each_picture(tmp_path: Path, content: dict[str, Any]) -> None:
    path = data_files.write(tmp_path, content, pictures=False)
    results = noisy(content, 2)
    table = match_table(path, results)
    own = of_each_picture(table)
    for key, value in zip(table.image_ids, own, strict=True):
        expected = evaluate(path, results, image_ids=[key]).numbers["AP"]
        assert value == pytest.approx(expected, abs=1e-12, nan_ok=True)
    assert math.isnan(own[table.image_ids.index(777)])
    hits, false, missed = table.counts(0.0).T
    objects = [
        sum(a["image_id"] == key and not a["iscrowd"] for a in content["annotations"])
        for key in table.image_ids
    ]
    assert (hits + missed == objects).all()
    assert hits.sum() + false.sum() <= len(results)  # some lie on crowds
    assert table.counts(2.0)[:, 2].tolist() == objects


def test_differences(tmp_path: Path, content: dict[str, Any]) -> None:
    path = data_files.write(tmp_path, content, pictures=False)
    poor, good = (match_table(path, noisy(content, 3, spread)) for spread in (8.0, 1.0))
    found = {d.name: d for d in differences(poor, good, resamples=400)}
    assert found["AP"].second > found["AP"].first + 0.1
    assert 0 < found["AP"].low < found["AP"].second - found["AP"].first < found["AP"].high
    assert not found["AP"].within_noise
    assert list(found)[:12] == list(evaluate(path, []).numbers)
    assert list(found)[12:] == ["AP apple", "AP fig", "AP pear"]
    same = differences(good, good, resamples=50)
    assert all(d.within_noise and not d.low > 0 for d in same)
    assert differences(poor, good, resamples=50) == differences(poor, good, resamples=50)
    assert Difference("AP", 0.1, 0.2, math.nan, math.nan).within_noise


def test_the_interval_covers_the_truth() -> None:
    """Detectors that are equally good: some 95 of 100 intervals contain no difference."""
    from megbrain_py.data.bootstrap import Cell, MatchTable

    def table(rng: np.random.Generator) -> MatchTable:
        images, each = 60, 4
        image = np.repeat(np.arange(images), each)
        scores = rng.random(image.size)
        hit = rng.random(image.size) < rng.beta(4, 2, images)[image]
        order = np.argsort(-scores)
        hits = np.tile(hit[order], (6, 1))
        cell = Cell(
            image[order], np.zeros(image.size, np.int64), scores[order], hits,
            np.ones_like(hits), np.full(images, each),
        )  # fmt: skip
        recalls = np.linspace(0, 1, 101)
        return MatchTable("bbox", tuple(range(images)), ("a",), recalls, ((cell,) * 4,))

    rng = np.random.default_rng(0)
    inside = 0
    for trial in range(60):
        found = differences(table(rng), table(rng), resamples=120, seed=trial)
        inside += found[0].within_noise
    assert 0.88 <= inside / 60 < 1


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_official_numbers(kind: Any) -> None:
    folder = data_files.real("coco_eval_ref")
    expected = json.loads((folder / "expected.json").read_text())[kind]
    table = match_table(folder / expected["ground_truth"], folder / expected["results"], kind)
    figures = table.figures(np.ones((1, len(table.image_ids))))
    ours = {name: float(figures[name][0]) for name in expected["pycocotools"]}
    assert ours == pytest.approx(expected["pycocotools"], abs=1e-12)
