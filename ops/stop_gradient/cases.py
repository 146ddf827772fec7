"""Examples of stop_gradient: any type, and no gradient behind it."""

from megbrain_py import functional as F
from megbrain_py.op_testing import Case, ErrorCase, integers, normal

CASES = [
    Case("alone", F.stop_gradient, {"x": normal(3, 4)}, grad=()),
    Case("integers", F.stop_gradient, {"x": integers(5)}, grad=()),
    Case("one_factor", lambda x, y: F.mul(F.stop_gradient(x), y),
         {"x": normal(3, 4), "y": normal(3, 4, seed=1)}, grad=("y",)),
    Case("empty", lambda x: F.add(F.stop_gradient(x), 1), {"x": normal(0, 4)}, grad=()),
]  # fmt: skip
ERRORS: list[ErrorCase] = []
