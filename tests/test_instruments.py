"""Instruments: profile against the roof, trace, checks that name planted faults."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from training_fakes import config_of, parts_of

import megbrain_py as mb
from megbrain_py import engine, nn, optim
from megbrain_py import functional as F
from megbrain_py.bench import ours
from megbrain_py.bench.loader import write_pictures
from megbrain_py.data import Loader, Resize, read_coco
from megbrain_py.dtypes import Array
from megbrain_py.instruments import roof as roofs
from megbrain_py.instruments.check import Checker
from megbrain_py.instruments.profile import Profile
from megbrain_py.instruments.roof import Roof
from megbrain_py.instruments.trace import span
from megbrain_py.plan import Instruction, Plan, Slot
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
    flops = {step.kernel: step.flops for step in plan.instructions}
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


# --- checks ---

VECTOR = mb.TensorType((8,), mb.DType.float32)


def _slot(offset: int, first: int, last: int) -> Slot:
    return Slot(VECTOR, "scratch", offset, first, last)


# s2 = a + b; s3 = a * b; s4 = s2 + s3, written by hand
CHAIN = Plan(
    slots=tuple(
        _slot(64 * n, first, last)
        for n, (first, last) in enumerate([(-1, 1), (-1, 1), (0, 2), (1, 2), (2, 3)])
    ),
    instructions=(
        Instruction("add", (0, 1), (2,), {}, "hand.py:1"),
        Instruction("mul", (0, 1), (3,), {}, "hand.py:2"),
        Instruction("add", (2, 3), (4,), {}, "hand.py:3"),
    ),
    feeds={"a": 0, "b": 1},
    fetches={"c": 4},
    state=(),
    scratch_bytes=320,
    lower_bound=320,
)


def _run_checked(plan: Plan, *, thorough: bool = False) -> Array:
    executable = engine.Executable(plan)
    c = np.empty(8, np.float32)
    feeds = {"a": np.arange(8, dtype=np.float32), "b": np.full(8, 3, np.float32)}
    checker = Checker(plan, executable, thorough=thorough)
    executable.run(feeds, {"c": c}, observer=checker)
    return c


@pytest.mark.parametrize("thorough", [False, True])
def test_a_right_plan_passes(thorough: bool) -> None:
    np.testing.assert_array_equal(_run_checked(CHAIN, thorough=thorough), np.arange(8) * 4 + 3.0)


@pytest.mark.parametrize("thorough", [False, True])
@pytest.mark.parametrize("shift", [0, 28, -28])
def test_overlapping_slots_name_the_instruction_that_overwrote(shift: int, thorough: bool) -> None:
    slots = list(CHAIN.slots)
    slots[3] = replace(slots[3], offset=slots[2].offset + shift)
    with pytest.raises(mb.EngineError) as caught:
        _run_checked(replace(CHAIN, slots=tuple(slots)), thorough=thorough)
    first, second, *_ = str(caught.value).splitlines()
    assert first == "check: instruction 1, mul at hand.py:2"
    assert second.startswith("  overwrote slot s2 float32[8], written by instruction 0, add")


def test_an_overwritten_result_is_found_at_the_end() -> None:
    plan = replace(
        CHAIN,
        instructions=(
            *CHAIN.instructions[:2],
            Instruction("add", (2, 3), (4,), {}, "hand.py:3"),
            Instruction("mul", (2, 3), (5,), {}, "hand.py:4"),
        ),
        slots=(*CHAIN.slots, _slot(CHAIN.slots[4].offset, 3, 3)),
    )
    with pytest.raises(mb.EngineError, match=r"3, mul at hand\.py:4\n  overwrote slot s4"):
        _run_checked(plan)


def _hole(values: Sequence[float]) -> Array:
    return np.array(values, np.float32)


def test_nan_names_the_first_instruction(monkeypatch: pytest.MonkeyPatch) -> None:
    x = mb.placeholder("x", (4,))
    line = F.log(x)
    function = mb.compile({"y": F.exp(line * 2.0) + 1.0})
    monkeypatch.setenv("MB_CHECK", "1")
    function(x=_hole([1, 2, 3, 4]))
    with pytest.raises(mb.EngineError) as caught:
        function(x=_hole([1, -2, 3, -4]))
    lines = str(caught.value).splitlines()
    assert "log at" in lines[0] and "test_instruments.py" in lines[0]
    assert lines[1] == "  output 0 float32[4]: 2 NaN and 0 Inf among 4 values, the first at [1]"
    assert lines[2] == "  input 0 float32[4]: finite"


def test_inf_counts_only_when_no_input_had_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MB_CHECK", "1")
    x = mb.placeholder("x", (4,))
    masked = mb.compile({"y": F.max(F.where(x > 2.0, x, -np.inf))})
    assert float(masked(x=_hole([1, 2, 3, 4]))["y"]) == 4
    passed = mb.compile({"y": x * 2.0})(x=_hole([1, np.inf, 3, 4]))["y"]
    assert np.isinf(passed[1])
    overflow = mb.compile({"y": F.exp(x)})
    with pytest.raises(mb.EngineError, match=r"exp at .*\n.*0 NaN and 1 Inf among 4 .* at \[3\]"):
        overflow(x=_hole([1, 2, 3, 1000]))
    with pytest.raises(mb.EngineError, match="sub at"):  # Inf - Inf: no input had NaN
        mb.compile({"y": x - x})(x=_hole([1, np.inf, 3, 4]))


def test_nan_in_inputs_and_parameters_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MB_CHECK", "1")
    x, w = mb.placeholder("x", (2, 2)), mb.Parameter(_hole([1, np.nan]), name="w")
    with pytest.raises(mb.EngineError, match=r"check: input x holds .*1 NaN .* at \[1, 0\]"):
        mb.compile(x * 2.0)(x=_hole([[1, 2], [np.nan, 3]]))
    with pytest.raises(mb.EngineError, match=r"check: w holds float32\[2\]: 1 NaN"):
        mb.compile(x * w)(x=np.ones((2, 2)))


def test_places_are_logical_in_channels_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MB_CHECK", "1")
    x = mb.placeholder("x", (2, 3, 4, 5))
    values = np.ones((2, 3, 4, 5), np.float32)
    values[1, 2, 0, 3] = -1
    y = F.max_pool2d(F.sqrt(F.max_pool2d(x, 1)), 1)
    function = mb.compile({"y": y})
    assert any(s.type.layout == "channels_last" for s in function.plan.slots)
    with pytest.raises(mb.EngineError, match=r"sqrt at .*\n.*channels_last.* at \[1, 2, 0, 3\]"):
        function(x=values)


@pytest.mark.parametrize("level", ["1", "2"])
def test_training_steps_pass(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MB_CHECK", level)
    x, y = mb.placeholder("x", (8, 3, 16, 16)), mb.placeholder("y", (8,), "int64")
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(),
        nn.Linear(8 * 16 * 16, 10),
    )  # fmt: skip
    with nn.train_mode() as updates:
        loss = F.cross_entropy(net(x), y)
    adam = optim.AdamW(net.parameters())
    updates |= adam.updates(loss, mb.placeholder("lr", ()))
    step = mb.compile({"loss": loss}, updates=updates)
    rng = np.random.default_rng(0)
    for _ in range(3):
        found = step(x=rng.standard_normal((8, 3, 16, 16)), y=np.arange(8), lr=0.01)
        assert np.isfinite(found["loss"])


def test_a_detector_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in it makes Inf or NaN on the way, nor reads what was overwritten."""
    monkeypatch.setenv("MB_CHECK", "2")
    step, _ = ours.detector(lambda: None, batch=1, size=64, boxes=3, preset="laptop")
    step()
    detect, _ = ours.detect(lambda: None, size=64, preset="laptop")
    detect()


def test_check_refuses_other_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MB_CHECK", "yes")
    with pytest.raises(mb.EngineError, match="MB_CHECK: expected 0, 1 or 2, found 'yes'"):
        mb.compile(mb.placeholder("x", ()) * 2.0)(x=1)


# --- MB_DUMP and MB_PASSES ---


def _twice(x: mb.Var) -> dict[str, mb.Var]:
    return {"y": F.exp(x * 1.0) + F.exp(x)}


def test_dump_holds_the_graph_after_each_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MB_DUMP", str(tmp_path / "dump"))
    function = mb.compile(_twice(mb.placeholder("x", (4,))))
    names = ["0_fold.txt", "1_cse.txt", "2_fuse.txt", "3_layout.txt", "memory.png", "plan.txt"]
    assert sorted(p.name for p in (tmp_path / "dump").iterdir()) == names
    text = {name: (tmp_path / "dump" / name).read_text() for name in names if ".txt" in name}
    assert text["0_fold.txt"].count("= exp ") == 2 and "= mul" not in text["0_fold.txt"]
    assert text["1_cse.txt"].count("= exp ") == 1
    assert text["3_layout.txt"] == mb.to_text(function.graph) + "\n"
    assert text["plan.txt"] == str(function.plan) + "\n"


def test_passes_are_switched_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = mb.placeholder("x", (4,))
    usual = mb.compile(_twice(x))
    monkeypatch.setenv("MB_PASSES", "-cse, -fold")
    monkeypatch.setenv("MB_DUMP", str(tmp_path))
    plain = mb.compile(_twice(x))
    assert [s.kernel for s in usual.plan.instructions] == ["exp", "add"]
    assert sorted(s.kernel for s in plain.plan.instructions) == ["add", "exp", "exp", "mul"]
    assert not (tmp_path / "1_cse.txt").exists() and (tmp_path / "2_fuse.txt").exists()
    fed = np.arange(4, dtype=np.float32)
    np.testing.assert_array_equal(plain(x=fed)["y"], usual(x=fed)["y"])
