"""What operators offer to `fold`: work that changes nothing is not done."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import megbrain_py as mb
from megbrain_py import functional as F

_SAME: dict[str, Callable[[mb.Var], mb.Var]] = {
    "x * 1": lambda x: x * 1,
    "1 * x": lambda x: 1 * x,
    "x + 0": lambda x: 0 + x + 0,
    "x - 0": lambda x: x - 0,
    "x / 1": lambda x: x / 1,
    "x ** 1": lambda x: x**1,
    "neg of neg": lambda x: F.neg(F.neg(x)),
    "reshape and back": lambda x: F.reshape(F.reshape(x, (12,)), (3, 4)),
    "transpose and back": lambda x: F.transpose(F.transpose(x)),
    "cast": lambda x: F.cast(x, "float32"),
    "slice": lambda x: x[:, 0:4],
    "pad": lambda x: F.pad(x, [(0, 0), (0, 0)]),
    "where": lambda x: F.where(F.greater(x, 0), x, x),
    "name": lambda x: F.name(x, "x"),
    "sum over nothing": lambda x: F.sum(x, ()),
}


@pytest.mark.parametrize("name", _SAME)
def test_no_instruction_but_the_last(name: str) -> None:
    x = mb.placeholder("x", (3, 4))
    function = mb.compile(F.exp(_SAME[name](x)))
    assert [step.kernel for step in function.plan.instructions] == ["exp"]
    value = np.arange(12, dtype=np.float32).reshape(3, 4) / 5
    assert np.allclose(function(x=value)["output"], np.exp(value), rtol=1e-6)


def test_broadcast_operands_stay_small() -> None:
    x, y = mb.placeholder("x", (3, 1)), mb.placeholder("y", (3, 4))
    function = mb.compile(F.where(F.greater(y, 0), F.broadcast_to(x, (3, 4)) * y, y))
    assert "broadcast_to" not in [step.kernel for step in function.plan.instructions]


def test_relu_twice_is_relu_once() -> None:
    x = mb.placeholder("x", (3, 4))
    steps = mb.compile(F.relu(F.relu(x))).plan.instructions
    assert [step.kernel for step in steps] == ["relu"]


def test_relu_runs_in_place() -> None:
    x = mb.placeholder("x", (64, 64))
    function = mb.compile(F.relu(F.relu(x + 1) - 1))
    assert function.peak_bytes == 64 * 64 * 4
