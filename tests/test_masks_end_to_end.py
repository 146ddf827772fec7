"""Masks through the program: train, resume, eval, predict, with a mask head and a generator."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from data_files import write
from pycocotools import mask as coco_mask
from test_data_masks import _with_masks

from megbrain_py.cli.main import main
from megbrain_py.training.log import read_log
from megbrain_py.viz.detections import draw_objects

SMALL = (
    "data.short_side=64", "data.long_side=96", "data.workers=0", "batch_size=2", "steps=2",
    "checkpoint_every=1", "model.fpn_channels=8", "model.rpn.post_nms_train=20",
    "model.rpn.post_nms_test=10", "model.roi.samples=8", "model.roi.hidden=16",
    "model.roi.detections=5", "model.roi.score=0", "model.mask_head.channels=4",
    "model.mask_head.convs=1", "model.mask_generator.channels=4", "model.mask_generator.window=12",
    "model.context.levels=neighbours", "model.context.global_map=true",
)  # fmt: skip


@pytest.mark.parametrize("mask", ["head", "generator"])
def test_train_resume_eval_predict(
    mask: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    annotations = write(tmp_path / "data", _with_masks([(60, 84), (60, 84), (50, 50), (84, 60)]))
    common = [f"data.train={annotations}", f"data.val={annotations}", *SMALL, f"model.mask={mask}"]
    runs = [tmp_path / "whole", tmp_path / "resumed"]
    assert main(["train", *common, f"output={runs[0]}"]) == 0
    assert "segm" not in capsys.readouterr().err
    assert main(["train", *common, f"output={runs[1]}", "steps=1"]) == 0
    assert main(["train", "--resume", str(runs[1]), "steps=2"]) == 0
    log = read_log(runs[0] / "log.jsonl")
    assert all(line["loss_mask"] > 0 for line in log if line["kind"] in ("train", "val"))
    (figures,) = (line for line in log if line["kind"] == "eval")
    assert {"AP", "AP50", "segm_AP", "segm_AP50", "segm_AP_per_class"} <= set(figures)
    last = [
        (run / "checkpoints" / "step_00000002.safetensors").read_bytes().partition(b"}}}")[2][-999:]
        for run in runs
    ]
    assert last[0] == last[1]
    assert (runs[0] / "curves.png").is_file()

    capsys.readouterr()
    assert main(["eval", str(runs[0]), "-o", str(tmp_path / "found.json")]) == 0
    shown = capsys.readouterr().out
    assert "bbox AP " in shown and "segm AP " in shown
    out = tmp_path / "out"
    assert main(["predict", str(runs[0]), str(tmp_path / "data" / "images"), "-o", str(out)]) == 0
    document = json.loads((out / "predictions.json").read_text())
    sizes = {image["id"]: [image["height"], image["width"]] for image in document["images"]}
    assert len(document["annotations"]) > 0
    for found in document["annotations"]:
        assert found["segmentation"]["size"] == sizes[found["image_id"]]
        box, (x, y, w, h) = found["bbox"], coco_mask.toBbox(found["segmentation"])
        assert w == h == 0 or (x >= box[0] - 1.5 and y >= box[1] - 1.5)
        assert w == 0 or (x + w <= box[0] + box[2] + 1.5 and y + h <= box[1] + box[3] + 1.5)
    assert len(list(out.glob("*.png"))) == 4


def test_data_without_masks_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = _with_masks()
    content["annotations"][0]["segmentation"] = []
    path = write(tmp_path / "data", content)
    words = [f"data.train={path}", *SMALL, "model.mask=head", f"output={tmp_path / 'run'}"]
    assert main(["train", *words]) == 2
    assert "annotation 1000 of image 5 has no segmentation" in capsys.readouterr().err
    assert main(["train", *words, "model.mask=generatr"]) == 2
    assert "model.mask expects one of none, head, generator" in capsys.readouterr().err


def test_a_picture_shows_the_masks() -> None:
    """Pixels inside of a mask are tinted and outlined, others stay as they are."""
    pixels = np.full((500, 600, 3), 100, np.uint8)
    mask = np.zeros((500, 600), bool)
    mask[120:180, 320:380] = True
    boxes, scores = [[300, 100, 400, 200], [0, 0, 5, 5]], [0.9, 0.8]
    masks = [mask, np.zeros_like(mask)]
    picture = np.asarray(draw_objects(pixels, boxes, [1, 1], ["a"], scores, masks))
    plain = np.asarray(draw_objects(pixels, boxes, [1, 1], ["a"], scores))
    assert (picture[150, 350] != 100).any() and (plain[150, 350] == 100).all()
    assert (picture[300, 350] == 100).all()
    assert (
        np.abs(picture[120, 350].astype(int) - 100).sum()
        > np.abs(picture[150, 350].astype(int) - 100).sum()
    )
