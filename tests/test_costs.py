"""Costs: the roofline, what is measured, where it is kept, and that measuring leaves no trace."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest

import megbrain_py as mb
from megbrain_py import costs, engine, op_testing
from megbrain_py import functional as F
from megbrain_py.dtypes import TensorType
from megbrain_py.errors import CompileError, EngineError
from megbrain_py.graph import Graph, placeholder
from megbrain_py.lowering import lower
from megbrain_py.passes import pipeline_for
from megbrain_py.passes import run as optimised
from megbrain_py.plan import Instruction, Plan

Call: TypeAlias = tuple[Instruction, list[TensorType], list[TensorType]]


@pytest.fixture(autouse=True)
def _measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("MB_COSTS", "measured")
    monkeypatch.setenv("MB_CACHE", str(tmp_path))
    yield
    costs._known.cache_clear()


def _types(plan: Plan, i: Instruction) -> tuple[list[TensorType], list[TensorType]]:
    return [plan.slots[s].type for s in i.inputs], [plan.slots[s].type for s in i.outputs]


def _only_call(y: mb.Var) -> Call:
    plan = mb.compile(y).plan
    (instruction,) = plan.instructions
    return instruction, *_types(plan, instruction)


def _product(size: int = 64) -> Call:
    x = mb.placeholder("x", (size, size))
    return _only_call(x @ x)


def _files(folder: Path) -> list[Path]:
    return sorted((folder / "costs").glob("*.txt"))


def test_roofline_is_arithmetic_or_traffic_and_a_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MB_COSTS", "roofline")
    instruction, inputs, outputs = _product(1000)
    assert costs.estimate(instruction, inputs, outputs) == 2e9 / 1e11 + 2e-6
    copy = Instruction("copy", (), (), {}, "here")
    assert costs.estimate(copy, inputs[:1], outputs) == 8e6 / 2e10 + 2e-6


def test_other_words_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MB_COSTS", "guess")
    with pytest.raises(CompileError, match="MB_COSTS: expected measured or roofline, found 'gu"):
        costs.estimate(*_product())


def test_a_larger_product_costs_more() -> None:
    small, large = (costs.estimate(*_product(size)) for size in (64, 512))
    assert 0 < small < large < 1.0


def test_measured_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = costs.estimate(*_product())
    monkeypatch.setattr(engine, "measured_seconds", None)
    assert costs.estimate(*_product()) == first
    costs._known.cache_clear()  # as in another process
    assert costs.estimate(*_product()) == first
    assert len(_files(tmp_path)) == 1


def test_types_attributes_and_threads_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    monkeypatch.setattr(engine, "measured_seconds", lambda *_, **__: calls.append(0) or 1e-3)
    x = mb.placeholder("x", (8, 8))
    different = [_only_call(F.softmax(x, 0)), _only_call(F.softmax(x, 1)), _product(8), _product(9)]
    for call in (*different, *different):
        costs.estimate(*call)
    assert len(calls) == 4
    threads = engine.num_threads()
    engine.set_num_threads(threads + 1)
    try:
        costs.estimate(*_product(8))
    finally:
        engine.set_num_threads(threads)
    assert len(_files(tmp_path)) == 2


@pytest.mark.parametrize("damage", ["cut", "changed", "noise", "empty", "folder"])
def test_damaged_files_are_measured_again(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "measured_seconds", lambda *_, **__: 0.125)
    assert costs.estimate(*_product()) == 0.125
    (file,) = _files(tmp_path)
    whole = file.read_bytes()
    if damage == "folder":
        file.unlink()
        file.mkdir()
    else:
        file.write_bytes(
            {
                "cut": whole[:-5],
                "changed": whole.replace(b"0.125", b"0.126"),
                "noise": bytes(range(256)) * 9,
                "empty": b"",
            }[damage]
        )
    costs._known.cache_clear()
    monkeypatch.setattr(engine, "measured_seconds", lambda *_, **__: 0.25)
    assert costs.estimate(*_product()) == 0.25
    costs._known.cache_clear()
    monkeypatch.setattr(engine, "measured_seconds", lambda *_, **__: 0.5)
    assert costs.estimate(*_product()) == (0.5 if damage == "folder" else 0.25)


def test_files_and_their_number_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "costs").mkdir()
    for k in range(40):
        (tmp_path / "costs" / f"{k}.txt").write_text("")
    monkeypatch.setattr(costs, "_MOST_BYTES", 1000)
    monkeypatch.setattr(engine, "measured_seconds", lambda *_, **__: 1e-3)
    for size in range(1, 30):
        costs.estimate(*_product(size))
    assert len(_files(tmp_path)) == 16
    assert max(file.stat().st_size for file in _files(tmp_path)) < 2000


def test_what_is_in_place_and_what_is_warm_are_told_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[dict[int, int], bool]] = []

    def measured(*_: object, over: dict[int, int], cold: bool, **__: object) -> float:
        asked.append((over, cold))
        return 3e-3 if cold else 1e-3

    monkeypatch.setattr(engine, "measured_seconds", measured)
    call = _only_call(F.relu(mb.placeholder("x", (8, 8))))
    assert costs.estimate(*call) == 3e-3
    assert costs.estimate(*call, over={}) == 3e-3
    assert costs.estimate(*call, over={}, warm=1.0) == pytest.approx(1e-3)
    assert costs.estimate(*call, over={}, warm=0.25) == pytest.approx(2.5e-3)
    assert asked == [({0: 0}, True), ({}, True), ({}, False)]
    huge = _only_call(F.relu(mb.placeholder("x", (costs.cache_bytes() // 4,))))
    assert costs.estimate(*huge, warm=1.0) == 3e-3, "no cache holds it"


def test_a_prediction_knows_what_the_caches_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "measured_seconds", lambda *_, cold, **__: 3e-3 if cold else 1e-3)
    x = mb.placeholder("x", (1000, 1000))
    chain = mb.compile(F.exp(F.tanh(F.softmax(x, 1)))).plan
    monkeypatch.setattr(costs, "cache_bytes", lambda: 1 << 24)
    assert costs.predict(chain) < 3 * 3e-3  # what tanh and exp read was written just before
    monkeypatch.setattr(costs, "cache_bytes", lambda: 1 << 10)
    assert costs.predict(chain) == pytest.approx(3e-3 * len(chain.instructions))


def test_what_has_effects_is_not_run(capfd: pytest.CaptureFixture[str]) -> None:
    x = mb.placeholder("x", (3,))
    plan = mb.compile(F.print_value(x, "seen")).plan
    for i in plan.instructions:
        assert costs.estimate(i, *_types(plan, i)) == costs.roofline(i, *_types(plan, i))
    assert "seen" not in capfd.readouterr().out


def test_an_error_while_measuring_leaves_the_roofline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> float:
        raise EngineError("no")

    monkeypatch.setattr(engine, "measured_seconds", refuse)
    assert costs.estimate(*_product()) == costs.roofline(*_product())


def test_measuring_leaves_the_arena_and_loaded_plans_alone() -> None:
    x = mb.placeholder("x", (50, 50))
    double = mb.compile({"y": x + x})
    before = engine.arena_bytes()
    costs.estimate(*_product(700))
    assert engine.arena_bytes() == before
    np.testing.assert_array_equal(double(x=np.ones((50, 50)))["y"], 2)


_MEMORY = """
import re
from pathlib import Path
import megbrain_py as mb
from megbrain_py import costs
def resident(key):
    return int(re.search(key + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024
x = mb.placeholder("x", (16,))
plan = mb.compile(x * 2.0 + 1.0).plan
(i,) = plan.instructions
types = [plan.slots[n].type for n in i.inputs]
costs.estimate(i, types, types[:1])
before = resident("VmRSS")
types[0] = mb.placeholder("x", (1 << 25,)).type  # 128 MiB
costs.estimate(i, types, types[:1])
print(resident("VmRSS") - before, resident("VmHWM") - before)
"""


def test_memory_of_measuring_is_given_back(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _MEMORY], capture_output=True, text=True, check=True
    )
    kept, most = map(float, done.stdout.split())
    assert kept < 8 and 120 < most < 136  # in place: one tensor


@pytest.mark.parametrize("room", op_testing.rooms())
def test_operators_can_be_measured(room: str) -> None:
    """With the contents that are made for them, no kernel raises."""
    cases, _ = op_testing.cases_of(room)
    seen: set[str] = set()
    for case in cases:
        if any(a.size == 0 for a in case.inputs.values()):
            continue
        inputs = {n: placeholder(n, op_testing.tensor_type(a.shape, a.dtype))
                  for n, a in case.inputs.items()}  # fmt: skip
        made = case.build(**inputs)
        outputs = list(made) if isinstance(made, (list, tuple)) else [made]
        graph = Graph({f"y{n}": y for n, y in enumerate(outputs)})
        plan = lower(optimised(graph, pipeline_for("cpu")), engine.workspace_bytes)
        for i in plan.instructions:
            if i.waits_for is not None or i.kernel in seen or (i.op is not None and not i.op.pure):
                continue
            seen.add(i.kernel)
            types = _types(plan, i)
            contents = None if i.op is None else i.op.typical(types[0])
            over = None if i.op is None else costs._in_place(i.op, *types)
            assert engine.measured_seconds(i, *types, contents=contents, over=over) > 0, i
    assert seen or room in ("anchors", "stop_gradient", "identity")  # views, constants
