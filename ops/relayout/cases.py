"""Examples of layout changes: element sizes 1, 4 and 8, odd channels, one pixel, no image."""

import numpy as np

from megbrain_py.op_testing import Case, ErrorCase, integers, normal
from megbrain_py.ops.relayout import Relayout
from megbrain_py.ops.relayout.relayout import Copy

_INPUTS = {
    "float32": normal(2, 19, 5, 7),
    "int64": integers(2, 3, 4, 5),
    "uint8": integers(1, 3, 33, 65, dtype="uint8"),
    "many_strips": normal(1, 3, 70, 130),
    "tiles": normal(2, 35, 9, 17),
    "one_pixel": normal(3, 17, 1, 1),
    "one_channel": normal(2, 1, 6, 6),
    "empty": np.zeros((0, 3, 4, 4), np.float32),
}

CASES = [
    Case(f"to_channels_last_{name}", lambda x: Relayout("channels_last")(x), {"x": x}, grad=())
    for name, x in _INPUTS.items()
]
CASES += [
    Case(f"copy_{name}", lambda x: Copy()(x), {"x": x}, grad=()) for name, x in _INPUTS.items()
]

ERRORS = [
    ErrorCase(
        "rank",
        lambda x: Relayout("channels_last")(x),
        {"x": normal(3, 4)},
        "relayout: only values of rank 4 have layouts, x has rank 2",
    ),
]
