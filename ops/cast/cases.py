"""Examples of cast: every pair of element types, values outside of the range."""

import numpy as np

from megbrain_py import functional as F
from megbrain_py.op_testing import Case, ErrorCase, integers, normal

_TYPES = ("float32", "int32", "int64", "uint8", "bool")
CASES = [
    Case(f"{a}_{b}", lambda x, b=b: F.cast(x, b),
         {"x": normal(5, 37, scale=90) if a == "float32" else integers(5, 37, high=200, dtype=a)},
         grad=())
    for a in _TYPES
    for b in _TYPES
    if a != b
]  # fmt: skip
_WIDE = np.array([0, 1.9, -1.9, 254.9, 256, 300, 2147483520, 2147483648, -2147483648, -3e9, 1e19,
                  -1e19, np.inf, -np.inf, np.nan], np.float32)  # fmt: skip
CASES += [
    Case(f"saturates_{b}", lambda x, b=b: F.cast(x, b), {"x": _WIDE}, grad=())
    for b in ("int32", "int64", "uint8", "bool")
]
CASES += [
    Case("integers wrap", lambda x: (F.cast(x, "int32"), F.cast(x, "uint8")),
         {"x": np.array([2**31, -1, 257, -(2**40)])}, grad=()),
    Case("long", lambda x: F.cast(x, "int32"), {"x": normal(40001, scale=9)}, grad=()),
    Case("empty", lambda x: F.cast(x, "float32"), {"x": integers(0, 3)}, grad=()),
    Case("scalar", lambda x: F.cast(x, "float32"), {"x": np.array(7)}, grad=()),
    Case("same", lambda x: F.cast(x, "float32"), {"x": normal(3, 4)}),
]  # fmt: skip

ERRORS = [
    ErrorCase("float64", lambda x: F.cast(x, "float64"), {"x": normal(3)},
              "cast: float64 exists only in references"),
]  # fmt: skip
