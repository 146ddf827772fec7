"""What must be refused clearly: values, names and settings that would be misread in silence."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import megbrain_py as mb
from megbrain_py import functional as F
from megbrain_py.graph import constant, origin_of, rewrite

X = mb.placeholder("x", (3,))
I = mb.placeholder("i", (3,), "int32")

BUILDING: dict[str, tuple[Callable[[], Any], str]] = {
    "a fraction for an integer": (lambda: I + 0.5, "expected int32, found 0.5"),
    "too large an integer": (lambda: I + 2**40, "expected int32, found 1099511627776"),
    "None": (lambda: X + None, "expected float32, found None"),  # type: ignore[operator]
    "a string": (lambda: X + "a", "expected float32, found 'a'"),  # type: ignore[operator]
    "a negative size": (lambda: mb.placeholder("y", (2, -1)), "placeholder y: sizes must not"),
    "float16": (lambda: mb.placeholder("y", (2,), "float16"), "type float16 is not supported"),
    "no element type": (lambda: mb.placeholder("y", (2,), "nonsense"), "'nonsense' not understood"),
    "a cast to float16": (lambda: F.cast(X, "float16"), "cast: element type float16 is not"),
    "a vector for batched_gather": (
        lambda: F.batched_gather(X, I),
        r"batched_gather: expected x .N, A, \.\.\.. and indices .N, S., found int32.3.",
    ),
    "complex parameter": (
        lambda: mb.Parameter(np.zeros(3, complex), "w"),
        "parameter w: .*complex",
    ),
}


@pytest.mark.parametrize("name", BUILDING)
def test_building(name: str) -> None:
    build, message = BUILDING[name]
    with pytest.raises(mb.GraphError, match=message) as caught:
        build()
    last = str(caught.value).splitlines()[-1]
    assert last.startswith("  at ") and "tests/test_refusals.py:" in last


def test_batched_gather_never_reads_another_image() -> None:
    x, i = mb.placeholder("x", (3, 2)), mb.placeholder("i", (3, 1), "int32")
    picked = mb.compile(F.batched_gather(x, i))
    value = np.arange(6, dtype=np.float32).reshape(3, 2)
    assert picked(x=value, i=[[1], [0], [1]])["output"].tolist() == [[1], [2], [5]]
    for outside in ([[0], [2], [0]], [[0], [-1], [0]]):
        with pytest.raises(mb.EngineError, match="is outside of"):
            picked(x=value, i=outside)


COMPILING: dict[str, tuple[Callable[[], Any], str]] = {
    "an output that is no Var": (lambda: mb.compile({"a": 3.0}), "output a must be a Var"),  # type: ignore[dict-item]
    "an updated input": (
        lambda: mb.compile(X, updates={X: X * 2}),  # type: ignore[dict-item]
        "only a Parameter can be updated\n  float32.3.   placeholder.x. from",
    ),
    "an updated constant": (
        lambda: mb.compile(X, updates={constant([1.0]): constant([2.0])}),  # type: ignore[dict-item]
        "only a Parameter can be updated",
    ),
    "an input named like an option": (
        lambda: mb.compile(mb.placeholder("out", (3,)) + 1),
        "no input can be named out",
    ),
}


@pytest.mark.parametrize("name", COMPILING)
def test_compiling(name: str) -> None:
    build, message = COMPILING[name]
    with pytest.raises(mb.CompileError, match=message):
        build()


def test_a_pass_that_changes_a_type_is_found() -> None:
    def halve(graph: mb.Graph) -> mb.Graph:
        return rewrite(graph, lambda node, _: None if node.op.source else [constant(np.ones(1))])

    with pytest.raises(mb.CompileError, match=r"float32\[3\] was replaced by float64\[1\]"):
        mb.compile(X + 1.0, pipeline=[halve])


RUNNING: dict[str, tuple[dict[str, Any], str]] = {
    "integers that do not fit": ({"i": [1, 2, 2**40]}, "expects int32, found int64 values from 1"),
    "a ragged list": ({"i": [[1], [1, 2], 3]}, "input i: setting an array element"),
    "an unknown output": (
        {"i": [1, 2, 3], "out": {"z": np.zeros(3)}},
        "no output is named z; outputs: output",
    ),
}


@pytest.mark.parametrize("name", RUNNING)
def test_running(name: str) -> None:
    feeds, message = RUNNING[name]
    with pytest.raises(mb.EngineError, match=message):
        mb.compile(I + 1)(**feeds)


def test_an_input_named_self() -> None:
    function = mb.compile(mb.placeholder("self", (2,)) * 2.0)
    assert function(**{"self": [1, 2]})["output"].tolist() == [2, 4]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("-layout", "expected some of -fold, -cse, -fuse, -chain, found -layout, which cannot"),
        ("-cse,-fusion", "found -fusion, which is no pass"),
        ("cse", "expected -name of a pass, found 'cse'"),
    ],
)
def test_passes_that_cannot_be_switched_off(
    value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MB_PASSES", value)
    with pytest.raises(mb.CompileError, match=message):
        mb.compile(X + 1.0)


def _python(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


def test_the_number_of_threads() -> None:
    said = _python("import megbrain_py", MB_NUM_THREADS="x")
    assert "EngineError: MB_NUM_THREADS: expected a number >= 1, found 'x'" in said


def test_every_thread_has_the_chosen_number_of_threads() -> None:
    code = (
        "import threading; from megbrain_py import engine\n"
        "found = []; t = threading.Thread(target=lambda: found.append(engine.num_threads()))\n"
        "t.start(); t.join(); print(found, engine.num_threads())"
    )
    assert _python(code, MB_NUM_THREADS="7").strip() == "[7] 7"


def test_numpy_integers_are_integers() -> None:
    two = np.int64(2)
    image, kernel = mb.placeholder("a", (1, 1, 4, 4)), mb.placeholder("w", (1, 1, 2, 2))
    ones = np.ones((1, 1, 4, 4), np.float32)
    total = F.sum(image, two)  # type: ignore[arg-type]
    pooled = F.max_pool2d(image, two)  # type: ignore[arg-type]
    convolved = F.conv2d(image, kernel, stride=two)  # type: ignore[arg-type]
    found = mb.compile([total, pooled, convolved])(a=ones, w=ones[:, :, :2, :2])
    assert [v.ravel()[0] for v in found.values()] == [4, 1, 4]


def test_a_table_without_inputs_is_folded() -> None:
    anchors = F.anchors((2, 3), (32, 48), [16.0])
    function = mb.compile(anchors)
    assert not function.plan.instructions
    unfolded = mb.compile(anchors, pipeline=[])
    assert [s.kernel for s in unfolded.plan.instructions] == ["anchors"]
    assert (function()["output"] == unfolded()["output"]).all()


def test_two_threads_build_graphs_with_their_own_lines() -> None:
    inside, done = threading.Event(), threading.Event()
    found: list[str] = []

    def other() -> None:
        inside.wait(10)
        found.append(mb.placeholder("z", (1,)).node.origin)
        done.set()

    thread = threading.Thread(target=other)
    thread.start()
    y = X * 2.0
    with origin_of(y.node):
        inside.set()
        done.wait(10)
    thread.join()
    assert found[0] != y.node.origin


def test_a_building_function_without_one_of_its_inputs() -> None:
    @mb.function
    def difference(a: mb.Var, b: mb.Var) -> mb.Var:
        return a - b

    assert difference(b=1.0, a=3.0)["output"] == difference(a=3.0, b=1.0)["output"] == 2
    assert difference.compilations == 1
    with pytest.raises(mb.EngineError, match=r"call: missing a required argument: 'b'; fed: a"):
        difference(a=1.0)
    with pytest.raises(mb.EngineError, match="unexpected keyword argument 'c'"):
        difference(a=1.0, b=1.0, c=1.0)
