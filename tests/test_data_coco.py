"""Reading COCO-format annotations and picture files, and finding what is wrong with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import data_files
import numpy as np
import pytest
from PIL import Image

from megbrain_py.data import check_data, decode_mask, read_coco, read_image
from megbrain_py.data.coco import Polygons, RunLengths, run_lengths
from megbrain_py.data.images import open_rgb
from megbrain_py.errors import DataError

Change = Callable[[dict[str, Any]], object]


def test_labels_are_contiguous_in_the_order_of_ids(tmp_path: Path) -> None:
    content = data_files.document([(40, 60), (60, 40)])
    content["images"].append({"id": 99, "file_name": "e.png", "height": 32, "width": 32})
    data = read_coco(data_files.write(tmp_path, content))
    assert data.class_names == ("apple", "fig", "pear")
    assert [data.category_id(label) for label in (1, 2, 3)] == [3, 7, 90]
    assert [image.id for image in data.images] == [5, 12, 99]
    assert data.images[2].objects == ()
    assert data.path(data.images[0]).is_file()
    first = content["annotations"][0]
    x, y, w, h = first["bbox"]
    found = data.images[0].objects[0]
    assert found.box == (x, y, x + w, y + h)
    assert data.category_id(found.label) == first["category_id"]
    assert [image.id for image in data.take([2, 0]).images] == [99, 5]
    with pytest.raises(DataError, match=r"label 4 is not in 1\.\.3"):
        data.category_id(4)


def test_only_some_classes(tmp_path: Path) -> None:
    data = read_coco(data_files.write(tmp_path, data_files.document([(40, 60), (60, 40)], 6)))
    fewer = data.only(["pear", "apple"])
    assert [(c.id, c.label, c.name) for c in fewer.categories] == [(90, 1, "pear"), (3, 2, "apple")]
    for before, after in zip(data.images, fewer.images, strict=True):
        kept = [a for a in before.objects if data.class_names[a.label - 1] != "fig"]
        assert [a.id for a in after.objects] == [a.id for a in kept]
        assert [fewer.category_id(a.label) for a in after.objects] == [
            data.category_id(a.label) for a in kept
        ]
    with pytest.raises(DataError, match="0 categories are named 'plum', expected 1"):
        data.only(["plum"])
    with pytest.raises(DataError, match="1 categories are named 'fig', expected 1, named once"):
        data.only(["fig", "fig"])


def test_segmentations(tmp_path: Path) -> None:
    content = data_files.document([(20, 30)], 4)
    square = [2.0, 3.0, 12.0, 3.0, 12.0, 9.0, 2.0, 9.0]
    counts = [30 * 20 - 40, 40]  # the last two columns
    a, b, c, d = content["annotations"]
    a["segmentation"] = [square, [20.0, 10.0, 25.0, 10.0, 25.0, 15.0, 20.0, 15.0], [1.0, 1.0]]
    b["segmentation"] = {"size": [20, 30], "counts": counts}
    b["iscrowd"] = 1
    packed = run_lengths(RunLengths(20, 30, tuple(counts)), 20, 30)["counts"].decode()
    c["segmentation"] = {"size": [20, 30], "counts": packed}
    del d["segmentation"]
    objects = read_coco(data_files.write(tmp_path, content, pictures=False)).images[0].objects
    assert isinstance(objects[0].segmentation, Polygons)
    mask = decode_mask(objects[0].segmentation, 20, 30)
    assert mask.sum() == 10 * 6 + 5 * 5
    assert mask[3:9, 2:12].all()
    assert objects[1].crowd
    assert not objects[0].crowd
    for found in (objects[1].segmentation, objects[2].segmentation):
        assert isinstance(found, RunLengths)
        mask = decode_mask(found, 20, 30)
        assert mask[:, 28:].all()
        assert mask.sum() == 40
    assert objects[3].segmentation is None


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda c: c.pop("images"), "the key 'images' is missing"),
        (lambda c: c.update(annotations=3), "'annotations' is 3, expected a list"),
        (lambda c: c.update(categories=[]), "'categories' is empty"),
        (lambda c: c["images"][0].pop("width"), r"images\[0\] \(id 5\): the key 'width'"),
        (lambda c: c["images"][0].update(width=0), "the picture is 0x40"),
        (lambda c: c["images"][1].update(id=5), "this image id appears twice"),
        (lambda c: c["images"].__setitem__(0, 7), r"images\[0\]: is 7, expected an object"),
        (lambda c: c["categories"][1].update(id=90), "this category id appears twice"),
        (
            lambda c: c["annotations"][1].update(category_id=4),
            r"annotations\[1\] \(id 1003\): category_id 4 is not in 'categories' \(3 apple, 7 fig",
        ),
        (lambda c: c["annotations"][1].update(image_id=4), "image_id 4 is not in 'images'"),
        (lambda c: c["annotations"][2].update(bbox=[1, 2, 3]), "expected four numbers"),
        (lambda c: c["annotations"][2].update(bbox=[1, 2, 3, "4"]), "expected four numbers"),
        (lambda c: c["annotations"][2].update(bbox=[1, 2, 3, float("nan")]), "expected four"),
        (lambda c: c["annotations"][2].update(segmentation=[[1, 2, 3, 4, 5, 6, 7]]), "7 numbers"),
        (lambda c: c["annotations"][2].update(segmentation={"size": [1, 2]}), "run lengths"),
        (lambda c: c["annotations"][2].update(image_id="5"), "'image_id' is '5'"),
    ],
)
def test_errors_name_file_and_entry(tmp_path: Path, change: Change, text: str) -> None:
    content = data_files.document([(40, 60), (60, 40)])
    change(content)
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=text) as caught:
        read_coco(path)
    assert str(caught.value).startswith(str(path))


def test_broken_and_missing_files(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    with pytest.raises(DataError, match=r"x\.json: cannot be read: No such file"):
        read_coco(path)
    path.write_text('{"images": [\n1,, 2]}')
    with pytest.raises(DataError, match=r"x\.json: broken JSON at line 2, column 3"):
        read_coco(path)
    path.write_text("[1]")
    with pytest.raises(DataError, match="expected an object"):
        read_coco(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="broken JSON"):
        read_coco(path)


def test_picture_modes(tmp_path: Path) -> None:
    colour = data_files.picture(24, 32)
    grey = colour.convert("L")
    expected_grey = np.asarray(grey.convert("RGB"))
    for mode in ("L", "LA", "1", "P", "RGBA", "CMYK"):
        suffix = "tif" if mode == "CMYK" else "png"
        colour.convert(mode).save(tmp_path / f"{mode}.{suffix}")
        found = read_image(tmp_path / f"{mode}.{suffix}")
        assert found.shape == (24, 32, 3)
        assert found.dtype == np.uint8
        if mode in ("L", "LA"):
            np.testing.assert_array_equal(found, expected_grey)
        if mode in ("RGBA", "CMYK"):
            np.testing.assert_array_equal(found, np.asarray(colour))
    deep = np.asarray(grey).astype(np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(read_image(tmp_path / "deep.png"), expected_grey)
    colour.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=100)
    difference = read_image(tmp_path / "cmyk.jpg").astype(int) - np.asarray(colour)
    assert np.abs(difference).mean() < 6


def test_orientation_follows_exif_unless_the_annotations_do_not(tmp_path: Path) -> None:
    colour = data_files.picture(24, 32)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    colour.save(tmp_path / "turned.png", exif=exif)
    upright = np.rot90(np.asarray(colour), -1)
    np.testing.assert_array_equal(read_image(tmp_path / "turned.png"), upright)
    np.testing.assert_array_equal(np.asarray(open_rgb(tmp_path / "turned.png", (32, 24))), upright)
    as_stored = np.asarray(open_rgb(tmp_path / "turned.png", (24, 32)))
    np.testing.assert_array_equal(as_stored, np.asarray(colour))


def test_bad_pictures(tmp_path: Path) -> None:
    data_files.picture(64, 64).save(tmp_path / "a.jpg")
    whole = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "short.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.jpg").write_text("hello")
    with pytest.raises(DataError, match=r"short\.jpg: the picture cannot be decoded"):
        read_image(tmp_path / "short.jpg")
    with pytest.raises(DataError, match=r"text\.jpg: the picture cannot be decoded"):
        read_image(tmp_path / "text.jpg")
    with pytest.raises(DataError, match=r"none\.jpg: the picture does not exist"):
        read_image(tmp_path / "none.jpg")
    with pytest.raises(DataError, match="is 64x64, the annotations say 32x64"):
        open_rgb(tmp_path / "a.jpg", (64, 32))


def kinds(path: Path) -> dict[str, str]:
    return {finding.kind: finding.severity for finding in check_data(path).findings}


def test_check_of_a_good_set_finds_nothing(tmp_path: Path) -> None:
    report = check_data(data_files.write(tmp_path, data_files.document([(40, 60), (60, 40)], 9)))
    assert report.findings == ()
    assert report.ok
    assert (report.images, report.objects) == (2, 18)
    assert sum(report.objects_per_class.values()) == 18
    assert str(report).endswith("0 errors, 0 warnings, 0 notes")


@pytest.mark.parametrize(
    ("change", "kind", "severity"),
    [
        (lambda c: c["annotations"][0].update(category_id=4), "unknown category", "error"),
        (lambda c: c["annotations"][0].update(image_id=4), "unknown image", "error"),
        (lambda c: c["annotations"][0].update(bbox=[1, 1, 0, 5]), "empty box", "error"),
        (lambda c: c["annotations"][0].update(bbox=[9, 1, -3, 5]), "negative box", "error"),
        (lambda c: c["annotations"][0].update(bbox=None), "wrong box", "error"),
        (
            lambda c: c["annotations"][0].update(bbox=[70, 1, 5, 5]),
            "box outside the picture",
            "error",
        ),
        (
            lambda c: c["annotations"][0].update(bbox=[50, 1, 15, 5]),
            "box partly outside",
            "warning",
        ),
        (
            lambda c: c["annotations"][0].update(id=1003),
            "duplicate id in annotations",
            "error",
        ),
        (lambda c: c["images"][1].update(id=5), "duplicate id in images", "error"),
        (lambda c: c["images"][0].update(file_name="no.png"), "missing picture", "error"),
        (lambda c: c["images"][0].update(width=61), "size mismatch", "error"),
        (lambda c: c["images"][0].update(width=-1), "wrong image size", "error"),
        (lambda c: c["images"][0].update(file_name="0001.png"), "picture used twice", "warning"),
        (lambda c: c["images"][0].pop("file_name"), "missing key", "error"),
        (lambda c: c["images"].append(3), "wrong type", "error"),
        (lambda c: c["annotations"][0].update(image_id=[]), "wrong type", "error"),
        (lambda c: c["annotations"][0].update(segmentation=[[1]]), "wrong segmentation", "error"),
        (lambda c: c["annotations"][0].update(segmentation={}), None, None),
        (lambda c: c["annotations"][0].update(segmentation=[[1, 2]]), "flat polygon", "warning"),
        (
            lambda c: c["annotations"][0].update(segmentation={"counts": []}),
            "wrong segmentation",
            "error",
        ),
        (lambda c: c["categories"][0].update(name="fig"), "duplicate category name", "warning"),
        (lambda c: c["categories"].append({"id": 1, "name": "n"}), "class without objects", "note"),
        (lambda c: c["annotations"].clear(), "picture without objects", "note"),
        (lambda c: c.pop("annotations"), "missing key", "error"),
    ],
)
def test_check_finds(
    tmp_path: Path, change: Change, kind: str | None, severity: str | None
) -> None:
    content = data_files.document([(40, 60), (60, 40)], 9)
    path = data_files.write(tmp_path, content)
    change(content)
    path.write_text(json.dumps(content))
    found = kinds(path)
    if kind is None:
        assert not found
    else:
        assert found[kind] == severity
        assert kind in str(check_data(path))
        assert check_data(path).ok == (severity != "error")


def test_check_of_unreadable_files(tmp_path: Path) -> None:
    path = data_files.write(tmp_path, data_files.document([(40, 60)]))
    (tmp_path / "images" / "0000.png").write_bytes(b"junk")
    assert kinds(path)["corrupt picture"] == "error"
    assert not check_data(path, pictures=False).findings or "corrupt picture" not in {
        finding.kind for finding in check_data(path, pictures=False).findings
    }
    path.write_text("{")
    assert kinds(path) == {"unreadable file": "error"}
    path.write_text("[]")
    assert kinds(path) == {"wrong type": "error"}
    assert kinds(tmp_path / "none.json") == {"unreadable file": "error"}


@pytest.mark.parametrize("name", ["bccd", "nuclei", "coco_mini", "fruits_nuts"])
def test_real_sets_are_read_whole(name: str) -> None:
    folder = data_files.real(name)
    path = folder / "annotations" / "instances_val.json"
    content = json.loads(path.read_text())
    data = read_coco(path)
    assert len(data.images) == len(content["images"])
    assert sum(len(image.objects) for image in data.images) == len(content["annotations"])
    assert check_data(path).ok
    for image in data.images[:10]:
        for found in image.objects:
            if found.segmentation is not None and not found.crowd:
                area = decode_mask(found.segmentation, image.height, image.width).sum()
                assert abs(float(area) - found.area) < 0.2 * found.area + 30
