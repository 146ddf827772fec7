"""Examples of the unary operators: odd sizes, empty, both layouts' broadcasting, extreme values."""

from collections.abc import Callable

import numpy as np

from megbrain_py import functional as F
from megbrain_py.autodiff import gradients
from megbrain_py.graph import Var
from megbrain_py.op_testing import Benchmark, Case, ErrorCase, integers, normal

_SMOOTH = {
    "exp": F.exp, "neg": F.neg, "square": F.square, "erf": F.erf, "sigmoid": F.sigmoid,
    "tanh": F.tanh, "silu": F.silu, "gelu": F.gelu, "softplus": F.softplus, "abs": F.abs,
    "relu": F.relu, "leaky_relu": F.leaky_relu, "floor": F.floor, "round": F.round,
    "sign": F.sign, "log_sigmoid": F.log_sigmoid,
}  # fmt: skip
_POSITIVE = {"log": F.log, "sqrt": F.sqrt, "rsqrt": F.rsqrt}
_SHAPES = {"odd": (3, 5, 7), "long": (40001,), "empty": (0, 4), "scalar": (), "single": (1, 1)}


def _positive(*shape: int) -> np.ndarray:
    return np.asarray(np.abs(normal(*shape)) + np.float32(0.3), np.float32)


CASES = [
    Case(f"{name}_{kind}", lambda x, f=f: f(x), {"x": make(*shape, scale=2)})
    for name, f in _SMOOTH.items()
    for kind, shape in _SHAPES.items()
    for make in (normal,)
]
CASES += [
    Case(f"{name}_{kind}", lambda x, f=f: f(x), {"x": _positive(*shape)})
    for name, f in _POSITIVE.items()
    for kind, shape in _SHAPES.items()
]
_BOUNDS = {"both": (-0.5, 0.75), "low": (0.1, None), "high": (None, 0.2), "none": (None, None)}
CASES += [
    Case(f"clip_{kind}", lambda x, b=b: F.clip(x, *b), {"x": normal(7, 33)})
    for kind, b in _BOUNDS.items()
]

# Far arguments, and those near 0 where a careless formula cancels.
_FAR = np.concatenate([-np.logspace(2, -6, 97), [0], np.logspace(-6, 2, 97)]).astype(np.float32)
_INFINITE = np.array([0, np.inf, -np.inf, np.nan, 1e-40, -1e-40, 3e38, -3e38], np.float32)
CASES += [
    Case(f"{name}_{kind}", lambda x, f=f: f(x), {"x": x}, grad=())
    for name, f in _SMOOTH.items()
    for kind, x in (("far", _FAR[(_FAR < 85)]), ("infinite", _INFINITE))
    if kind == "far" or name not in ("silu", "gelu", "log_sigmoid", "square")
]
CASES += [
    Case(f"{name}_far", lambda x, f=f: f(x),
         {"x": np.logspace(-37, 37, 301).astype(np.float32)[:: -1 if name == "log" else 1]},
         grad=())
    for name, f in _POSITIVE.items()
]  # fmt: skip
CASES += [
    Case(f"{name}_special", lambda x, f=f: f(x),
         {"x": np.array([0.0, 1.0, np.inf, -1.0, np.nan], np.float32)}, grad=())
    for name, f in _POSITIVE.items()
]  # fmt: skip
CASES += [
    # Sums of small values show errors that the largest value would hide.
    Case("small_relative", lambda x: (F.tanh(x) / x, F.erf(x) / x, F.log(F.exp(x)) / x),
         {"x": np.logspace(-3, -1, 64).astype(np.float32)}, grad=(), tolerance=1e-3),
    Case("round_halves", F.round, {"x": np.arange(-4.5, 5, 0.5).astype(np.float32)}, grad=()),
    Case("isfinite", F.isfinite, {"x": np.tile(_INFINITE, 5)}, grad=()),
    Case("isnan", F.isnan, {"x": np.tile(_INFINITE, 5)}, grad=()),
    Case("logical_not", F.logical_not, {"x": integers(3, 37, high=2, dtype="bool")}, grad=()),
    Case("leaky_relu_zero", lambda x: F.leaky_relu(x, 0.0), {"x": normal(4, 9)}),
]  # fmt: skip
CASES += [
    Case(f"{name}_{dtype}", lambda x, f=f: f(x),
         {"x": integers(3, 37, low=-9, dtype=dtype)}, grad=())
    for name, f in {"abs": F.abs, "neg": F.neg, "sign": F.sign, "square": F.square,
                    "relu": F.relu, "clip": lambda x: F.clip(x, -2, 3)}.items()
    for dtype in ("int32", "int64")
]  # fmt: skip


def _second(f: Callable[[Var], Var], x: Var) -> Var:
    return gradients(F.sum(f(x)), [x])[0]


CASES += [
    Case(f"{name}_twice", lambda x, f=f: _second(f, x), {"x": normal(3, 7)})
    for name, f in _SMOOTH.items()
    if name in ("exp", "square", "erf", "sigmoid", "tanh", "silu", "gelu", "softplus")
]
CASES += [
    Case(f"{f.__name__}_wraps", f, {"x": np.array([-(2**31), -1, 2, 2**31 - 1], "int32")}, grad=())
    for f in (F.abs, F.neg, F.square)
]

ERRORS = [
    ErrorCase("integers", F.exp, {"x": integers(3)}, "exp: x must be float32, float64, is int64"),
    ErrorCase("not", F.logical_not, {"x": normal(3)}, "logical_not: x must be bool"),
    ErrorCase("clip", lambda x: F.clip(x, 2, 1), {"x": normal(3)}, "clip: low 2 is above high 1"),
    ErrorCase("clip whole", lambda x: F.clip(x, 0.5), {"x": integers(3)}, "whole numbers"),
    ErrorCase("slope", lambda x: F.leaky_relu(x, -1), {"x": normal(3)},
              "leaky_relu: slope must not be negative"),
]  # fmt: skip

BENCHMARKS = [
    Benchmark(f.__name__, f, lambda: {"x": normal(16, 256, 56, 56)}, ("x",))
    for f in (F.relu, F.exp, F.tanh, F.gelu, F.sigmoid)
]
