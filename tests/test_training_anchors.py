"""Anchor sizes fit the data's objects."""

from __future__ import annotations

from pathlib import Path

import data_files
import numpy as np
import pytest

from megbrain_py.data import Resize, read_coco
from megbrain_py.errors import DataError
from megbrain_py.training.anchors import anchor_sizes, object_sizes


def test_sizes_and_anchors(tmp_path: Path) -> None:
    content = data_files.document([(100, 200)] * 2, 2)
    boxes = [[0, 0, 20, 20], [0, 0, 10, 40], [0, 0, 80, 80], [0, 0, 160, 40]]
    for annotation, box in zip(content["annotations"], boxes, strict=True):
        annotation["bbox"] = box
    data = read_coco(data_files.write(tmp_path, content, pictures=False))
    np.testing.assert_allclose(object_sizes(data, Resize(50, 100)), [10, 10, 40, 40])
    assert anchor_sizes(data, Resize(50, 100)) == (5, 10, 20, 40, 80)
    assert anchor_sizes(data, Resize(100, 200), levels=3) == (20, 40, 80)
    with pytest.raises(DataError, match="no objects"):
        anchor_sizes(data.take([]), Resize(50, 100))


@pytest.mark.parametrize(
    ("name", "resize", "low", "high"),
    [("bccd", Resize(240, 320), 6, 20), ("coco_mini", Resize(), 16, 64)],
)
def test_real_sets(name: str, resize: Resize, low: int, high: int) -> None:
    data = read_coco(data_files.real(name) / "annotations" / "instances_train.json")
    assert low <= anchor_sizes(data, resize)[0] <= high
