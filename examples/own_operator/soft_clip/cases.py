"""Examples of soft clipping: odd sizes, both layouts, extreme values, the second gradient."""

import numpy as np
from soft_clip import soft_clip

import megbrain_py as mb
from megbrain_py import functional as F
from megbrain_py.op_testing import Case, ErrorCase, channels_last, integers, normal


def _gradient(x: mb.Var) -> mb.Var:
    return mb.gradients(F.sum(soft_clip(x, 3.0)), [x])[0]


_EXTREME = np.array([0, 1e-30, -1e-3, 50, -1e4, 3e38, -np.inf, np.nan], np.float32)

CASES = [
    Case("odd", soft_clip, {"x": normal(3, 5, 7, scale=2)}),
    Case("wide", lambda x: soft_clip(x, 30.0), {"x": normal(40001, scale=50)}),
    Case("channels_last", lambda x: soft_clip(channels_last(x), 0.5), {"x": normal(2, 5, 3, 4)}),
    Case("empty", soft_clip, {"x": normal(0, 4)}),
    Case("scalar", soft_clip, {"x": normal()}),
    Case("extreme", lambda x: soft_clip(x, 2.0), {"x": _EXTREME}, grad=()),
    Case("twice", _gradient, {"x": normal(3, 7)}),
]
ERRORS = [
    ErrorCase("integers", soft_clip, {"x": integers(3)},
              "soft_clip: x must be a float tensor, is int64"),
    ErrorCase("limit", lambda x: soft_clip(x, -1.0), {"x": normal(3)},
              "soft_clip: limit must be above 0, is -1.0"),
]  # fmt: skip
