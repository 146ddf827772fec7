"""Examples of group norm: instance norm to one group, odd sizes, both layouts, empty batches."""

from __future__ import annotations

from collections.abc import Callable

from megbrain_py import functional as F
from megbrain_py.dtypes import Array
from megbrain_py.graph import Var
from megbrain_py.op_testing import Case, ErrorCase, normal

_SHAPES = {
    "image": ((2, 6, 4, 3), 3),
    "one_group": ((2, 5, 3, 3), 1),
    "instance": ((3, 7, 4, 4), 7),
    "vector_width": ((2, 32, 5, 3), 4),
    "rows": ((5, 12), 4),
    "signal": ((2, 6, 9), 2),
    "several_blocks": ((2, 33, 50, 40), 11),
    "empty_batch": ((0, 4, 3, 3), 2),
}


def _inputs(shape: tuple[int, ...], shift: float = 0.5) -> dict[str, Array]:
    channels = shape[1]
    return {
        "x": normal(*shape, scale=2.0, shift=shift),
        "weight": normal(channels, seed=1, shift=1.0),
        "bias": normal(channels, seed=2),
    }


def _norm(groups: int) -> Callable[..., Var]:
    def build(x: Var, weight: Var, bias: Var) -> Var:
        return F.group_norm(x, groups, weight, bias)

    return build


CASES = [
    Case(name, _norm(groups), _inputs(shape), grad=("weight", "bias") if 0 in shape else None)
    for name, (shape, groups) in _SHAPES.items()
]
CASES.append(Case("far_mean", _norm(2), _inputs((2, 6, 9, 7), 3e3), grad=(), tolerance=2e-4))

ERRORS = [
    ErrorCase("groups", _norm(4), _inputs((2, 6, 3, 3)),
              "group_norm: 6 channels do not divide into 4 groups"),
    ErrorCase("weight", _norm(2), {**_inputs((2, 6, 3, 3)), "weight": normal(5)},
              "group_norm: weight must be float32[6], one number a channel, is float32[5]"),
]  # fmt: skip
