"""The demo data set: deterministic, well labelled, with nothing shared by the two splits."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from megbrain_py.data import check_data, decode_mask, read_coco, read_image
from megbrain_py.data.digit_scenes import (
    NAMES,
    SceneStyle,
    _digit,
    _iou,
    _run_lengths,
    _sources,
    make_digit_scenes,
)

pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_digit_scenes(tmp_path_factory.mktemp("digits"), 60, 20, seed=3)


def test_labels_fit_the_pictures(paths: tuple[Path, Path]) -> None:
    for path, count in zip(paths, (60, 20), strict=True):
        assert check_data(path).ok
        data = read_coco(path)
        assert len(data.images) == count
        assert data.class_names == NAMES
        for image in data.images:
            assert 1 <= len(image.objects) <= 8
            for found in image.objects:
                x1, y1, x2, y2 = (int(v) for v in found.box)
                assert 10 <= max(x2 - x1, y2 - y1) <= 64
                assert found.segmentation is not None
                mask = decode_mask(found.segmentation, image.height, image.width)
                assert mask.sum() == found.area
                assert mask[y1:y2, x1:x2].sum() == found.area
                for edge in (mask[y1], mask[y2 - 1], mask[:, x1], mask[:, x2 - 1]):
                    assert edge.any()
            for a, b in itertools.combinations(image.objects, 2):
                assert _iou(a.box, b.box) <= 0.3 + 0.1  # visible parts are a little smaller
                assert a.segmentation is not None
                assert b.segmentation is not None
                both = decode_mask(a.segmentation, 128, 128) & decode_mask(b.segmentation, 128, 128)
                assert not both.any()


def test_digits_stand_out(paths: tuple[Path, Path]) -> None:
    data = read_coco(paths[0])
    differences = []
    for image in data.images:
        grey = read_image(data.path(image)) @ np.array([0.299, 0.587, 0.114])
        for found in image.objects:
            x1, y1, x2, y2 = (int(v) for v in found.box)
            assert found.segmentation is not None
            mask = decode_mask(found.segmentation, 128, 128)[y1:y2, x1:x2]
            inside, around = grey[y1:y2, x1:x2][mask], grey[y1:y2, x1:x2][~mask]
            if len(around) > 20:
                differences.append(abs(inside.mean() - around.mean()))
    assert np.median(differences) > 0.3 * 255
    assert np.percentile(differences, 5) > 0.1 * 255


def test_the_same_seed_gives_the_same_data_set(tmp_path: Path, paths: tuple[Path, Path]) -> None:
    again = make_digit_scenes(tmp_path / "again", 60, 20, seed=3)
    for a, b in zip(paths, again, strict=True):
        assert a.read_bytes() == b.read_bytes()
        images = a.parent.parent / "images"
        for picture in images.iterdir():
            assert picture.read_bytes() == (b.parent.parent / "images" / picture.name).read_bytes()
    # fewer pictures are the first of more
    fewer = make_digit_scenes(tmp_path / "fewer", 5, 2, seed=3)
    name = "train_00004.jpg"
    one, two = (p.parent.parent / "images" / name for p in (paths[0], fewer[0]))
    assert one.read_bytes() == two.read_bytes()
    other = make_digit_scenes(tmp_path / "other", 5, 2, seed=4)
    assert fewer[0].read_bytes() != other[0].read_bytes()


def test_splits_share_neither_digits_nor_backgrounds() -> None:
    train, val = _sources()
    for label in range(10):
        own = {picture.tobytes() for picture in val.digits[label]}
        assert not own & {picture.tobytes() for picture in train.digits[label]}
        assert len(train.digits[label]) > 2 * len(val.digits[label]) > 80
    for left, right in zip(train.photographs, val.photographs, strict=True):
        assert left.shape[1] + right.shape[1] == 640
        assert not np.array_equal(left, right)


def test_small_parts() -> None:
    mask = np.zeros((3, 4), bool)
    mask[1:, 2] = True
    assert _run_lengths(mask) == {"size": [3, 4], "counts": [7, 2, 3]}
    assert _run_lengths(~mask) == {"size": [3, 4], "counts": [0, 7, 2, 3]}
    picture = np.zeros((8, 8), np.float32)
    picture[1:7, 3:5] = 1
    for size in (10, 30, 64):
        height, width = _digit(picture, size, 0.0).shape
        assert abs(height - size) <= max(3, 0.15 * size)
        assert width < height
    assert _digit(picture, 30, 25.0).shape[1] > _digit(picture, 30, 0.0).shape[1]


def test_another_style(tmp_path: Path) -> None:
    style = SceneStyle(size=96, objects=(2, 3), digit_size=(20, 40))
    path, _ = make_digit_scenes(tmp_path, 6, 0, style=style)
    data = read_coco(path)
    assert {(image.height, image.width) for image in data.images} == {(96, 96)}
    assert all(2 <= len(image.objects) <= 3 for image in data.images)
