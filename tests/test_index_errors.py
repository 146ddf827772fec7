"""Indices out of range are refused by name, in every run, and the function works afterwards."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import megbrain_py as mb
from megbrain_py import functional as F
from megbrain_py.dtypes import tensor_type
from megbrain_py.graph import Var, placeholder

_BUILD: dict[str, Callable[[Var, Var], Var]] = {
    "gather": lambda x, i: F.gather(x, i, 1),
    "gather rows": lambda x, i: F.gather(x, i, 0),
    "take_along_axis": lambda x, i: F.take_along_axis(x, F.reshape(i, (1, 4)), 0),
    "scatter_add": lambda x, i: F.scatter_add(x, i, F.transpose(x), 1),
    "one_hot": lambda x, i: F.one_hot(i, 4),
}


@pytest.mark.parametrize("name", _BUILD)
@pytest.mark.parametrize("bad", [4, -1, 2**40])
def test_out_of_range(name: str, bad: int) -> None:
    x, i = placeholder("x", tensor_type((4, 4))), placeholder("i", tensor_type((4,), "int64"))
    f = mb.compile({"y": _BUILD[name](x, i)})
    feeds = {n: np.ones((4, 4), np.float32) for n in f.plan.feeds if n == "x"}
    with pytest.raises(mb.EngineError, match=rf"index {bad} at position 2 is outside of \[0, 4\)"):
        f(**feeds, i=np.array([0, 3, bad, 9]))
    assert np.isfinite(f(**feeds, i=np.array([0, 3, 2, 1]))["y"]).all()


def test_constant_indices() -> None:
    with pytest.raises(mb.EngineError, match="index 7 at position 0"):
        mb.compile({"y": F.gather(F.one_hot(mb.constant([1]), 3), mb.constant([7]), 1)})
