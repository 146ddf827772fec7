"""Inner values are fetched by their names, and printed on their way."""

from __future__ import annotations

import numpy as np
import pytest

import megbrain_py as mb
from megbrain_py import functional as F


def _loss() -> mb.Var:
    x = mb.placeholder("x", (3,))
    w = mb.Parameter(np.array([1.0, 2.0, 3.0]), "weight")
    return F.sum(F.name(F.relu(F.name(x * w, "before")), "after"))


_X = np.array([1, -1, 2], np.float32)


def test_names_in_a_list() -> None:
    found = mb.compile([_loss(), "after", "before"])(x=_X)
    assert found["output0"] == 7
    assert found["after"].tolist() == [1, 0, 6]
    assert found["before"].tolist() == [1, -2, 6]


def test_names_in_a_dictionary() -> None:
    found = mb.compile({"loss": _loss(), "a": "after", "w": "weight", "in": "x"})(x=_X)
    assert found["a"].tolist() == [1, 0, 6]
    assert found["w"].tolist() == [1, 2, 3]
    assert found["in"].tolist() == _X.tolist()


def test_unknown_name() -> None:
    with pytest.raises(
        mb.CompileError, match="no value of the graph is named aftr; nearest: after"
    ):
        mb.compile([_loss(), "aftr"])


def test_name_given_twice() -> None:
    with pytest.raises(mb.CompileError, match="2 values are named after"):
        mb.compile([_loss() + _loss(), "after"])


def test_names_cost_nothing() -> None:
    named, plain = mb.compile(_loss()), mb.compile([_loss()])
    assert all(step.kernel != "name" for step in named.plan.instructions)
    assert named.peak_bytes == plain.peak_bytes


def test_print_value(capfd: pytest.CaptureFixture[str]) -> None:
    x = mb.placeholder("x", (2, 2))
    y = F.print_value(x, "first") + F.print_value(x, "first")  # equal, but not merged
    f = mb.compile(y)
    assert capfd.readouterr().out == ""
    f(x=np.array([[1, 2], [3, 4]]))
    line = "first float32[2,2]: mean 2.5, min 1, max 4, first 1 2 3 4\n"
    assert capfd.readouterr().out == line * 2
