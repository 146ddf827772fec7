"""Examples of anchors: several sizes and shapes, strides that differ, an empty map."""

from megbrain_py import functional as F
from megbrain_py.op_testing import Case, ErrorCase

CASES = [
    Case("one_size", lambda: F.anchors((5, 7), (40, 56), [32]), {}, grad=()),
    Case("several", lambda: F.anchors((9, 3), (75, 31), [8, 13.5], [0.3, 1, 2.2]), {}, grad=()),
    Case("one_pixel", lambda: F.anchors((1, 1), (33, 65), [5], [1]), {}, grad=()),
    Case("empty", lambda: F.anchors((0, 4), (8, 8), [5], [1]), {}, grad=()),
]
ERRORS = [
    ErrorCase("stride", lambda: F.anchors((9, 9), (8, 8), [5]), {},
              "anchors: the stride must be at least 1, is (0, 0)"),
]  # fmt: skip
