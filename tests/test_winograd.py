"""Winograd's algorithm: the identity, errors against float64, who gets it, threads and levels."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from kernel_runs import error, run, run_at_level, run_with_threads, wide

import megbrain_py as mb
from megbrain_py import functional as F
from megbrain_py import nn
from megbrain_py.op_testing import normal
from megbrain_py.ops.conv.algorithm import CONVOLUTION, winograd_gain
from megbrain_py.ops.conv.conv import Conv2d, Conv2dBackwardData, Conv2dBackwardWeights

Matrix = list[list[Fraction]]

# name: (images, input channels, output channels, height, width, padding)
SHAPES: dict[str, tuple[int, int, int, int, int, tuple[int, int, int, int]]] = {
    "even": (2, 32, 64, 8, 12, (1, 1, 1, 1)),
    "odd_size": (3, 24, 40, 7, 9, (1, 1, 1, 1)),
    "odd_channels": (2, 67, 131, 6, 5, (1, 1, 1, 1)),
    "few_channels": (2, 3, 5, 11, 6, (1, 1, 1, 1)),
    "one_pixel": (1, 20, 12, 1, 1, (1, 1, 1, 1)),
    "one_channel": (1, 1, 1, 5, 5, (1, 1, 1, 1)),
    "no_padding": (2, 16, 16, 9, 10, (0, 0, 0, 0)),
    "wide_padding": (1, 17, 33, 5, 6, (2, 2, 2, 2)),
    "four_paddings": (2, 8, 16, 6, 7, (0, 1, 2, 0)),
    "single_output": (2, 8, 8, 3, 3, (0, 0, 0, 0)),
    "many_channels": (1, 512, 200, 9, 9, (1, 1, 1, 1)),
    "many_tiles": (4, 64, 96, 45, 43, (1, 1, 1, 1)),
    "few_tiles": (4, 256, 256, 7, 7, (1, 1, 1, 1)),
    "large": (1, 128, 128, 61, 64, (1, 1, 1, 1)),
}  # fmt: skip


def _shape(name: str) -> tuple[Conv2d, tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """The operator and the shapes of x, w, y."""
    images, inputs, outputs, height, width, padding = SHAPES[name]
    op = Conv2d((1, 1), padding, (1, 1), 1, algorithm="winograd")
    x, w = (images, inputs, height, width), (outputs, inputs, 3, 3)
    return op, x, w, op.y_shape(x, w)


# --- the algorithm --------------------------------------------------------------------------------


def _toom_cook(points: list[Fraction], outputs: int, taps: int) -> tuple[Matrix, Matrix, Matrix]:
    """A^T, G, B^T for the finite points and infinity, as winograd.h describes them."""

    def polynomial(roots: list[Fraction]) -> list[Fraction]:
        coefficients = [Fraction(1)]
        for root in roots:
            shifted = [Fraction(0), *coefficients]
            scaled = [*(-root * c for c in coefficients), Fraction(0)]
            coefficients = [a + b for a, b in zip(shifted, scaled, strict=True)]
        return coefficients

    others = [[q for q in points if q != p] for p in points]
    norms = [np.prod([p - q for q in rest]) for p, rest in zip(points, others, strict=True)]
    at = [[p**i for p in points] + [Fraction(int(i == outputs - 1))] for i in range(outputs)]
    g = [[p**j / n for j in range(taps)] for p, n in zip(points, norms, strict=True)]
    g.append([Fraction(int(j == taps - 1)) for j in range(taps)])
    bt = [[*polynomial(rest), Fraction(0)] for rest in others] + [polynomial(points)]
    return at, g, bt


def test_identity_in_rational_numbers() -> None:
    """A^T [(G g G^T) . (B^T d B)] A is the correlation of d with g, exactly."""
    a, b = Fraction(5, 8), Fraction(3, 2)
    at, g, bt = (np.array(m, object) for m in _toom_cook([Fraction(0), a, -a, b, -b], 4, 3))
    rng = np.random.default_rng(0)
    taps, pixels = (
        np.array([[Fraction(int(v)) for v in row] for row in rng.integers(-99, 99, (n, n))], object)
        for n in (3, 6)
    )
    found = at @ ((g @ taps @ g.T) * (bt @ pixels @ bt.T)) @ at.T
    for i in range(4):
        for j in range(4):
            assert found[i, j] == np.sum(taps * pixels[i : i + 3, j : j + 3])


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["normal", "relu"])
@pytest.mark.parametrize("name", SHAPES)
def test_errors_against_float64(name: str, kind: str) -> None:
    op, x_shape, w_shape, y_shape = _shape(name)
    x, w, dy = normal(*x_shape, seed=1), normal(*w_shape, seed=2), normal(*y_shape, seed=3)
    if kind == "relu":  # activations are not negative, their gradients have many zeros
        x, dy = np.maximum(x, 0), np.where(normal(*y_shape, seed=4) > 0, dy, np.float32(0))
    data = op.operator(Conv2dBackwardData, x_shape=x_shape)
    weights = op.operator(Conv2dBackwardWeights, w_shape=w_shape)
    assert error(run(op, x, w), op.reference(*wide(x, w))) <= 3e-6
    assert error(run(data, dy, w), data.reference(*wide(dy, w))) <= 4e-6
    assert error(run(weights, x, dy), weights.reference(*wide(x, dy))) <= 4e-6


def test_bias_and_relu_are_applied() -> None:
    op, x_shape, w_shape, _ = _shape("odd_channels")
    x, w, b = normal(*x_shape), normal(*w_shape), normal(w_shape[0], scale=30.0)
    fused = replace(op, activation="relu")
    found, exact = run(fused, x, w, b), fused.reference(*wide(x, w, b))
    assert error(found, exact) <= 3e-6
    assert found.min() == 0 and 0.2 < np.mean(found == 0) < 0.8


def test_nan_passes_the_fused_relu() -> None:
    op, x_shape, w_shape, _ = _shape("even")
    x = normal(*x_shape)
    x[0, 3, 2, 2] = np.nan
    assert np.isnan(run(replace(op, activation="relu"), x, normal(*w_shape))).any()


def test_large_values_stay_finite() -> None:
    op, x_shape, w_shape, y_shape = _shape("many_channels")
    x, w, dy = (normal(*s, scale=1e15) for s in (x_shape, w_shape, y_shape))
    assert np.isfinite(run(op, x, w)).all()
    assert np.isfinite(run(op.operator(Conv2dBackwardData, x_shape=x_shape), dy, w)).all()
    assert np.isfinite(run(op.operator(Conv2dBackwardWeights, w_shape=w_shape), x, dy)).all()


@pytest.mark.parametrize("name", ["many_tiles", "few_tiles", "odd_size"])
def test_threads_do_not_change_a_bit(name: str) -> None:
    op, x_shape, w_shape, y_shape = _shape(name)
    x, w, dy = normal(*x_shape), normal(*w_shape), normal(*y_shape)
    data = op.operator(Conv2dBackwardData, x_shape=x_shape)
    weights = op.operator(Conv2dBackwardWeights, w_shape=w_shape)
    for one in ((op, x, w), (data, dy, w), (weights, x, dy)):
        results = [run_with_threads(threads, *one).tobytes() for threads in (1, 2, 5)]
        assert results[0] == results[1] == results[2]


_PROGRAM = """
import numpy as np
from test_winograd import test_errors_against_float64
for name in ("odd_channels", "many_tiles", "wide_padding"):
    test_errors_against_float64(name, "relu")
"""


@pytest.mark.parametrize("isa", ["base", "v3"])
def test_lower_levels_are_as_exact(isa: str) -> None:
    run_at_level(isa, _PROGRAM)


# --- the choice -----------------------------------------------------------------------------------


def _kernels(algorithm: str, channels: int, side: int, images: int = 2, **k: int) -> set[str]:
    """Names of the convolution kernels of a training step."""
    x = mb.placeholder("x", (images, channels, side, side))
    w = mb.placeholder("w", (channels, channels, 3, 3))
    y = F.conv2d(x, w, padding=1, algorithm=algorithm, **k)
    step = mb.compile([y, *mb.gradients(F.sum(F.mul(y, y)), [x, w])])
    return {i.kernel for i in step.plan.instructions if i.kernel.startswith("conv2d")}


ALL = {"conv2d", "conv2d_backward_data", "conv2d_backward_weights"}


def test_large_maps_get_winograd_and_the_plan_says_so() -> None:
    assert _kernels("auto", 256, 32) == {f"{kernel}_winograd" for kernel in ALL}


@pytest.mark.parametrize(
    ("channels", "side", "images", "keywords"),
    [(256, 4, 1, {}), (4, 64, 2, {}), (64, 32, 2, {"stride": 2}), (64, 32, 2, {"groups": 2})],
)
def test_others_get_the_direct_kernel(
    channels: int, side: int, images: int, keywords: dict[str, int]
) -> None:
    x = mb.placeholder("x", (images, channels, side, side))
    w = mb.placeholder("w", (channels, channels // keywords.get("groups", 1), 3, 3))
    plan = mb.compile(F.conv2d(x, w, padding=1, **keywords)).plan
    assert [i.kernel for i in plan.instructions] == ["conv2d"]


def test_the_algorithm_can_be_forced() -> None:
    assert _kernels("direct", 256, 32) == ALL
    assert _kernels("winograd", 4, 5) == {f"{kernel}_winograd" for kernel in ALL}


def test_gain_grows_with_tiles_and_channels() -> None:
    def gain(images: int, channels: int, side: int) -> float:
        return winograd_gain(CONVOLUTION, images, channels, channels, (side, side))

    assert gain(2, 256, 128) > gain(2, 256, 16)
    assert gain(2, 256, 64) > gain(2, 64, 64)
    assert gain(0, 256, 64) == 0


def test_a_module_passes_the_algorithm_on() -> None:
    layer = nn.Conv2d(256, 256, 3, padding=1, algorithm="direct")
    plan = mb.compile(layer(mb.placeholder("x", (2, 256, 32, 32)))).plan
    assert [i.kernel for i in plan.instructions] == ["conv2d"]
