"""Weights of torch and safetensors in and out; names of torchvision; starting a training."""

from __future__ import annotations

import json
import struct
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_detector import GOLDENS, Array, recipe, store
from weights_files import archive, state, tensor

import make_weights  # isort: skip  (its folder is on the path since golden_detector is imported)
from megbrain_py.cli.main import main
from megbrain_py.dtypes import TensorType, tensor_type
from megbrain_py.errors import DataError
from megbrain_py.models.faster_rcnn import PRESETS, FasterRCNN
from megbrain_py.models.resnet import resnet
from megbrain_py.nn import FrozenBatchNorm2d
from megbrain_py.training import checkpoint
from megbrain_py.training.checkpoint import Checkpoint
from megbrain_py.training.detector import model_config
from megbrain_py.training.start import load_weights
from megbrain_py.weights import fit, read_weights, write_weights

FILES = GOLDENS / "weights"
EXPECTED = make_weights.expected()
ON_DISK = {"bfloat16": "bfloat16", "parameter": "float32"}


def shapes_of(network: str) -> dict[str, list[int]]:
    """torchvision's names and shapes."""
    text = store.load(FILES / "shapes.npz")["shapes"].tobytes()
    shapes: dict[str, list[int]] = json.loads(text)[network]
    return shapes


def made(network: str) -> dict[str, Array]:
    """torchvision's weights by its names, small numbers of the recipe."""
    return {name: np.resize(recipe.uniform(name[:9], (97,)), shape)
            for name, shape in shapes_of(network).items()}  # fmt: skip


# --- files ---


@pytest.mark.parametrize("file", ["whole.pth", "nested.pth", "legacy.pth", "plain.safetensors"])
def test_files_of_torch_are_read_bit_for_bit(file: str) -> None:
    found = read_weights(FILES / file)
    assert set(found.tensors) == set(EXPECTED)
    for name, array in EXPECTED.items():
        got = found.tensors[name]
        assert got.dtype == ON_DISK.get(name, array.dtype.name), name
        assert got.array.dtype == array.dtype and got.array.shape == array.shape, name
        assert got.array.tobytes() == array.tobytes(), name
        assert not got.array.flags.writeable, name


def test_what_lies_beside_the_weights_is_told() -> None:
    assert read_weights(FILES / "nested.pth").others == {"epoch": "3", "notes": "list of 3"}


def test_views_of_one_storage_stay_views() -> None:
    for file in ("whole.pth", "legacy.pth"):
        found = read_weights(FILES / file).arrays
        for name in ("transposed", "strided", "flat", "expanded", "parameter"):
            assert np.shares_memory(found["plain"], found[name]), name


@pytest.mark.parametrize("ending", ["pth", "pt", "safetensors"])
def test_what_is_written_is_read_again(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"w.{ending}"
    write_weights(path, EXPECTED)
    found = read_weights(path)
    assert list(found.tensors) == list(EXPECTED) or ending == "safetensors"
    for name, array in EXPECTED.items():
        assert found.arrays[name].dtype == array.dtype
        assert found.arrays[name].tobytes() == array.tobytes(), name
    again = tmp_path / f"again.{ending}"
    write_weights(again, EXPECTED)
    assert again.read_bytes() == path.read_bytes()


def test_a_written_file_has_the_members_that_torch_wants(tmp_path: Path) -> None:
    """torch's reader needs version, byteorder, data.pkl and data/N below one folder."""
    write_weights(tmp_path / "w.pth", {"a": np.ones((2, 3), np.float32)})
    with zipfile.ZipFile(tmp_path / "w.pth") as file:
        assert file.read("archive/version") == b"3\n"
        assert file.read("archive/byteorder") == b"little"
        assert file.read("archive/data/0") == struct.pack("<6f", *[1.0] * 6)
        assert all(i.compress_type == zipfile.ZIP_STORED for i in file.infolist())


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"ends with \.pth or \.pt or \.safetensors"):
        write_weights(tmp_path / "w.bin", EXPECTED)
    with pytest.raises(DataError, match="a: element type uint32 has no counterpart"):
        write_weights(tmp_path / "w.pth", {"a": np.zeros(3, np.uint32)})
    assert not list(tmp_path.iterdir())


def test_a_tensor_may_end_where_its_storage_ends(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(archive(state({"w": tensor((2, 2), (2, 1), 2), "e": tensor((0,), (1,), 6)})))
    found = read_weights(path).arrays
    assert found["w"].tolist() == [[2, 3], [4, 5]] and found["e"].shape == (0,)


# --- names ---

FASTER, MASK = "torchvision_fasterrcnn_r50_fpn", "torchvision_maskrcnn_r50_fpn"


def model_shapes(model: Any) -> dict[str, list[int]]:
    return {name: list(p.shape) for name, p in model.named_state().items()}


@pytest.fixture(scope="module")
def detector() -> FasterRCNN:
    return FasterRCNN(PRESETS[MASK], rng=0)


def test_names_and_shapes_are_torchvisions(detector: FasterRCNN) -> None:
    for network, model in (
        ("maskrcnn", detector),
        ("fasterrcnn", FasterRCNN(PRESETS[FASTER], rng=0)),
        ("resnet50", resnet("resnet50")),
        ("resnet18", resnet("resnet18")),
    ):
        theirs = {n: s for n, s in shapes_of(network).items() if "num_batches" not in n}
        assert model_shapes(model) == theirs, network


def older(name: str) -> str:
    """torchvision's name before 0.13."""
    for new, old in [("fpn.inner_blocks.", ".0."), ("fpn.layer_blocks.", ".0.")]:
        if new in name:
            head, number, rest = name.partition(new)[0], *name.partition(new)[2].split(old, 1)
            return f"{head}{new}{number}.{rest}"
    if "mask_head." in name:
        head, _, rest = name.partition("mask_head.")
        number, _, kind = rest.split(".")
        return f"{head}mask_head.mask_fcn{int(number) + 1}.{kind}"
    return name.replace("rpn.head.conv.0.0.", "rpn.head.conv.")


def types_of(model: Any) -> dict[str, TensorType]:
    return {name: p.type for name, p in model.named_state().items()}


def test_older_names_are_understood(detector: FasterRCNN) -> None:
    given = {older(name): array for name, array in made("maskrcnn").items()}
    assert {
        "backbone.fpn.inner_blocks.0.weight",
        "backbone.fpn.layer_blocks.3.bias",
        "rpn.head.conv.weight",
        "roi_heads.mask_head.mask_fcn4.bias",
    } <= set(given)
    found = fit(given, types_of(detector))
    assert set(found.arrays) == set(detector.named_state())
    assert not found.fresh and not found.unused
    assert "26 arrays have torchvision's older names" in found.notes
    expected = made("maskrcnn")["roi_heads.mask_head.3.0.bias"]
    np.testing.assert_array_equal(found.arrays["roi_heads.mask_head.3.0.bias"], expected)


OWN = {"a.b.weight": tensor_type((2, 3)), "a.c.weight": tensor_type((4,)), "d": tensor_type((1,))}


def arrays(**changes: Any) -> dict[str, Array]:
    whole = {name: np.zeros(t.shape, np.float32) for name, t in OWN.items()}
    whole.update({name.replace("_", "."): value for name, value in changes.items()})
    return {name: value for name, value in whole.items() if value is not None}


@pytest.mark.parametrize(
    ("given", "messages"),
    [
        (arrays(d=None), ["missing in the file (1): d", "model.leave_out=d "]),
        (arrays(x_y=np.zeros(2)), ["unknown to the model (1): x.y", "model.leave_out=x "]),
        (
            {**arrays(), "a.b.weight": np.zeros((3, 2), np.float32)},
            ["of another shape (1): a.b.weight: the model has float32[2,3], the file float32[3,2]",
             "model.leave_out=a.b "],
        ),
        ({**arrays(), "d": np.zeros(1, np.complex64)}, ["the file complex64[1]"]),
        ({}, ["missing in the file (3): a.b.weight; a.c.weight; d"]),
    ],
)  # fmt: skip
def test_all_that_does_not_fit_is_listed(given: dict[str, Array], messages: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        fit(given, OWN)
    for message in messages:
        assert message in str(caught.value)


def test_parts_are_left_out_when_named_and_this_is_told() -> None:
    given = {**arrays(d=None), "a.c.weight": np.zeros(9), "e.f": np.zeros(2)}
    found = fit(given, OWN, ["a.c", "d", "e"])
    assert list(found.arrays) == ["a.b.weight"]
    assert found.fresh == ("a.c.weight", "d") and found.unused == ("a.c.weight", "e.f")
    assert "2 arrays keep the model's values: a.c, d" in found.notes
    assert "2 arrays of the file are not used: a.c, e" in found.notes
    with pytest.raises(DataError, match=r"left out: nothing is named a\.d"):
        fit(given, OWN, ["a.d"])


def test_counters_and_the_names_of_dataparallel() -> None:
    given = {f"module.{n}": a for n, a in {**arrays(), "a.num_batches_tracked": 3}.items()}
    found = fit({n: np.asarray(a) for n, a in given.items()}, OWN)
    assert set(found.arrays) == set(OWN)
    assert len(found.notes) == 2


def test_a_classifiers_weights_go_into_the_backbone(detector: FasterRCNN) -> None:
    found = fit(made("resnet50"), types_of(detector))
    assert all(name.startswith("backbone.body.") for name in found.arrays)
    assert len(found.arrays) == 5 * 53 and found.unused == ("fc.weight", "fc.bias")
    assert set(found.fresh) | set(found.arrays) == set(detector.named_state())
    told = " ".join(found.notes)
    assert "a classifier's weights" in told and "2 arrays of the file are not used: fc" in told
    assert "backbone.fpn, rpn.head, roi_heads.box_head" in told


# --- commands ---


def test_a_file_is_loaded_into_a_model(tmp_path: Path) -> None:
    model = resnet("resnet18", rng=0)
    path = tmp_path / "resnet18.pth"
    write_weights(path, made("resnet18"))
    said: list[str] = []
    load_weights(model, str(path), report=said.append)
    assert said[0] == f"weights: 102 of 102 arrays from {path}"
    assert "20 counters of batches" in said[1]
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, made("resnet18")[name])
    other = resnet("resnet18", classes=10, rng=0)
    with pytest.raises(DataError, match=r"resnet18.pth: the weights do not fit(.|\n)*=fc leaves"):
        load_weights(other, str(path), report=said.append)
    load_weights(other, str(path), ["fc"], said.append)
    assert "2 arrays keep the model's values: fc" in said[-2]


def test_info_lists_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(FILES / "nested.pth")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["format", "torch", "(zip)"]
    assert lines[2].split() == ["epoch", "3"]
    rows = {line.split()[0]: line.split()[1:] for line in lines[4:-1]}
    assert rows["transposed"] == ["float32", "6x4", "96"]
    assert rows["bfloat16"] == ["bfloat16", "4x6", "48"]
    assert rows["scalar"] == ["int64", "scalar", "8"]
    total = sum(int(row[-1].replace(",", "")) for row in rows.values())
    assert lines[-1].startswith("18 arrays, ") and lines[-1].endswith(f" {total:,} bytes")
    assert main(["info", str(FILES / "legacy.pth")]) == 0
    assert "format  torch (before 1.6)" in capsys.readouterr().out


def test_presets_hold_torchvisions_numbers() -> None:
    """Against torchvision's defaults, written out (detection/faster_rcnn.py, mask_rcnn.py)."""
    for name, mask in ((FASTER, "none"), (MASK, "head")):
        c = PRESETS[name]
        assert (c.backbone, c.norm, c.norm_eps, c.num_classes) == ("resnet50", "frozen", 1e-5, 90)
        assert c.mask == mask and not c.fit_anchors and c.canonical_scale == 224
        assert c.anchor_sizes == (32, 64, 128, 256, 512) and c.anchor_ratios == (0.5, 1, 2)
        r = c.rpn
        assert (r.pre_nms_train, r.pre_nms_test) == (r.post_nms_train, r.post_nms_test)
        assert (r.pre_nms_train, r.pre_nms_test) == (2000, 1000)
        assert (r.nms_iou, r.high, r.low, r.samples, r.positive) == (0.7, 0.7, 0.3, 256, 0.5)
        h = c.roi
        assert (h.score, h.nms_iou, h.detections, h.samples, h.positive) == (
            0.05, 0.5, 100, 512, 0.25)  # fmt: skip
        assert (h.iou, h.hidden, h.pool, h.sampling_ratio) == (0.5, 1024, 7, 2)
        assert h.weights == (10, 10, 5, 5) and r.class_switch == h.class_switch == "torchvision"
        assert (c.mask_head.pool, c.mask_head.convs, c.mask_head.channels) == (14, 4, 256)
        assert "norm_eps=1e-05" in repr(c) and "class_switch='torchvision'" in repr(c)


def test_every_part_of_a_preset_is_a_key(detector: FasterRCNN) -> None:
    changed = model_config(MASK, {"norm_eps": 0, "roi.class_switch": "exact", "mask": "none"})
    assert changed.norm_eps == 0.0 and changed.roi.class_switch == "exact"
    norms = [m for m in detector.modules() if isinstance(m, FrozenBatchNorm2d)]
    assert len(norms) == 53 and {m.eps for m in norms} == {1e-5}
    small = replace(changed, backbone="laptop", fpn_channels=4, roi=replace(changed.roi, hidden=4))
    norms = [m for m in FasterRCNN(small, rng=0).modules() if isinstance(m, FrozenBatchNorm2d)]
    assert {m.eps for m in norms} == {0.0}


def test_a_run_is_exported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = {"a.weight": np.ones((2, 3), np.float32)}
    path = checkpoint.save(Checkpoint(5, 0, {}, state), tmp_path)
    for ending in ("pth", "safetensors"):
        target = tmp_path / f"out.{ending}"
        assert main(["export", str(path), str(target)]) == 0
        assert "1 arrays, 6 numbers" in capsys.readouterr().out
        np.testing.assert_array_equal(read_weights(target).arrays["a.weight"], state["a.weight"])
    assert main(["info", str(path)]) == 0
    assert "a.weight  float32  2x3  24\n1 arrays, 6 numbers, 24 bytes" in capsys.readouterr().out
    assert main(["export", str(path), str(tmp_path / "out.bin")]) == 2
    assert "expected a name that ends with .pth" in capsys.readouterr().err
