"""The weight gradient as matrix products: errors against float64, threads, levels, who gets it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from kernel_runs import error, run, run_at_level, run_with_threads, wide

import megbrain_py as mb
from megbrain_py import functional as F
from megbrain_py.op_testing import normal
from megbrain_py.ops.conv.conv import Conv2dBackwardWeights

_GEMM = "conv2d_backward_weights_gemm"


@dataclass(frozen=True)
class Shape:
    x: tuple[int, int, int, int]
    outputs: int
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)

    @property
    def op(self) -> Conv2dBackwardWeights:
        w = (self.outputs, self.x[1], *self.kernel)
        return Conv2dBackwardWeights(self.stride, self.padding, self.dilation, 1, w)

    def feeds(self, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        y = self.op.y_shape(self.x, self.op.w_shape)
        return normal(*self.x, seed=seed), normal(*y, seed=seed + 1)


SHAPES = {
    "one_tap": Shape((2, 64, 7, 9), 256),
    "one_tap_many_pixels": Shape((3, 128, 31, 30), 256),
    "strided": Shape((2, 256, 9, 8), 130, stride=(2, 2)),
    "unlike_strides": Shape((1, 192, 9, 8), 257, stride=(2, 3)),
    "three_by_three": Shape((2, 128, 15, 11), 129, (3, 3), (2, 2), (1, 1, 1, 1)),
    "four_paddings": Shape((1, 128, 9, 6), 128, (3, 3), (2, 1), (0, 1, 2, 3)),
    "unlike_axes": Shape((1, 190, 11, 9), 128, (3, 2), (1, 2), (1, 0, 1, 0), (2, 1)),
    "five_by_five": Shape((1, 128, 8, 8), 140, (5, 5), (2, 2), (2, 2, 2, 2)),
    "one_pixel": Shape((1, 191, 1, 1), 300, (3, 3), (2, 2), (1, 1, 1, 1)),
    "rest_of_a_panel": Shape((1, 253, 6, 5), 256),
}


@pytest.mark.parametrize("name", SHAPES)
def test_errors_against_float64(name: str) -> None:
    shape = SHAPES[name]
    x, dy = shape.feeds()
    assert error(run(shape.op, x, dy), shape.op.reference(*wide(x, dy))) <= 1e-6
    assert _kernel(shape) == _GEMM


@pytest.mark.parametrize("name", ["one_tap_many_pixels", "three_by_three", "rest_of_a_panel"])
def test_threads_do_not_change_a_bit(name: str) -> None:
    shape = SHAPES[name]
    results = [run_with_threads(n, shape.op, *shape.feeds()).tobytes() for n in (1, 2, 3, 7)]
    assert len(set(results)) == 1


def test_nan_and_infinity_reach_their_weights_only() -> None:
    shape = SHAPES["strided"]
    x, dy = shape.feeds()
    x[0, 3, 2, 2] = np.nan
    x[1, 200, 4, 4] = np.inf
    x[0, 7, 1, 1] = np.nan  # no stride meets it
    found = run(shape.op, x, dy)
    assert np.isnan(found[:, 3]).all() and np.isinf(found[:, 200]).all()
    assert np.isfinite(np.delete(found, [3, 200], 1)).all()


def test_no_image_gives_zeros() -> None:
    shape = replace(SHAPES["one_tap"], x=(0, 64, 7, 9))
    assert not run(shape.op, *shape.feeds()).any()


_PROGRAM = """
from test_conv_gemm import test_errors_against_float64
for name in ("unlike_strides", "three_by_three", "unlike_axes", "rest_of_a_panel"):
    test_errors_against_float64(name)
"""


@pytest.mark.parametrize("isa", ["base", "v3"])
def test_lower_levels_are_as_exact(isa: str) -> None:
    run_at_level(isa, _PROGRAM)


def _kernel(shape: Shape, algorithm: str = "auto") -> str:
    x, dy = (mb.placeholder(n, a.shape) for n, a in zip("xd", shape.feeds(), strict=True))
    plan = mb.compile(F.max(replace(shape.op, algorithm=algorithm)(x, dy))).plan
    return next(i.kernel for i in plan.instructions if i.kernel.startswith("conv2d"))


@pytest.mark.parametrize(
    "shape",
    [
        Shape((2, 64, 20, 20), 128),
        Shape((2, 64, 20, 20), 256, (3, 3), (2, 2)),
        Shape((2, 256, 20, 20), 64),
        Shape((2, 130, 20, 20), 256),  # a third of the panels would be empty
    ],
)
def test_narrow_ones_stay_with_onednn(shape: Shape) -> None:
    assert _kernel(shape) == "conv2d_backward_weights"


def test_direct_is_onednn() -> None:
    assert _kernel(SHAPES["one_tap"], "direct") == "conv2d_backward_weights"
