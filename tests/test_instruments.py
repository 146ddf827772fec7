"""Instruments: profile against the roof, trace, MB_DUMP and MB_PASSES."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from training_fakes import config_of, parts_of

import megbrain_py as mb
from megbrain_py import engine
from megbrain_py import functional as F
from megbrain_py.bench.loader import write_pictures
from megbrain_py.data import Loader, Resize, read_coco
from megbrain_py.instruments import roof as roofs
from megbrain_py.instruments.profile import Profile
from megbrain_py.instruments.roof import Roof
from megbrain_py.instruments.trace import span
from megbrain_py.training.trainer import Trainer


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MB_CACHE", str(tmp_path / "cache"))


# --- profile and roof ---


def _network() -> mb.Function:
    x = mb.placeholder("x", (2, 8, 20, 20))
    w = mb.Parameter(np.ones((16, 8, 3, 3)), name="w")
    y = F.relu(F.conv2d(x, w, padding=1))
    (dw,) = mb.gradients(F.sum(y), [w])
    return mb.compile({"dw": dw}, updates={w: w - 0.1 * dw})


def _profiled(runs: int = 3) -> Profile:
    step = _network()
    for _ in range(runs):
        step(x=np.ones((2, 8, 20, 20)), profile=True)
    return step.profile()


def test_flops_of_convolution_and_its_gradient_are_exact() -> None:
    rows = {row.kernel: row for row in _profiled().rows}
    expected = 2 * (2 * 16 * 20 * 20) * (8 * 3 * 3)
    assert rows["conv2d"].flops == rows["conv2d_backward_weights"].flops == expected
    types = (2 * 8 * 20 * 20 + 16 * 8 * 3 * 3 + 2 * 16 * 20 * 20) * 4
    assert rows["conv2d"].bytes == types
    assert "test_instruments.py" in rows["conv2d"].origin


def test_flops_of_gradients_of_data_and_of_products() -> None:
    x = mb.placeholder("x", (2, 6, 9, 9))
    w = mb.placeholder("w", (4, 3, 3, 3))
    y = F.conv2d(x, w, stride=2, groups=2)
    (dx,) = mb.gradients(F.sum(y * y), [x])
    a, b = mb.placeholder("a", (5, 7, 3)), mb.placeholder("b", (5, 4, 7))
    product = F.matmul(a, b, True, True)
    layer = F.linear(mb.placeholder("r", (6, 10)), mb.placeholder("v", (11, 10)))
    plan = mb.compile({"dx": dx, "product": product, "layer": layer}).plan
    flops = {step.kernel: plan.flops(step) for step in plan.instructions}
    assert flops["conv2d"] == flops["conv2d_backward_data"] == 2 * (2 * 4 * 4 * 4) * (3 * 3 * 3)
    assert flops["matmul"] == 2 * 5 * 3 * 4 * 7
    assert flops["linear"] == 2 * 6 * 11 * 10
    assert flops["add"] == 2 * 4 * 4 * 4  # elementwise: y + y of the gradient


def test_profile_groups_add_up() -> None:
    profile = _profiled()
    assert profile.runs == 3
    for rows in (profile.by_kernel(), profile.by_origin()):
        assert sum(row.seconds for row in rows) == pytest.approx(profile.seconds)
        assert sum(row.flops for row in rows) == sum(row.flops for row in profile.rows)
        assert sum(row.count for row in rows) == len(profile.rows)
    assert len(profile.by_origin()) < len(profile.rows)


def test_profile_is_the_median_of_the_runs() -> None:
    step = _network()
    step._profiled.extend([[s] * len(step.plan.instructions) for s in (5.0, 1.0, 2.0)])
    assert {row.seconds for row in step.profile().rows} == {2.0}
    assert {row.seconds for row in step.profile(last=1).rows} == {2.0}
    assert {row.seconds for row in step.profile(last=2).rows} == {1.5}


def test_a_building_function_is_profiled_by_signature() -> None:
    function = mb.function(lambda x: {"y": x * 2.0})
    for size in (3, 3, 4):
        function(x=np.ones(size), profile=True)
    function(x=np.ones(4))
    runs = [function.specialize(x=mb.tensor_type((size,))).profile().runs for size in (3, 4)]
    assert runs == [2, 1]


def test_share_of_the_roof() -> None:
    roof = Roof(flops=1e9, bytes=1e8, threads=1)
    assert roof.seconds(2_000_000, 100_000) == 2e-3
    assert roof.bound(2_000_000, 100_000) == "compute"
    assert roof.bound(10, 100_000) == "memory"
    profile = _profiled()
    row = max(profile.rows, key=lambda row: row.flops)
    least = max(row.flops / profile.roof.flops, row.bytes / profile.roof.bytes)
    assert row.roof_share == pytest.approx(least / row.seconds)


def test_profile_as_text_and_json(tmp_path: Path) -> None:
    profile = _profiled()
    text = str(profile)
    assert "conv2d" in text and "GFLOP/s" in text and "test_instruments.py:" in text
    assert len(profile.table("instruction", limit=2).splitlines()) == 1 + 2 + 1
    document = json.loads(profile.to_json(tmp_path / "profile.json"))
    assert json.loads((tmp_path / "profile.json").read_text()) == document
    assert [row["kernel"] for row in document["rows"]] == [row.kernel for row in profile.rows]
    assert document["roof"]["threads"] == engine.num_threads()


def test_roof_is_measured_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = engine.arena_bytes()
    roofs._known.cache_clear()
    first = roofs.roof()
    assert 1e8 < first.flops < 1e14 and 1e8 < first.bytes < 1e13
    assert engine.arena_bytes() == before, "measuring takes no scratch memory for ever"
    roofs._known.cache_clear()
    monkeypatch.setattr(roofs, "measure", lambda: pytest.fail("measured again"))
    assert roofs.roof() == first
    (tmp_path / "cache" / "roof.json").write_text("[1]")  # of another version
    monkeypatch.setattr(roofs, "measure", lambda: Roof(1.0, 2.0, 3))
    roofs._known.cache_clear()
    assert roofs.roof() == Roof(1.0, 2.0, 3)
    roofs._known.cache_clear()


# --- trace ---


def test_trace_has_instructions_and_phases(tmp_path: Path) -> None:
    step = _network()
    with mb.trace(tmp_path / "trace.json"), span("phase", number=3):
        step(x=np.ones((2, 8, 20, 20)))
    step(x=np.ones((2, 8, 20, 20)))  # outside
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    complete = {event["name"]: event for event in events if event["ph"] == "X"}
    assert len([e for e in events if e["name"] == "conv2d"]) == 1
    conv, phase = complete["conv2d"], complete["phase"]
    assert phase["args"] == {"number": 3}
    assert phase["ts"] <= conv["ts"] and conv["ts"] + conv["dur"] <= phase["ts"] + phase["dur"]
    assert conv["args"]["shapes"].startswith("float32[2,8,20,20]")
    assert "test_instruments.py" in conv["args"]["origin"] and conv["args"]["GFLOP/s"] > 0
    names = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    assert names[conv["tid"]] == "instructions (cpu)" and names[phase["tid"]] == "MainThread"


def test_trace_by_environment(tmp_path: Path) -> None:
    script = (
        "import numpy as np, megbrain_py as mb\n"
        "mb.compile(mb.placeholder('x', (4,)) * 2.0)(x=np.ones(4))\n"
    )
    path = tmp_path / "folder" / "trace.json"
    environment = {"MB_TRACE": str(path), "PATH": ""}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)
    names = [event["name"] for event in json.loads(path.read_text())["traceEvents"]]
    assert {"compile", "run", "mul"} <= set(names)


def test_trace_of_a_training_has_its_phases(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    dataset = read_coco(write_pictures(pictures, 3, 64, 2), pictures)
    loader = Loader(dataset, 1, resize=Resize(64, 64))
    config = config_of(tmp_path / "run", "checkpoint_every=2")
    parts = parts_of(config, 2, batches=loader.batches, evaluate=lambda: {"AP": 0.5, "AP50": 0.5})
    with mb.trace(tmp_path / "trace.json"):
        Trainer(config, parts).run()
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    threads = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    found = {(e["name"], threads[e["tid"]]) for e in events if e["ph"] == "X"}
    main = ("step", "compile", "run", "wait for a batch", "measure", "write a checkpoint")
    assert {(name, "MainThread") for name in main} <= found
    assert ("make a batch", "mb-loader_0") in found


# --- MB_DUMP and MB_PASSES ---


def _twice(x: mb.Var) -> dict[str, mb.Var]:
    return {"y": F.softmax(x * 1.0) + F.softmax(x)}


def test_dump_holds_the_graph_after_each_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MB_DUMP", str(tmp_path / "dump"))
    function = mb.compile(_twice(mb.placeholder("x", (4,))))
    names = [
        "0_fold.txt", "1_cse.txt", "2_fuse.txt", "3_layout.txt", "4_chain.txt", "memory.png",
        "plan.txt",
    ]  # fmt: skip
    assert sorted(p.name for p in (tmp_path / "dump").iterdir()) == names
    text = {name: (tmp_path / "dump" / name).read_text() for name in names if ".txt" in name}
    assert text["0_fold.txt"].count("= softmax") == 2 and "= mul" not in text["0_fold.txt"]
    assert text["1_cse.txt"].count("= softmax") == 1
    assert text["4_chain.txt"] == mb.to_text(function.graph) + "\n"
    assert text["plan.txt"] == str(function.plan) + "\n"


def test_passes_are_switched_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = mb.placeholder("x", (4,))
    usual = mb.compile(_twice(x))
    monkeypatch.setenv("MB_PASSES", "-cse, -fold")
    monkeypatch.setenv("MB_DUMP", str(tmp_path))
    plain = mb.compile(_twice(x))
    assert [s.kernel for s in usual.plan.instructions] == ["softmax", "add"]
    assert sorted(s.kernel for s in plain.plan.instructions) == ["add", "mul", "softmax", "softmax"]
    assert not (tmp_path / "1_cse.txt").exists() and (tmp_path / "2_fuse.txt").exists()
    fed = np.arange(4, dtype=np.float32)
    np.testing.assert_array_equal(plain(x=fed)["y"], usual(x=fed)["y"])
