"""Examples of batch norm: odd channels, both kinds of layout, far means, empty batches."""

from __future__ import annotations

import numpy as np

from megbrain_py import functional as F
from megbrain_py import ranks
from megbrain_py.dtypes import Array
from megbrain_py.graph import Var, constant
from megbrain_py.op_testing import Benchmark, Case, ErrorCase, channels_last, normal
from megbrain_py.ops.batch_norm.batch_norm import NormaliseSums
from megbrain_py.ops.batch_norm.channel_maps import ChannelAffine, ChannelAffineSum, ChannelScale
from megbrain_py.ops.batch_norm.joined import (
    VECTORS,
    NormaliseJoined,
    ReluAffineSum,
    ReluNormaliseSums,
)

_SHAPES = {
    "image": (2, 5, 4, 3),
    "one_channel": (3, 1, 2, 2),
    "vector_width": (2, 16, 3, 3),
    "odd_channels": (2, 35, 3, 5),
    "rows": (6, 3),
    "signal": (3, 4, 7),
    "one_pixel": (4, 19, 1, 1),
    "many_blocks": (3, 33, 40, 27),
    "many_threads": (2, 96, 50, 40),
}


def _vectors(channels: int, seed: int = 1) -> dict[str, Array]:
    return {
        "gamma": normal(channels, seed=seed, shift=1.0, scale=0.3),
        "beta": normal(channels, seed=seed + 1),
        "mean": normal(channels, seed=seed + 2),
        "var": np.abs(normal(channels, seed=seed + 3)) + np.float32(0.3),
    }


def _one(channels: int) -> Var:
    return constant(np.ones(channels, np.float32))


def _train(x: Var, gamma: Var, beta: Var, mean: Var, var: Var) -> tuple[Var, Var, Var]:
    return F.batch_norm(x, gamma, beta, mean, var, training=True)


def _evaluate(x: Var, gamma: Var, beta: Var, mean: Var, var: Var) -> Var:
    return F.batch_norm(x, gamma, beta, mean, var, training=False, eps=1e-3)[0]


def _sums(x: Var, dy: Var, mean: Var, var: Var) -> tuple[Var, Var]:
    dgamma, dbeta = NormaliseSums(1e-5)(x, dy, mean, var)
    return dgamma, dbeta


def _scale(x: Var, a: Var) -> Var:
    y: Var = ChannelScale()(x, a)
    return y


def _affine(x: Var, a: Var, b: Var, c: Var) -> Var:
    y: Var = ChannelAffine()(x, a, b, c)
    return y


def _affine_sum(x: Var, y: Var, a: Var, b: Var, c: Var, d: Var) -> Var:
    z: Var = ChannelAffineSum()(x, y, a, b, c, d)
    return z


CASES = [
    Case(f"{name}_{kind}", build, {"x": normal(*shape, scale=2.0, shift=0.5), **_vectors(shape[1])},
         grad_tolerance=3e-4)
    for kind, shape in _SHAPES.items()
    for name, build in {"train": _train, "evaluate": _evaluate}.items()
]  # fmt: skip


def _two_pass(x: Var) -> tuple[Var, Var]:
    _, mean, m2 = F.moments_over(x, ranks.Group((0,)), two_pass=True)
    return mean, m2


CASES += [
    Case("moments_two_pass", _two_pass, {"x": normal(3, 7, 5, 4)}),
    Case("moments", F.moments, {"x": normal(3, 7, 5, 4)}),
    Case("moments_far_mean", F.moments, {"x": normal(9, 5, 13, 11, shift=3e3)},
         grad=()),
    Case("moments_of_equal", F.moments, {"x": np.full((2, 3, 4, 4), 7.25, np.float32)},
         grad=()),
    Case("empty_batch", F.moments, {"x": normal(0, 3, 4, 4)}, grad=()),
    Case("evaluate_empty", _evaluate, {"x": normal(0, 3, 4, 4), **_vectors(3)}, grad=()),
    Case("scale", _scale, {"x": normal(2, 5, 3, 3), "a": normal(5)}),
    Case("affine", _affine,
         {"x": normal(2, 5, 3, 3), **{n: normal(5, seed=i) for i, n in enumerate("abc")}}),
    Case("affine_sum", _affine_sum,
         {"x": normal(2, 5, 3, 3), "y": normal(2, 5, 3, 3, seed=1),
          **{n: normal(5, seed=i) for i, n in enumerate("abcd")}}),
    Case("affine_sum_signal", _affine_sum,
         {"x": normal(2, 5, 9), "y": normal(2, 5, 9, seed=1),
          **{n: normal(5, seed=i) for i, n in enumerate("abcd")}}),
    Case("sums", _sums, {"x": normal(2, 5, 3, 3), "dy": normal(2, 5, 3, 3, seed=1),
                         **{n: v for n, v in _vectors(5).items() if n in ("mean", "var")}}),
    Case("sums_signal", _sums, {"x": normal(2, 5, 7), "dy": normal(2, 5, 7, seed=1),
                                **{n: v for n, v in _vectors(5).items() if n in ("mean", "var")}}),
]  # fmt: skip

# What fusion makes, over all shapes; far from 0, so that no ReLU stands on its edge.
_JOINED = {
    "relu": NormaliseJoined(1e-3, relu=True),
    "residual": NormaliseJoined(1e-3, residual=True),
    "residual_relu": NormaliseJoined(1e-3, relu=True, residual=True),
}


def _joined(op: NormaliseJoined, shape: tuple[int, ...]) -> Case:
    vectors = _vectors(shape[1])
    inputs = {"x": normal(*shape, scale=2.0, shift=0.5)}
    if op.residual:
        inputs["residual"] = normal(*shape, seed=5)
    inputs.update({name: vectors[name] for name in VECTORS})
    return Case(f"joined_{op}", lambda **v: op(*v.values()), inputs, grad=())


def _backward(shape: tuple[int, ...], coefficients: int) -> dict[str, Array]:
    vectors = _vectors(shape[1])
    return {
        "x": normal(*shape, scale=2.0, shift=0.5), "dy": normal(*shape, seed=1),
        **{f"k{k}": normal(shape[1], seed=10 + k) for k in range(coefficients)},
        **{name: vectors[name] for name in VECTORS},
    }  # fmt: skip


def _relu_sums(x: Var, dy: Var, **vectors: Var) -> tuple[Var, Var]:
    dgamma, dbeta = ReluNormaliseSums(1e-3)(x, dy, *vectors.values())
    return dgamma, dbeta


def _relu_affine_sum(x: Var, dy: Var, **vectors: Var) -> Var:
    dx: Var = ReluAffineSum(1e-3)(dy, x, *vectors.values())
    return dx


_EVERY_SHAPE = {**_SHAPES, "no_image": (0, 3, 4, 4)}
CASES += [_joined(op, shape) for op in _JOINED.values() for shape in _EVERY_SHAPE.values()]
CASES += [
    Case(f"{name}_{kind}", build, _backward(shape, coefficients), grad=())
    for name, build, coefficients in (("relu_sums", _relu_sums, 0),
                                      ("relu_affine_sum", _relu_affine_sum, 4))
    for kind, shape in _EVERY_SHAPE.items()
]  # fmt: skip
_SPECIAL = np.array([np.nan, np.inf, -np.inf, 1.0, -1.0, 0.0], np.float32).reshape(3, 2, 1, 1)
CASES += [
    Case("joined_special",
         lambda x, residual, **v: NormaliseJoined(0.0, True, True)(x, residual, *v.values()),
         {"x": _SPECIAL, "residual": np.ones((3, 2, 1, 1), np.float32),
          "mean": np.zeros(2, np.float32), "var": np.ones(2, np.float32),
          "gamma": np.ones(2, np.float32), "beta": np.zeros(2, np.float32)}, grad=()),
]  # fmt: skip

ERRORS = [
    ErrorCase("residual", lambda x, y: NormaliseJoined(0.0, residual=True)(x, y, *[_one(3)] * 4),
              {"x": normal(2, 3, 2, 2), "y": normal(2, 3, 2, 1)},
              "channel_normalise_joined: residual must be float32[2,3,2,2], is float32[2,3,2,1]"),
    ErrorCase("one value", _train, {"x": normal(1, 3, 1, 1), **_vectors(3)},
              "batch_norm: expected at least 2 values a channel to train, found 1"),
    ErrorCase("channels", _evaluate, {"x": normal(2, 4, 3, 3), **_vectors(3)},
              "channel_normalise: mean must be float32[4], one number a channel, is float32[3]"),
    ErrorCase("rank", F.moments, {"x": normal(4)},
              "channel_moments: x must be a float tensor of rank >= 2"),
]  # fmt: skip


def _benchmark(channels: int, side: int) -> Benchmark:
    def build(x: Var, gamma: Var, beta: Var, mean: Var, var: Var) -> Var:
        return _train(channels_last(x), gamma, beta, mean, var)[0]

    def inputs() -> dict[str, Array]:
        return {"x": normal(16, channels, side, side), **_vectors(channels)}

    return Benchmark(f"train_{side}", build, inputs, ("x", "gamma", "beta"))


BENCHMARKS = [_benchmark(64, 112), _benchmark(256, 56), _benchmark(2048, 7)]  # of ResNet-50
