"""Pictures: memory of a plan, detections, curves. What they show is checked by eye; here: facts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import megbrain_py as mb
from megbrain_py import functional as F
from megbrain_py.plan import Plan
from megbrain_py.viz.curves import draw_curves, smooth
from megbrain_py.viz.detections import colour_of, contact_sheet, draw_objects
from megbrain_py.viz.memory import draw_memory, memory_profile


def some_plan() -> Plan:
    x = mb.placeholder("x", (40, 70))
    y = F.sum(F.mul(F.add(x, 1.0), F.sub(x, 2.0)) / 3.0)
    return mb.compile({"y": y}).plan


def test_memory_profile_agrees_with_the_planner(tmp_path: Path) -> None:
    plan = some_plan()
    profile = memory_profile(plan)
    assert len(profile.live) == len(plan.instructions)
    assert profile.peak_bytes == plan.lower_bound
    assert profile.arena_bytes == plan.scratch_bytes >= profile.peak_bytes
    assert profile.live[profile.peak] == profile.peak_bytes
    assert all(s.first <= profile.peak <= s.last for s in profile.at_peak)
    assert profile.at_peak[0].type.nbytes == max(s.type.nbytes for s in profile.at_peak)
    assert (profile.workspace <= profile.live).all()
    draw_memory(plan, tmp_path / "memory.png")
    assert (tmp_path / "memory.png").read_bytes()[:4] == b"\x89PNG"


def test_dump_holds_the_memory_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MB_DUMP", str(tmp_path / "dump"))
    some_plan()
    assert {"plan.txt", "memory.png"} <= {p.name for p in (tmp_path / "dump").iterdir()}


def test_memory_of_a_plan_without_instructions(tmp_path: Path) -> None:
    x = mb.placeholder("x", (3,))
    plan = mb.compile({"y": x}).plan
    draw_memory(plan, tmp_path / "memory.png")
    assert (tmp_path / "memory.png").exists()


def test_small_pictures_are_enlarged_and_boxes_follow() -> None:
    pixels = np.zeros((100, 120, 3), np.uint8)
    picture = draw_objects(pixels, [[20, 30, 60, 70]], [2], ["a", "b"], [0.75])
    assert picture.size == (480, 400)
    drawn = np.asarray(picture)
    colour = np.array(colour_of(2))
    assert (drawn[120 + 40, 80] == colour).all()  # the left edge, four times as far
    assert (drawn[50 * 4, 40 * 4] == 0).all()  # inside: untouched
    assert drawn[:119, 80:200].any()  # the tag above


def test_any_boxes_can_be_drawn() -> None:
    pixels = np.full((300, 600, 3), 200, np.uint8)
    rng = np.random.default_rng(0)
    boxes = rng.uniform(-50, 700, (300, 4))  # inverted, outside, huge, and very many
    boxes[0] = [5, 5, 5, 5]
    labels = rng.integers(1, 40, 300).tolist()
    names = [f"class {n} with a long name ü" for n in range(40)]
    for scores in (rng.random(300).tolist(), None):
        width, height = draw_objects(pixels, boxes, labels, names, scores).size
        assert width == 600 and 300 < height < 330  # a line below: tags were left out
    assert draw_objects(pixels, np.zeros((0, 4)), [], names).size == (600, 300)


def test_many_small_objects_are_enlarged_and_counted() -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 480, (60, 2))
    boxes = np.hstack([corners, corners + 9])
    pixels = np.zeros((500, 500, 3), np.uint8)
    few = draw_objects(pixels, boxes[:5], [1] * 5, ["cell"], [0.5] * 5)
    assert few.size == (500, 500)
    many = draw_objects(pixels, boxes, [1] * 60, ["cell"], [0.5] * 60)
    assert many.width == 2000 and 2000 < many.height < 2040
    below = np.asarray(many)[2000:]
    assert (below == np.array(colour_of(1))).all(axis=2).any()  # the legend's square
    thick, thin = (
        int((np.asarray(draw_objects(pixels, [box], [1], ["a"]))[250] > 0).any(axis=1).sum())
        for box in ([50, 50, 450, 450], [245, 235, 265, 265])
    )
    assert thin == 2 and thick == 2  # the picture's own width bounds both
    large = np.zeros((1600, 1600, 3), np.uint8)
    found = np.asarray(draw_objects(large, [[200, 200, 1400, 1400]], [1], ["a"]))
    assert (found[800] > 0).any(axis=1).sum() == 2 * 4
    found = np.asarray(draw_objects(large, [[800, 790, 820, 810]], [1], ["a"]))
    assert (found[800] > 0).any(axis=1).sum() == 2


def test_contact_sheet(tmp_path: Path) -> None:
    from PIL import Image

    pictures = [Image.new("RGB", (50, 100)), Image.new("RGB", (80, 40)), Image.new("RGB", (9, 9))]
    contact_sheet(pictures, tmp_path / "a" / "sheet.png", columns=2, side=100)
    with Image.open(tmp_path / "a" / "sheet.png") as sheet:
        assert sheet.size == (50 + 100 + 3 * 6, 100 + 100 + 3 * 6)


def test_curves_of_little(tmp_path: Path) -> None:
    path = tmp_path / "curves.png"
    draw_curves([{"kind": "train", "step": 1, "loss": 1.0, "lr": 0.1, "rate": None}], path)
    draw_curves([{"kind": "eval", "step": 1, "AP": None, "AP50": 0.5}], path)
    assert path.read_bytes()[:4] == b"\x89PNG"
    assert smooth(np.array([1.0, 2.0, 3.0]), 3).tolist() == [1.5, 2.0, 2.5]
