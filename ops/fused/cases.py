"""Examples of fused programs: every step, broadcasting in both layouts, sizes around a tile."""

from __future__ import annotations

from typing import Any

import numpy as np

from megbrain_py.dtypes import Array
from megbrain_py.graph import Operator, Var
from megbrain_py.op_testing import Case, ErrorCase, channels_last, integers, normal
from megbrain_py.ops.binary import binary
from megbrain_py.ops.fused import Fused, Step
from megbrain_py.ops.select.select import Where
from megbrain_py.ops.unary import activations, unary


def _program(inputs: int, *steps: tuple[Operator, tuple[int, ...]]) -> Fused:
    return Fused(inputs, tuple(Step(op, reads) for op, reads in steps))


def _of_one(op: Operator) -> Fused:
    """op(x * 0.7...) with the factor as input 1."""
    return _program(2, (binary.Mul(), (0, 1)), (op, (2,)))


def _of_two(op: Operator) -> Fused:
    """op(x + y, x)"""
    return _program(2, (binary.Add(), (0, 1)), (op, (2, 0)))


# relu(x * scale + shift), and its gradient masked by a comparison
_AFFINE = _program(3, (binary.Mul(), (0, 1)), (binary.Add(), (3, 2)), (activations.Relu(), (4,)))
_MASKED = _program(
    3,
    (binary.Greater(), (0, 2)),
    (binary.LessEqual(), (0, 1)),
    (binary.LogicalOr(), (3, 4)),
    (unary.LogicalNot(), (5,)),
    (Where(), (6, 0, 1)),
    (binary.Sub(), (7, 0)),
)
_BOOL = _program(
    3, (binary.Less(), (0, 1)), (Where(), (2, 3, 2)), (binary.NotEqual(), (4, 2))
)  # fmt: skip

_ONE: tuple[Operator, ...] = (
    unary.Abs(), unary.Clip(-0.5, None), unary.Clip(None, 0.25), unary.Erf(), unary.Exp(),
    unary.Floor(), activations.Gelu(), unary.IsFinite(), activations.LeakyRelu(0.1), unary.Log(),
    unary.Neg(), activations.Relu(), unary.Round(), unary.Rsqrt(), activations.Sigmoid(),
    unary.Sign(), activations.Silu(), activations.Softplus(), unary.Sqrt(), unary.Square(),
    activations.Tanh(),
)  # fmt: skip
_TWO: tuple[Operator, ...] = (
    activations.GeluGrad(), activations.LeakyReluGrad(0.1), activations.ReluGrad(),
    activations.SigmoidGrad(), activations.SiluGrad(), activations.TanhGrad(), binary.Add(),
    binary.Div(), binary.Maximum(), binary.Minimum(), binary.Mul(), binary.Pow(), binary.Sub(),
    binary.Equal(), binary.Greater(), binary.GreaterEqual(), binary.Less(), binary.LessEqual(),
    binary.NotEqual(),
)  # fmt: skip
_POSITIVE = ("log", "rsqrt", "sqrt", "pow")


def _scalar(value: float) -> Array:
    return np.full((), value, np.float32)


def _values(op: Operator, *shape: int, seed: int = 0) -> Array:
    x = normal(*shape, seed=seed)
    return np.asarray(np.abs(x) + np.float32(0.3)) if op.kernel in _POSITIVE else x


CASES = [
    Case(f"{op}", lambda x, f, op=op: _of_one(op)(x, f),
         {"x": _values(op, 3, 701), "f": _scalar(0.75)}, grad=())
    for op in _ONE
] + [
    Case(f"{op}", lambda x, y, op=op: _of_two(op)(x, y),
         {"x": _values(op, 3, 701), "y": _values(op, 3, 701, seed=1)}, grad=())
    for op in _TWO
]  # fmt: skip

# x, scale, shift
_SHAPES: dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = {
    "single": ((1,), (1,), (1,)),
    "scalar": ((), (), ()),
    "empty": ((0, 3), (3,), ()),
    "one_more_than_a_tile": ((1025,), (1025,), ()),
    "scalars": ((70, 81), (), (1, 1)),
    "row_vector": ((301, 33), (33,), (33,)),
    "long_row_vector": ((5, 3001), (3001,), (1, 3001)),
    "column": ((301, 33), (301, 1), (33,)),
    "channels": ((3, 5, 14, 15), (5, 1, 1), (1, 5, 1, 1)),
    "image_vector": ((3, 5, 14, 15), (3, 1, 1, 1), (15,)),
    "middle": ((7, 3, 1, 9), (1, 3, 1, 1), (7, 1, 1, 9)),
    "many_threads": ((4, 64, 33, 31), (64, 1, 1), ()),
}


def _affine_last(x: Var, scale: Var, shift: Var) -> Any:
    return _AFFINE(channels_last(x), scale, shift)


CASES += [
    Case(f"affine_{name}", lambda x, scale, shift: _AFFINE(x, scale, shift),
         {"x": normal(*x), "scale": normal(*a, seed=1), "shift": normal(*b, seed=2)}, grad=())
    for name, (x, a, b) in _SHAPES.items()
] + [
    Case(f"channels_last_{name}", _affine_last,
         {"x": normal(*x), "scale": normal(*a, seed=1), "shift": normal(*b, seed=2)}, grad=())
    for name, (x, a, b) in _SHAPES.items() if len(x) == 4
]  # fmt: skip

_SPECIAL = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 3e38, 1e-40], np.float32)
CASES += [
    Case("special", lambda x, y: _MASKED(x, y, y), {"x": _SPECIAL, "y": _SPECIAL[::-1].copy()},
         grad=()),
    Case("special_relu", lambda x, y, z: _AFFINE(x, y, z),
         {"x": _SPECIAL, "y": _scalar(1), "z": _scalar(0)}, grad=()),
    Case("masks", lambda x, y, z: _MASKED(x, y, z),
         {"x": normal(37, 41), "y": normal(41, seed=1), "z": _scalar(0.5)}, grad=()),
    Case("bools", lambda x, y, z: _BOOL(x, y, z),
         {"x": normal(37, 41), "y": normal(37, 1, seed=1),
          "z": integers(41, high=2, dtype="bool")}, grad=()),
]  # fmt: skip

ERRORS = [
    ErrorCase("count", lambda x: _AFFINE(x, x), {"x": normal(3)},
              "fused: expected 3 inputs, found 2"),
    ErrorCase("shape", lambda x, y: _AFFINE(x, x, y), {"x": normal(3), "y": normal(2, 3)},
              "fused: every step must give (2, 3), one gives (3,)"),
]  # fmt: skip
