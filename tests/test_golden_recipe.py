"""The made weights and images are those of the goldens, and the golden files hold their keys."""

from __future__ import annotations

import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

GOLDENS = Path(__file__).with_name("goldens")
sys.path.insert(0, str(GOLDENS))

import recipe  # noqa: E402
import store  # noqa: E402

CHECKSUMS = {
    "conv1.weight": ((64, 3, 7, 7), 0x83BE3E41),
    "layer1.0.bn3.weight": ((256,), 0xF8C69608),
    "layer1.0.bn3.bias": ((256,), 0xEAE2F8AB),
    "layer1.0.bn3.running_mean": ((256,), 0x2DE9A1FF),
    "layer1.0.bn3.running_var": ((256,), 0xD4E53C1D),
    "roi_heads.box_head.fc7.weight": ((32, 64), 0x8ABFBC2F),
    "rpn.head.conv.0.0.bias": ((256,), 0xC133A954),
}
SIZE_LIMITS = {"resnet50": 100_000, "faster_rcnn": 300_000, "ops": 150_000}


def checksum(array: NDArray[np.float32]) -> int:
    """CRC-32 of the bytes, as computed where the goldens were made."""
    assert array.dtype == np.float32
    return zlib.crc32(np.ascontiguousarray(array).tobytes())


def test_weights_are_those_of_the_goldens() -> None:
    shapes = {name: shape for name, (shape, _) in CHECKSUMS.items()}
    weights = recipe.recipe_weights({**shapes, "bn1.num_batches_tracked": ()})
    assert {name: checksum(value) for name, value in weights.items()} == {
        name: sum_ for name, (_, sum_) in CHECKSUMS.items()
    }
    assert {name: value.shape for name, value in weights.items()} == shapes


def test_images_and_numbers_are_those_of_the_goldens() -> None:
    assert checksum(recipe.recipe_image("resnet50/0", 64, 64)) == 0x935F818E
    assert checksum(recipe.recipe_image("detector/8/1", 120, 90)) == 0x8E355389
    assert checksum(recipe.uniform("alone/head", (3, 5))) == 0xC1A73B80
    assert recipe.sample_indices("K", 1000, 5).tolist() == [398, 593, 342, 726, 510]
    assert recipe.sample_indices("K", 4, 5).tolist() == [0, 1, 2, 3]


def test_a_weight_does_not_depend_on_the_others() -> None:
    name = "layer1.0.bn3.running_mean"
    alone = recipe.recipe_weights({name: (16,)})[name]
    np.testing.assert_array_equal(
        alone, recipe.recipe_weights({"fc.weight": (3, 4), name: (16,)})[name]
    )


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no recipe for strange of shape \(3,\)"):
        recipe.recipe_weights({"strange": (3,)})


def test_store_keeps_names_types_and_shapes(tmp_path: Path) -> None:
    arrays = {
        "a/b": np.arange(6, dtype=np.int16).reshape(2, 3),
        "empty": np.zeros((0, 4), np.float32),
        "scalar": np.array(1.5),
    }
    store.save(tmp_path / "x.npz", arrays)
    loaded = store.load(tmp_path / "x.npz")
    assert list(loaded) == list(arrays)
    for name, array in arrays.items():
        assert loaded[name].dtype == array.dtype
        np.testing.assert_array_equal(loaded[name], array)


@pytest.mark.parametrize("name", SIZE_LIMITS)
def test_files_are_small_and_their_summaries_consistent(name: str) -> None:
    path = GOLDENS / f"{name}.npz"
    assert path.stat().st_size < SIZE_LIMITS[name]
    arrays = store.load(path)
    for key, array in arrays.items():
        assert np.isfinite(array).all(), key
        if key.endswith("/samples"):
            largest, norm = arrays[key.removesuffix("samples") + "stats"]
            assert 0 < np.abs(array).max() <= largest <= norm, key


def test_resnet50_holds_what_its_table_says() -> None:
    arrays = store.load(GOLDENS / "resnet50.npz")
    batch, _ = arrays["batch_and_size"]
    assert arrays["labels"].shape == (batch,)
    for mode in ("eval", "train"):
        assert arrays[f"{mode}/logits"].shape == (batch, 1000)
        gradients = [key for key in arrays if key.startswith(f"{mode}/gradient/")]
        assert len(gradients) == 2 * 161
    assert sum(key.startswith("train/statistics/") for key in arrays) == 2 * 2 * 53


def test_faster_rcnn_holds_what_its_table_says() -> None:
    arrays = store.load(GOLDENS / "faster_rcnn.npz")
    anchors = int(arrays["chain/anchors_per_level"].sum())
    for i in range(2):
        assert arrays[f"train/rpn_matched/{i}"].shape == (anchors,)
        matched = arrays[f"train/rpn_matched/{i}"]
        assert (matched[arrays[f"train/rpn_positive/{i}"]] >= 0).all()
        assert (matched[arrays[f"train/rpn_negative/{i}"]] == -1).all()
        assert (arrays[f"train/roi_labels/{i}"] > 0).any()
        for stage in ("chain", "alone"):
            assert len(arrays[f"{stage}/detections/{i}/boxes"]) > 0
            assert len(arrays[f"{stage}/proposals/{i}"]) > 12
    losses = {key.rpartition("/")[2] for key in arrays if key.startswith("train/losses/")}
    assert losses == {"loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"}
    for key, value in arrays.items():
        if key.startswith(("chain/margins/", "train/margins/")):
            assert value > 1e-4, key
