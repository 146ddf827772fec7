"""Examples of collectives in a group of one; tests/test_collectives.py runs them on many ranks."""

from __future__ import annotations

import numpy as np

from megbrain_py import functional as F
from megbrain_py import ranks
from megbrain_py.graph import Var, constant
from megbrain_py.op_testing import Case, ErrorCase, integers, normal
from megbrain_py.ops.collective.collective import AllReduce, ReduceToRoot

_ALONE = ranks.Group((0,))  # named, so that the operators are made


def _sum(x: Var) -> Var:
    return F.all_reduce(x, group=_ALONE)


def _together(x: Var, y: Var) -> tuple[Var, Var]:
    first, second = F.all_reduce_together([x, y], _ALONE)
    return first, second


def _after_other_work(x: Var, y: Var) -> tuple[Var, Var]:
    """Inputs that lowering can lay side by side, one of them of an odd size."""
    first, second = F.all_reduce_together([F.exp(x), F.exp(y)], _ALONE)
    return first, second


def _overlapped(x: Var, y: Var) -> tuple[Var, Var]:
    """Something runs between start and wait."""
    first, second = F.all_reduce_together([F.exp(x), F.exp(y)], _ALONE, overlap=True)
    return first + F.tanh(x), second


def _to_root(x: Var) -> Var:
    y: Var = ReduceToRoot(_ALONE.colors, 0)(x)
    return y


def _moments(x: Var) -> tuple[Var, Var]:
    """Count is a number of this rank's own: it has no gradient."""
    count = constant(np.full(1, x.type.count / x.shape[1], np.float32))
    _, mean, m2 = F.merge_moments(count, *F.moments(x), _ALONE)
    return mean, m2


CASES = [
    Case("all_reduce", _sum, {"x": normal(3, 17)}),
    Case("all_reduce_max", lambda x: F.all_reduce(x, "max", _ALONE), {"x": normal(3, 17)}, grad=()),
    Case("all_reduce_min", lambda x: F.all_reduce(x, "min", _ALONE), {"x": integers(5)}),
    Case("all_reduce_scalar", _sum, {"x": normal()}),
    Case("all_reduce_empty", _sum, {"x": normal(0, 3)}),
    Case("all_reduce_bytes", _sum, {"x": integers(33, dtype="uint8")}),
    Case("all_reduce_int32", _sum, {"x": integers(33, dtype="int32")}),
    Case("together", _together, {"x": normal(3, 5), "y": normal(7, seed=1)}),
    Case("side_by_side", _after_other_work, {"x": normal(3, 5), "y": normal(70, seed=1)}),
    Case("overlapped", _overlapped, {"x": normal(3, 5), "y": normal(70, seed=1)}),
    Case("all_gather", lambda x: F.all_gather(x, _ALONE), {"x": normal(3, 5)}),
    Case(
        "all_gather_bool",
        lambda x: F.all_gather(x, _ALONE),
        {"x": integers(9, high=2).astype(bool)},
    ),
    Case("reduce_scatter", lambda x: F.reduce_scatter(x, _ALONE), {"x": normal(6, 2)}),
    Case("broadcast", lambda x: F.broadcast(x, 0, _ALONE), {"x": normal(4, 3)}),
    Case("reduce_to_root", _to_root, {"x": normal(4, 3)}),
    Case("merge_moments", _moments, {"x": normal(3, 5, 4, 4, shift=2.0)}),
    Case("merge_moments_empty", _moments, {"x": normal(0, 5, 4, 4)}, grad=()),
]

_PAIRS = ranks.Group((0, 0, 1))

ERRORS = [
    ErrorCase("reduce_bool", _sum, {"x": integers(9, high=2).astype(bool)},
              "all_reduce: bool values cannot be reduced"),
    ErrorCase("unknown", lambda x: AllReduce((0,), "mean")(x), {"x": normal(2)},  # type: ignore[arg-type]
              "all_reduce: reduction must be sum, max or min, is mean"),
    ErrorCase("mixed_types", lambda x, y: F.all_reduce_together([x, y], _ALONE),
              {"x": normal(2), "y": integers(2)}, "all_reduce: x must be float32, is int64"),
    ErrorCase("gather_scalar", lambda x: F.all_gather(x, _ALONE), {"x": normal()},
              "all_gather: x must have rank >= 1, is a scalar"),
    ErrorCase("uneven_groups", lambda x: F.all_gather(x, _PAIRS), {"x": normal(2)},
              "all_gather: groups must be of one size, are of [1, 2] ranks"),
    ErrorCase("uneven_parts", lambda x: F.reduce_scatter(x, ranks.Group((0, 0))), {"x": normal(3)},
              "reduce_scatter: axis 0 of float32[3] must be a multiple of 2 ranks"),
    ErrorCase("no_root", lambda x: F.broadcast(x, 1, _PAIRS), {"x": normal(3)},
              "broadcast: root must be in [0, 1), is 1"),
    ErrorCase("moments", lambda n, x, y: F.merge_moments(n, x, y, _ALONE),
              {"n": normal(1), "x": normal(3), "y": normal(4)},
              "merge_moments: m2 must be float32[3], is float32[4]"),
]  # fmt: skip
