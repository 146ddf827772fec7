"""The page of `megbrain browse`: its data, its masks, pictures that cannot be read."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import data_files
import numpy as np
import pytest
from PIL import Image

from megbrain_py.cli.main import main
from megbrain_py.viz.browser import _runs


def data_of(page: Path) -> Any:
    found = re.search(r"^const data = (.*);$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None
    return json.loads(found[1])


def painted(path: str, height: int, width: int) -> np.ndarray:
    """The pixels that rectangles of an SVG path cover."""
    mask = np.zeros((height, width), bool)
    for x, y, w, h, _ in re.findall(r"M(\d+) (\d+)h(\d+)v(\d+)h-(\d+)z", path):
        mask[int(y) : int(y) + int(h), int(x) : int(x) + int(w)] = True
    return mask


def test_runs_paint_the_mask() -> None:
    mask = np.random.default_rng(0).random((13, 17)) < 0.4
    mask[3] = True
    assert np.array_equal(painted(_runs(mask, 1), 13, 17), mask)
    assert _runs(np.zeros((4, 4), bool), 1) == ""
    coarse = np.kron(mask, np.ones((4, 4), bool)).astype(bool)
    assert np.array_equal(painted(_runs(coarse, 4), 52, 68), coarse)


def test_page_of_a_data_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = data_files.document([(40, 60), (900, 450), (30, 30)], 2)
    document["categories"][0]["name"] = "</script><b>ü"
    polygon, rle = document["annotations"][:2]
    polygon["segmentation"] = [[1.2, 1, 9, 1, 9.6, 9]]
    height, width = 40, 60
    document["annotations"][2]["segmentation"] = {"size": [1, 9], "counts": [4, 5]}  # not its size
    rle["segmentation"] = {"size": [height, width], "counts": [41, 3, height * width - 44]}
    file = data_files.write(tmp_path / "data", document)
    assert main(["browse", str(file), "-o", str(tmp_path / "page")]) == 0
    assert "3 pictures, 6 objects" in capsys.readouterr().out
    page = tmp_path / "page" / "index.html"
    assert page.read_text().count("</script>") == 1
    data = data_of(page)
    assert data["classes"] == ["apple", "fig", "</script><b>ü"]
    assert len(data["colours"]) == 3
    first = data["images"][0]
    assert (first["h"], first["w"]) == (height, width)
    box = polygon["bbox"]
    assert first["objects"][0][1:5] == pytest.approx(box, abs=0.06)
    assert first["objects"][0][6] == "M1 1 9 1 10 9Z"
    mask = painted(first["objects"][1][6], height, width)
    assert mask.sum() == 3 and mask[1:4, 1].all()
    assert (page.parent / first["file"]).samefile(file.parent.parent / "images" / first["name"])
    assert data["images"][1]["objects"][0][6] == ""
    with Image.open(page.parent / data["images"][1]["thumb"]) as thumbnail:
        assert thumbnail.size == (160, 320)


def test_pictures_that_cannot_be_read_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = data_files.write(tmp_path, data_files.document([(40, 60)] * 2, 1))
    images = file.parent.parent / "images"
    broken = sorted(images.iterdir())[1]
    broken.write_bytes(b"no picture")
    assert main(["browse", str(file), "-o", str(tmp_path / "page")]) == 1
    assert f"cannot be shown: {broken}" in capsys.readouterr().err
    thumbs = [image["thumb"] for image in data_of(tmp_path / "page" / "index.html")["images"]]
    assert sorted(thumbs) == ["", "thumbnails/0.jpg"]


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node to read the script")
def test_script_is_valid(tmp_path: Path) -> None:
    file = data_files.write(tmp_path, data_files.document([(40, 60)], 1))
    main(["browse", str(file), "-o", str(tmp_path / "page")])
    script = re.search(
        r"<script>(.*)</script>", (tmp_path / "page" / "index.html").read_text(), re.S
    )
    assert script is not None
    (tmp_path / "page.js").write_text(script[1])
    subprocess.run(["node", "--check", str(tmp_path / "page.js")], check=True)
