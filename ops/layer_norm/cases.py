"""Examples of layer norm: one and several axes, odd and single sizes, far means, empty batches."""

from __future__ import annotations

from megbrain_py import functional as F
from megbrain_py.dtypes import Array
from megbrain_py.op_testing import Case, ErrorCase, normal

_SHAPES = {
    "row": ((5, 17), (17,)),
    "vector": ((9,), (9,)),
    "sequence": ((2, 7, 32), (32,)),
    "two_axes": ((3, 4, 5), (4, 5)),
    "image": ((2, 3, 5, 7), (3, 5, 7)),
    "many": ((700, 61), (61,)),
}


def _inputs(shape: tuple[int, ...], last: tuple[int, ...], shift: float = 0.5) -> dict[str, Array]:
    return {
        "x": normal(*shape, scale=2.0, shift=shift),
        "weight": normal(*last, seed=1, shift=1.0),
        "bias": normal(*last, seed=2),
    }


CASES = [Case(name, F.layer_norm, _inputs(*shapes)) for name, shapes in _SHAPES.items()]
CASES += [
    Case("one_value", F.layer_norm, _inputs((4, 1), (1,)), grad=("weight", "bias")),
    Case("empty_batch", F.layer_norm, _inputs((0, 6), (6,)), grad=("weight", "bias")),
    Case("far_mean", F.layer_norm, _inputs((6, 300), (300,), shift=3e3), grad=(), tolerance=2e-4),
]

ERRORS = [
    ErrorCase("sizes", F.layer_norm,
              {"x": normal(4, 6), "weight": normal(5), "bias": normal(5)},
              "layer_norm: weight (5,) must have x's last sizes, (6,)"),
    ErrorCase("empty axis", F.layer_norm,
              {"x": normal(4, 0), "weight": normal(0), "bias": normal(0)},
              "layer_norm: the normalised axes (0,) must not be empty"),
]  # fmt: skip
