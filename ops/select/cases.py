"""Examples of where: broadcasting of all three operands, every element type, empty."""

import numpy as np

from megbrain_py import functional as F
from megbrain_py.op_testing import Case, ErrorCase, integers, normal

_SHAPES = {
    "same": ((4, 9), (4, 9), (4, 9)),
    "long": ((40001,), (40001,), (40001,)),
    "scalar_b": ((5, 33), (5, 33), ()),
    "scalar_a": ((5, 33), (), (5, 33)),
    "row_condition": ((33,), (5, 33), (5, 33)),
    "column_condition": ((5, 1), (5, 33), (33,)),
    "all_different": ((3, 1, 1), (1, 4, 1), (1, 1, 5)),
    "image": ((2, 1, 4, 5), (2, 3, 4, 5), (3, 1, 1)),
    "empty": ((0, 3), (1, 3), (1, 3)),
    "single": ((1,), (1,), (1,)),
}


def _mask(*shape: int) -> np.ndarray:
    return integers(*shape, high=2, dtype="bool", seed=3)


CASES = [
    Case(kind, F.where, {"condition": _mask(*c), "a": normal(*a), "b": normal(*b, seed=1)})
    for kind, (c, a, b) in _SHAPES.items()
]
CASES += [
    Case(
        f"type_{dtype}",
        F.where,
        {
            "condition": _mask(7, 19),
            "a": integers(7, 19, dtype=dtype, high=2),
            "b": integers(19, dtype=dtype, high=2, seed=1),
        },
        grad=(),
    )
    for dtype in ("int32", "int64", "uint8", "bool")
]
CASES.append(
    Case(
        "not chosen infinities",
        lambda condition, a: F.where(condition, a, 0),
        {
            "condition": np.array([True, False, True]),
            "a": np.array([1, np.inf, -np.inf], np.float32),
        },
        grad=(),
    )
)

ERRORS = [
    ErrorCase(
        "condition",
        lambda condition, a: F.where(condition, a, a),
        {"condition": normal(3), "a": normal(3)},
        "where: condition must be bool, is float32",
    ),
    ErrorCase(
        "types",
        F.where,
        {"condition": _mask(3), "a": normal(3), "b": integers(3)},
        "where: a and b must have one element type, are float32, int64",
    ),
    ErrorCase(
        "shapes",
        F.where,
        {"condition": _mask(3), "a": normal(4), "b": normal(3)},
        "do not broadcast",
    ),
]
