"""Examples of softmax: every axis, odd and single lengths, extreme values, empty."""

from __future__ import annotations

import numpy as np

from megbrain_py import functional as F
from megbrain_py.autodiff import gradients
from megbrain_py.op_testing import Benchmark, Case, ErrorCase, integers, normal

_SHAPES = {
    "row": ((3, 17), -1),
    "column": ((17, 3), 0),
    "middle": ((2, 5, 70), 1),
    "vector": ((9,), 0),
    "single": ((4, 1), 1),
    "image": ((2, 3, 4, 5), 1),
    "many": ((300, 91), 1),
    "empty": ((0, 4), 1),
    "empty_axis": ((4, 0), 1),
}
_EXTREME = np.array([[1e4, 1e4 - 1, -1e4], [-3e38, 0, 88], [-np.inf, 0, 1]], np.float32)

CASES = [
    Case(f"{name}_{kind}", lambda x, f=f, axis=axis: f(x, axis), {"x": normal(*shape, scale=3.0)})
    for name, f in {"softmax": F.softmax, "log_softmax": F.log_softmax}.items()
    for kind, (shape, axis) in _SHAPES.items()
]
CASES += [
    Case(f"{name}_extreme_{axis}", lambda x, f=f, axis=axis: f(x, axis),
         {"x": _EXTREME if axis else np.ascontiguousarray(_EXTREME.T)}, grad=())
    for name, f in {"softmax": F.softmax, "log_softmax": F.log_softmax}.items()
    for axis in (0, 1)
]  # fmt: skip
# the gradients as operators, so that their own gradients are checked too
CASES += [
    Case(f"{name}_grad_{axis}",
         lambda x, dy, f=f, axis=axis: gradients(F.sum(f(x, axis) * dy), [x]),
         {"x": normal(3, 5, 4), "dy": normal(3, 5, 4, seed=1)})
    for name, f in {"softmax": F.softmax, "log_softmax": F.log_softmax}.items()
    for axis in (1, 2)
]  # fmt: skip

ERRORS = [
    ErrorCase("axis", lambda x: F.softmax(x, 2), {"x": normal(3, 4)},
              "softmax: axis must be in [-2, 2), is 2"),
    ErrorCase("integers", F.log_softmax, {"x": integers(3, 4)},
              "log_softmax: x must be a float tensor, is int64[3,4]"),
]  # fmt: skip

BENCHMARKS = [
    Benchmark("rows", F.softmax, lambda: {"x": normal(4096, 1000)}, ("x",)),
    Benchmark("channels", lambda x: F.log_softmax(x, 1), lambda: {"x": normal(16, 81, 64, 64)},
              ("x",)),
]  # fmt: skip
