"""Pictures and annotations that are not what they should be.

Each is refused with a DataError that names the file and the place in it, or, where a picture is
only unusual, read as what it shows.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import data_files
import numpy as np
import pytest
from PIL import Image

from megbrain_py.data import Loader, check_data, read_coco, read_image
from megbrain_py.errors import DataError

Change = Callable[[Any], Any]
SIZES = [(64, 48), (40, 80)]


# --- pictures -------------------------------------------------------------------------------------

PIXELS = data_files.picture(64, 48)


def _jpeg(path: Path, **options: Any) -> bytes:
    PIXELS.save(path, "JPEG", quality=90, **options)
    return path.read_bytes()


def _cut_jpeg(path: Path) -> None:
    path.write_bytes(_jpeg(path)[:-400])


def _flipped_png(path: Path) -> None:
    PIXELS.save(path, "PNG")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))


def _huge_png(path: Path) -> None:
    """Says that it has 60000 x 60000 pixels."""
    PIXELS.save(path, "PNG")
    data = bytearray(path.read_bytes())
    data[16:24] = struct.pack(">II", 60000, 60000)
    path.write_bytes(bytes(data))


BAD_PICTURES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (lambda path: None, "the picture does not exist"),
    "of no bytes": (lambda path: path.write_bytes(b""), "cannot be decoded: cannot identify"),
    "a text": (lambda path: path.write_text("<html>404</html>"), "cannot be decoded"),
    "a folder": (lambda path: path.mkdir(), "cannot be decoded: .*[Ii]s a directory"),
    "a link to nowhere": (lambda path: path.symlink_to("nowhere"), "the picture does not exist"),
    "a cut JPEG": (_cut_jpeg, "cannot be decoded: .*truncated"),
    "a PNG with a flipped byte": (_flipped_png, "cannot be decoded"),
    "a PNG that claims to be huge": (_huge_png, "the picture is too large|cannot be decoded"),
    "of another size": (
        lambda path: data_files.picture(32, 32).save(path, "PNG"),
        "the picture is 32x32, the annotations say 48x64",
    ),
}


@pytest.mark.parametrize("name", BAD_PICTURES)
def test_a_bad_picture_is_named(name: str, tmp_path: Path) -> None:
    write, message = BAD_PICTURES[name]
    annotations = data_files.write(tmp_path, data_files.document(SIZES))
    path = tmp_path / "images" / "0000.png"
    path.unlink()
    write(path)
    loader = Loader(read_coco(annotations), 2, fill=False, shuffle=False)
    with pytest.raises(DataError, match=rf"{path}: .*({message})"):
        list(loader.pass_over(workers=2))
    report = check_data(annotations)
    assert [f.where for f in report.findings if f.severity == "error"] == ["0000.png"]


def _sideways(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter to the right
    PIXELS.transpose(Image.Transpose.ROTATE_90).save(path, "JPEG", quality=95, exif=exif.tobytes())


def _animated(path: Path) -> None:
    frames = [PIXELS.convert("P"), PIXELS.convert("P").rotate(180)]
    frames[0].save(path, "GIF", save_all=True, append_images=frames[1:])


ODD_PICTURES: dict[str, Callable[[Path], Any]] = {
    "CMYK": lambda path: PIXELS.convert("CMYK").save(path, "JPEG", quality=95),
    "a palette": lambda path: PIXELS.quantize(256).save(path, "PNG"),
    "transparency": lambda path: PIXELS.convert("RGBA").save(path, "PNG"),
    "an animation, of which the first picture counts": _animated,
    "turned by EXIF": _sideways,
    "progressive": lambda path: _jpeg(path, progressive=True),
    "with another ending": lambda path: PIXELS.save(path, "WEBP", quality=95),
}


@pytest.mark.parametrize("name", ODD_PICTURES)
def test_an_unusual_picture_is_read(name: str, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    ODD_PICTURES[name](path)
    difference = read_image(path).astype(int) - np.asarray(PIXELS)
    assert np.abs(difference).mean() < 16


def test_sixteen_bits_of_grey_are_scaled(tmp_path: Path) -> None:
    grey = np.linspace(0, 65535, 64 * 48).reshape(64, 48).astype(np.uint16)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    found = read_image(tmp_path / "grey.png")
    np.testing.assert_allclose(found[..., 0], grey / 257, atol=1.01)


# --- annotations ----------------------------------------------------------------------------------


def at(*keys: Any, value: Any) -> Change:
    """Sets a value inside a document."""

    def change(document: Any) -> Any:
        owner = document
        for key in keys[:-1]:
            owner = owner[key]
        owner[keys[-1]] = value
        return document

    return change


def without(*keys: Any) -> Change:
    """Drops a key inside a document."""

    def change(document: Any) -> Any:
        owner = document
        for key in keys[:-1]:
            owner = owner[key]
        del owner[keys[-1]]
        return document

    return change


NAN = float("nan")
BOX = ("annotations", 1, "bbox")
SHAPE = ("annotations", 1, "segmentation")
BAD_ANNOTATIONS: dict[str, tuple[Change, str]] = {
    "a list": (lambda document: [document], r"holds \[.*, expected an object"),
    "no pictures listed": (without("images"), "the key 'images' is missing"),
    "pictures by name": (at("images", value={}), "'images' is {}, expected a list"),
    "no classes": (at("categories", value=[]), "'categories' is empty"),
    "a class without name": (without("categories", 1, "name"), r"categories\[1\].*'name' is miss"),
    "a class id twice": (at("categories", 1, "id", value=90), r"categories\[1\].*appears twice"),
    "a picture id twice": (at("images", 1, "id", value=5), r"images\[1\] \(id 5\).*appears twice"),
    "a picture id too large": (at("images", 1, "id", value=2**63), r"images\[1\].*whole number"),
    "an id that is a text": (at("images", 0, "id", value="5"), r"images\[0\]: 'id' is '5'"),
    "a picture without file": (at("images", 0, "file_name", value=""), r"images\[0\].*file_name"),
    "no height": (without("images", 0, "height"), r"images\[0\] \(id 5\): the key 'height'"),
    "no pixels": (at("images", 0, "width", value=0), r"images\[0\].*is 0x64, expected at least"),
    "a negative size": (at("images", 0, "width", value=-48), r"images\[0\].*is -48x64, expected"),
    "too many pixels": (at("images", 0, "width", value=10**6), r"images\[0\].*expected at most"),
    "an unknown class": (
        at("annotations", 2, "category_id", value=4), r"annotations\[2\].*category_id 4 is not in"),
    "an unknown picture": (
        at("annotations", 2, "image_id", value=4), r"annotations\[2\].*image_id 4 is not in"),
    "an object that is none": (at("annotations", 2, value=3), r"annotations\[2\]: is 3, expected"),
    "no box": (without(*BOX), r"annotations\[1\].*the key 'bbox' is missing"),
    "a box of three numbers": (at(*BOX, value=[1, 2, 3]), r"annotations\[1\].*four numbers"),
    "a box of texts": (at(*BOX, value=["1", 2, 3, 4]), r"annotations\[1\].*four numbers"),
    "a box with NaN": (at(*BOX, value=[NAN, 2, 3, 4]), r"annotations\[1\].*four numbers"),
    "an endless box": (at(*BOX, value=[1, 2, 1e308, 4]), r"annotations\[1\].*four numbers"),
    "a polygon of odd length": (at(*SHAPE, value=[[1, 2, 3]]), r"annotations\[1\].*pairs x, y"),
    "a polygon with NaN": (at(*SHAPE, value=[[NAN] * 6]), r"annotations\[1\].*pairs x, y"),
    "a polygon far away": (at(*SHAPE, value=[[1e9] * 6]), r"annotations\[1\].*at most"),
    "runs that fill too much": (
        at(*SHAPE, value={"size": [64, 48], "counts": [9999]}), r"annotations\[1\].*do not fill"),
    "a negative run": (
        at(*SHAPE, value={"size": [2, 2], "counts": [-4, 8]}), r"annotations\[1\].*do not fill"),
    "runs of letters": (
        at(*SHAPE, value={"size": [64, 48], "counts": "zz"}), r"annotations\[1\].*run lengths"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_ANNOTATIONS)
def test_bad_annotations_are_named(name: str, tmp_path: Path) -> None:
    change, message = BAD_ANNOTATIONS[name]
    document = change(data_files.document(SIZES))
    path = data_files.write(tmp_path, document, pictures=False)
    with pytest.raises(DataError, match=rf"^{path}: .*{message}"):
        read_coco(path)
    assert not check_data(path, pictures=False).ok


BAD_JSON: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "nothing": (lambda data: b"", "broken JSON at line 1, column 1"),
    "a half": (lambda data: data[: len(data) // 2], "broken JSON at line 1, column"),
    "a comma too many": (lambda data: data[:-1] + b",}", "broken JSON at line 1, column"),
    "bytes that are no text": (lambda data: b"\xff\xfe\xfa" + data, "broken JSON"),
    "brackets without end": (lambda data: b"[" * 100_000, "broken JSON"),
    "a number of 5000 digits": (lambda data: b"9" * 5000, "broken JSON|expected an object"),
}


@pytest.mark.parametrize("name", BAD_JSON)
def test_broken_json_is_named(name: str, tmp_path: Path) -> None:
    change, message = BAD_JSON[name]
    path = data_files.write(tmp_path, data_files.document(SIZES), pictures=False)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataError, match=rf"^{path}: .*({message})"):
        read_coco(path)
    assert not check_data(path).ok


def test_boxes_outside_of_the_picture_are_told_and_left_out(tmp_path: Path) -> None:
    document = data_files.document(SIZES)
    boxes = [[100, 2, 9, 9], [-50, -50, 20, 20], [5, 5, 0, 9], [5, 5, -3, 9]]
    for entry, box in zip(document["annotations"], boxes, strict=False):
        entry["bbox"] = box
    path = data_files.write(tmp_path, document)
    kinds = [finding.kind for finding in check_data(path).findings if finding.severity == "error"]
    assert kinds == ["box outside the picture"] * 2 + ["empty box", "negative box"]
    batch = Loader(read_coco(path), 2, shuffle=False).batch(0)
    left = batch["boxes"][np.arange(16) < batch["box_count"][:, None]]
    assert (left[:, 2:] > left[:, :2]).all()
    assert batch["box_count"].sum() == 6 - len(boxes)
