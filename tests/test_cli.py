"""The program: every command, its output and its exit codes, and errors without traceback."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import fake_detector
import numpy as np
import pytest
from PIL import Image

from megbrain_py import op_testing
from megbrain_py.cli import demo
from megbrain_py.cli.main import main
from megbrain_py.op_testing import Case, ErrorCase


@pytest.fixture
def detector(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in instead of the real detector."""
    from megbrain_py import models

    monkeypatch.setitem(sys.modules, "megbrain_py.models.faster_rcnn", fake_detector)
    monkeypatch.setattr(models, "faster_rcnn", fake_detector, raising=False)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A COCO-format data set of six pictures; the object in the middle is of category 7."""
    folder = tmp_path / "set"
    (folder / "images").mkdir(parents=True)
    (folder / "annotations").mkdir()
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for key in range(1, 7):
        pixels = rng.integers(0, 255, (48, 64, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"p{key}.png")
        images.append({"id": key, "file_name": f"p{key}.png", "height": 48, "width": 64})
        annotations.append(
            {"id": key, "image_id": key, "category_id": 7, "bbox": [16, 16, 32, 32], "area": 1024,
             "iscrowd": 0}
        )  # fmt: skip
    document = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 7, "name": "cell"}, {"id": 9, "name": "dust"}],
    }
    for split in ("train", "val"):
        (folder / "annotations" / f"{split}.json").write_text(json.dumps(document))
    return folder


def settings(data: Path, output: Path, *more: str) -> list[str]:
    return [
        f"data.train={data}/annotations/train.json", f"data.val={data}/annotations/val.json",
        f"output={output}", "data.short_side=64", "data.workers=0", "epochs=2", *more,
    ]  # fmt: skip


def failing(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What the program says when it refuses; always without traceback, exit code 2."""
    capsys.readouterr()
    try:
        code = main(words)
    except SystemExit as stop:  # argparse
        code = int(stop.code or 0)
    said = capsys.readouterr().err
    assert code == 2, said
    assert "Traceback" not in said
    return said


def test_train_eval_predict(
    detector: None, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(["train", *settings(data, run, "model.width=8", "checkpoint_every=2")]) == 0
    said = capsys.readouterr().out
    assert "classes (2): cell, dust" in said
    assert "'width': 8" in said
    assert "anchor_sizes" in said
    assert "linear scaling" in said
    assert "1 input signature" in said
    assert "AP50" in said
    assert "cell" in said
    assert {"log.jsonl", "config.toml", "curves.png", "checkpoints", "best.safetensors"} <= {
        p.name for p in run.iterdir()
    }

    assert "holds a training already" in failing(capsys, "train", *settings(data, run))
    assert main(["train", "--resume", str(run), "epochs=3"]) == 0
    assert "resuming after step 6 of 9" in capsys.readouterr().out

    found = tmp_path / "found.json"
    looked = tmp_path / "looked"
    words = ["--batch", "4", "--pictures", str(looked), "--score", "0.3"]
    assert main(["eval", str(run), "-o", str(found), *words]) == 0
    assert "bbox AP " in capsys.readouterr().out
    drawn = {"classes.png", "confusion.png", "detections.png"}
    assert drawn == {p.name for p in looked.iterdir()}
    assert drawn <= {p.name for p in run.iterdir()}
    results = json.loads(found.read_text())
    assert len(results) == 6
    assert {r["category_id"] for r in results} == {7}
    assert main(["eval", str(run / "best.safetensors"), "--data",
                 f"{data}/annotations/val.json", "--images", f"{data}/images"]) == 0  # fmt: skip

    out = tmp_path / "out"
    assert main(["predict", str(run), str(data / "images"), "-o", str(out)]) == 0
    assert "6 pictures, 6 objects" in capsys.readouterr().out
    assert sorted(p.name for p in out.glob("*.png")) == [f"p{k}.png" for k in range(1, 7)]
    document = json.loads((out / "predictions.json").read_text())
    assert document["categories"] == [{"id": 7, "name": "cell"}, {"id": 9, "name": "dust"}]
    assert [a["category_id"] for a in document["annotations"]] == [7] * 6
    assert document["images"][0]["file_name"].endswith("p1.png")

    assert main(["eval", str(run / "config.toml")]) == 0  # stands for its output
    capsys.readouterr()
    assert main(["info", str(run)]) == 0
    said = capsys.readouterr().out
    assert "checksum right" in said
    assert "cell, dust" in said
    assert "step" in said


def test_demo(detector: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--output", str(tmp_path / "demo"), "--train", "20", "--val", "8", "data.workers=0"]
    for _ in range(2):  # a second demo replaces the first
        assert demo.main([*words, "steps=2"]) == 0
        assert re.fullmatch(r"val AP50 = \d\.\d{3}", capsys.readouterr().out.splitlines()[-1])
    assert {"curves.png", "detections.png", "data", "run"} <= {
        p.name for p in (tmp_path / "demo").iterdir()
    }
    assert demo.main([*words, "stps=2"]) == 2
    assert "did you mean steps" in capsys.readouterr().err


def test_start_from_weights(
    detector: None, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *settings(data, tmp_path / "a", "steps=2")]) == 0
    weights = f"model.weights={tmp_path}/a"
    assert main(["train", *settings(data, tmp_path / "b", "steps=1", weights)]) == 0
    assert "weights: 2 of 2 arrays" in capsys.readouterr().out


def test_train_refuses(
    detector: None, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    for more, message in [
        (["data.trian=x"], "did you mean data.train"),
        (["model.preset=laptp"], "no model.preset laptp; did you mean laptop?"),
        (["model.widht=3"], "no key model.widht; did you mean model.width"),
        (["model.width=wide"], "model.width expects a whole number, found 'wide'"),
        (["model.num_classes=3"], "model.num_classes is not a setting"),
        (["optimizer.rate=nan"], "optimizer.rate expects a finite number, found nan"),
        (["data.train="], "data.train is needed"),
        (["data.train=/nothing.json"], "/nothing.json: cannot be read"),
        (["data.val_images=/nothing"], "/nothing: there is no such folder of pictures"),
        (["model.weights=/nothing"], "/nothing: no run's folder, and no checkpoint"),
    ]:
        assert message in failing(capsys, "train", *settings(data, run, *more))
    assert not run.exists()
    assert "there is no such file" in failing(capsys, "train", "nothing.toml")
    assert "expected one configuration file" in failing(capsys, "train", "a.toml", "b.toml")


def test_train_says_that_pictures_are_much_enlarged(
    detector: None, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *settings(data, tmp_path / "a", "steps=1")]) == 0
    assert "enlarged" not in capsys.readouterr().out
    larger = ["data.short_side=128", "steps=1"]
    assert main(["train", *settings(data, tmp_path / "b", *larger)]) == 0
    assert "enlarged from 48 pixels" in capsys.readouterr().out


def test_show_config(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--show-config", "batch_size=7"]) == 0
    assert "batch_size = 7" in capsys.readouterr().out


def test_eval_and_predict_refuse(
    detector: None, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(["train", *settings(data, run, "steps=1")]) == 0
    assert "no run's folder" in failing(capsys, "eval", str(tmp_path / "none"))
    assert "there is no such file or folder" in failing(capsys, "predict", str(run), "/nothing.png")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no pictures in" in failing(capsys, "predict", str(run), str(empty))
    document = json.loads((data / "annotations" / "val.json").read_text())
    document["categories"][0]["name"] = "other"
    other = data / "annotations" / "other.json"
    other.write_text(json.dumps(document))
    assert "are not the detector's" in failing(capsys, "eval", str(run), "--data", str(other))
    broken = run / "best.safetensors"
    broken.write_bytes(broken.read_bytes()[:-3])
    assert "not a whole safetensors file" in failing(capsys, "eval", str(run))


def test_predict_leaves_out_what_is_no_picture(
    detector: None, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    assert main(["train", *settings(data, run, "steps=1")]) == 0
    cut = data / "images" / "p3.png"
    cut.write_bytes(cut.read_bytes()[:900])
    assert main(["predict", str(run), str(data / "images"), "-o", str(out)]) == 1
    said = capsys.readouterr()
    assert "left out" in said.err and "p3.png" in said.err
    assert "5 pictures" in said.out
    assert len(list(out.glob("*.png"))) == 5
    found = json.loads((out / "predictions.json").read_text())
    assert [Path(image["file_name"]).name for image in found["images"]] == [
        "p1.png", "p2.png", "p4.png", "p5.png", "p6.png"
    ]  # fmt: skip
    assert "none of 1 pictures can be read" in failing(capsys, "predict", str(run), str(cut))


def test_predict_writes_a_picture_for_every_file(
    detector: None, data: Path, tmp_path: Path
) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    assert main(["train", *settings(data, run, "steps=1")]) == 0
    names = ["a.png", "a_3.png", "more/a.png", "more/a_3.png"]
    (tmp_path / "more").mkdir()
    for name in names:
        (tmp_path / name).write_bytes((data / "images" / "p1.png").read_bytes())
    files = [str(tmp_path / name) for name in names]
    assert main(["predict", str(run), *files, "-o", str(out)]) == 0
    assert len(list(out.glob("*.png"))) == 4


def test_classes_can_be_chosen(
    detector: None, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    words = settings(data, run, "steps=1", "data.classes=dust,cell")
    assert main(["train", *words]) == 0
    assert "classes (2): dust, cell" in capsys.readouterr().out
    assert main(["eval", str(run)]) == 0
    rows = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line]
    assert rows[-2:] == ["dust", "cell"]
    fewer = settings(data, tmp_path / "cells", "steps=1", "data.classes=cell")
    assert main(["train", *fewer]) == 0
    assert "classes (1): cell" in capsys.readouterr().out
    wrong = settings(data, tmp_path / "none", "data.classes=cel")
    assert "0 categories are named 'cel', expected 1" in failing(capsys, "train", *wrong)


def test_resume_is_told_in_several_ways(
    detector: None, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(["train", *settings(data, run, "steps=2")]) == 0
    assert main(["train", "--resume", str(run), "steps=3"]) == 0
    assert main(["train", f"output={run}", "steps=4", "--resume"]) == 0
    assert main(["train", "--resume", str(run / "config.toml"), "steps=5"]) == 0
    assert "resuming after step 4 of 5" in capsys.readouterr().out
    assert "is at step 5 already" in failing(capsys, "train", "--resume", str(run), "steps=3")
    assert "no run's folder" in failing(capsys, "train", "--resume", str(tmp_path / "none"))
    with_file = failing(capsys, "train", "--resume", str(run), "my.toml")
    assert "leave my.toml away" in with_file


def test_check_data(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = data / "annotations" / "val.json"
    assert main(["check-data", str(file)]) == 0
    assert "6 pictures, 6 objects" in capsys.readouterr().out
    (data / "images" / "p3.png").unlink()
    assert main(["check-data", str(file), str(data / "images")]) == 1
    assert "p3.png" in capsys.readouterr().out
    assert "cannot be read" in failing(capsys, "check-data", "/nothing.json")


def test_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    said = capsys.readouterr().out
    for word in ("megbrain_py", "oneDNN", "instruction set", "threads", "numpy"):
        assert word in said
    assert "no run's folder" in failing(capsys, "info", "/nothing")


def test_test_op(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from megbrain_py import functional as F

    x = op_testing.normal(2, 3)
    cases = [
        Case("right", lambda a: F.add(a, a), {"a": x}),
        Case("no_gradient", lambda a: F.add(a, a), {"a": x}, grad=()),
        Case("too_strict", lambda a: F.div(a, 3.0), {"a": x}, tolerance=-1.0),
    ]
    errors = [ErrorCase("bad", lambda a: F.add(a, a), {"a": x}, "not raised")]
    monkeypatch.setattr(op_testing, "cases_of", lambda room: (cases[:2], []))
    assert main(["test-op", "add"]) == 0
    said = capsys.readouterr().out
    assert "binary" in said  # the room of the function
    assert "3 checks passed, 0 failed" in said
    monkeypatch.setattr(op_testing, "cases_of", lambda room: (cases, errors))
    assert main(["test-op", "binary"]) == 1
    said = capsys.readouterr().out
    assert "4 checks passed, 2 failed" in said
    assert "relative error" in said
    assert "was accepted" in said
    assert "no operator binry; did you mean binary" in failing(capsys, "test-op", "binry")


def test_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no command evaluate; did you mean eval" in failing(capsys, "evaluate")
    assert "required: command" in failing(capsys)


def test_program_imports_little() -> None:
    """`import megbrain_py` and the command line stay light: pictures and plots come when used."""
    heavy = ["matplotlib", "rich", "PIL", "pycocotools", "sklearn", "networkx"]
    code = (
        "import sys, megbrain_py, megbrain_py.cli.main;"
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True
    )
    assert done.stdout.strip() == "[]"
    done = subprocess.run(
        [sys.executable, "-m", "megbrain_py", "eval", "/nothing"], capture_output=True, text=True,
        cwd=root, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("megbrain eval: /nothing: ")
