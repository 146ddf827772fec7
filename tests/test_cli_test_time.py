"""The program on several runs and views, and `compare`."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path

import pytest
from test_cli import data as data  # fixtures
from test_cli import detector as detector
from test_cli import failing, settings

from megbrain_py.cli.main import main
from megbrain_py.training.progress import Passes


@pytest.fixture
def runs(detector: None, data: Path, tmp_path: Path) -> list[str]:
    """Two trained stand-ins; the second is less sure."""
    made = []
    for name, more in (("a", []), ("b", ["model.score=0.6", "seed=1"])):
        assert main(["train", *settings(data, tmp_path / name, "steps=1", *more)]) == 0
        made.append(str(tmp_path / name))
    return made


def test_eval_of_views_and_several_runs(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = tmp_path / "found.json"
    words = ["--scales", "0.75,1", "--flip", "--vote", "0.8", "--soft-nms", "linear"]
    capsys.readouterr()
    assert main(["eval", *runs, *words, "--weights", "1,0.5", "-o", str(found)]) == 0
    said = capsys.readouterr()
    assert "bbox AP " in said.out
    assert "48/48 pictures" in said.err  # 6 pictures, 2 x 2 views, 2 runs
    assert "img/s  left 0:00  detector 2 of 2, scale 1, mirrored" in said.err
    results = json.loads(found.read_text())
    best = [max(r["score"] for r in results if r["image_id"] == key) for key in range(1, 7)]
    assert best == pytest.approx([0.9] * 6)
    assert "3 weights for 2 detectors" in failing(capsys, "eval", *runs, "--weights", "1,1,1")
    assert "vote must be in 0..1" in failing(capsys, "eval", runs[0], "--vote", "3")
    wrong = failing(capsys, "eval", runs[0], "--scales", "1,x")
    assert "--scales: expects numbers with commas between, found '1,x'" in wrong


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_line(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 2.0, 20.0, 21.0] * 2)
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    for stream in (io.StringIO(), Terminal()):
        line = Passes(10, stream)
        for pictures, what in ((4, "scale 1"), (2, "scale 1"), (2, "scale 2"), (2, "")):
            line.add(pictures, what)
        said = stream.getvalue()
        if stream.isatty():  # one line, written again and again
            first, *_, last = said.split("\r")[1:]
            assert first == "4/10 pictures  4.0 img/s  left 0:02  scale 1"
            assert last.split() == ["10/10", "pictures", "0.5", "img/s", "left", "0:00"]
            assert last.endswith(" \n")  # covers what stood there
        else:  # every ten seconds, and the end
            assert said.splitlines() == [
                "8/10 pictures  0.4 img/s  left 0:05  scale 2",
                "10/10 pictures  0.5 img/s  left 0:00",
            ]


def test_predict_of_several_runs(
    runs: list[str], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    picture = str(data / "images" / "p1.png")
    assert main(["predict", *runs, picture, "--flip", "-o", str(out)]) == 0
    assert "1 pictures, 1 objects" in capsys.readouterr().out
    assert [p.name for p in out.glob("*.png")] == ["p1.png"]
    assert "no pictures are named after" in failing(capsys, "predict", *runs)
    assert "no pictures are named after" in failing(capsys, "predict", runs[0])


def test_compare(
    runs: list[str], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, page = data / "annotations" / "val.json", tmp_path / "page"
    results = [
        {"image_id": key, "category_id": 7, "bbox": [16, 16, 32, 32], "score": 0.9}
        for key in range(1, 6)
    ]
    for name, used in (("good", results), ("poor", results[:2])):
        (tmp_path / f"{name}.json").write_text(json.dumps(used))
    both = [str(tmp_path / f"{name}.json") for name in ("good", "poor")]
    words = ["compare", *both, "--data", str(file), "-o", str(page)]
    capsys.readouterr()
    assert main([*words, "--resamples", "100", "--pictures", "2"]) == 0
    said = capsys.readouterr().out
    lines = {line.split("  ")[0]: line for line in said.splitlines()}
    assert "0.832   0.337" in lines["AP"]
    assert "within noise" not in lines["AP"]
    assert "noise" not in lines["AP dust"]  # nothing of it is there: no verdict
    text = (page / "index.html").read_text()
    assert "good.json: AP 1.00, 1 right, 0 false, 0 missed" in text
    assert "poor.json: AP 0.00, 0 right, 0 false, 1 missed" in text
    assert len(list(page.glob("*.png"))) == 6
    for name in ("001_truth.png", "002_second.png"):
        assert f'src="{name}"' in text and (page / name).is_file()

    assert main(["compare", *runs, "-o", str(page), "--resamples", "10"]) == 0
    assert "first: a; second: b; 6 pictures of val.json" in capsys.readouterr().out
    assert main(["compare", both[0], runs[0], "-o", str(page), "--resamples", "10"]) == 0

    assert "is compared with itself" in failing(capsys, "compare", runs[0], runs[0])
    assert "--data is needed" in failing(capsys, "compare", *both)
    assert "--resamples must be at least 1" in failing(capsys, *words, "--resamples", "0")
    (tmp_path / "poor.json").write_text('[{"image_id": 1}]')
    assert "is without" in failing(capsys, *words)


def test_compare_with_masks(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = data / "annotations" / "val.json"
    document = json.loads(file.read_text())
    square = [[16, 16, 48, 16, 48, 48, 16, 48]]
    for annotation in document["annotations"]:
        annotation["segmentation"] = square
    file.write_text(json.dumps(document))
    from pycocotools import mask as coco_mask

    runs = coco_mask.frPyObjects(square, 48, 64)[0]
    runs["counts"] = runs["counts"].decode()
    sides = []
    for name, score in (("one", 0.9), ("two", 0.4)):
        results = [
            {"image_id": key, "category_id": 7, "segmentation": runs, "score": score}
            for key in range(1, 7)
        ]
        sides.append(tmp_path / f"{name}.json")
        sides[-1].write_text(json.dumps(results))
    words = ["compare", *map(str, sides), "--data", str(file), "-o", str(tmp_path / "page")]
    assert main([*words, "--resamples", "10"]) == 0  # only masks
    said = capsys.readouterr().out
    assert "segm" in said and "bbox" not in said
    assert len(list((tmp_path / "page").glob("*.png"))) == 18  # as sure or not: other mistakes
