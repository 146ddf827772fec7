"""Examples of convolution: every attribute, odd sizes, empty batch, all gradients of gradients."""

from typing import Any

import numpy as np

from megbrain_py import functional as F
from megbrain_py.graph import Var
from megbrain_py.op_testing import Benchmark, Case, ErrorCase, normal
from megbrain_py.ops.conv.conv import ChannelSum, Conv2d, Conv2dBackwardData, Conv2dBackwardWeights

# name: (x, w, keywords of conv2d)
_FORWARD: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "1x1": ((2, 16, 5, 7), (32, 16, 1, 1), {}),
    "1x1_stride": ((2, 16, 5, 7), (8, 16, 1, 1), {"stride": 2}),
    "3x3": ((2, 16, 6, 6), (16, 16, 3, 3), {"padding": 1}),
    "3x3_stride": ((2, 8, 7, 6), (24, 8, 3, 3), {"stride": 2, "padding": 1}),
    "stem": ((1, 3, 17, 19), (16, 3, 7, 7), {"stride": 2, "padding": 3}),
    "odd_channels": ((2, 5, 6, 5), (7, 5, 3, 3), {"padding": 1}),
    "single": ((1, 1, 1, 1), (1, 1, 1, 1), {}),
    "valid": ((1, 4, 3, 4), (4, 4, 3, 4), {}),
    "unlike_axes": ((1, 4, 9, 8), (6, 4, 3, 2), {"stride": (2, 1), "padding": (0, 1),
                                                "dilation": (1, 2)}),
    "four_paddings": ((1, 4, 5, 6), (4, 4, 3, 3), {"padding": (0, 1, 2, 3)}),
    "dilation": ((1, 8, 9, 9), (8, 8, 3, 3), {"padding": 2, "dilation": 2}),
    "rest_of_stride": ((1, 4, 8, 9), (4, 4, 2, 2), {"stride": 3}),
    "groups": ((2, 12, 5, 5), (18, 4, 3, 3), {"padding": 1, "groups": 3}),
    "groups_wide": ((1, 64, 4, 4), (64, 16, 3, 3), {"padding": 1, "groups": 4}),
    "depthwise": ((2, 20, 6, 6), (20, 1, 3, 3), {"padding": 1, "groups": 20}),
    "depthwise_stride": ((1, 16, 7, 7), (16, 1, 3, 3), {"padding": 1, "stride": 2, "groups": 16}),
    "depthwise_multiplied": ((1, 6, 5, 5), (12, 1, 3, 3), {"padding": 1, "groups": 6}),
    "wide": ((1, 72, 9, 30), (40, 72, 3, 3), {"padding": 1}),
    "empty_batch": ((0, 4, 5, 5), (3, 4, 3, 3), {}),
    "winograd": ((2, 19, 9, 6), (35, 19, 3, 3), {"padding": 1, "algorithm": "winograd"}),
    "winograd_paddings": ((1, 4, 5, 6), (70, 4, 3, 3), {"padding": (0, 1, 2, 2),
                                                       "algorithm": "winograd"}),
    "winograd_single": ((1, 1, 1, 1), (1, 1, 3, 3), {"padding": 1, "algorithm": "winograd"}),
    "winograd_empty_batch": ((0, 4, 5, 5), (3, 4, 3, 3), {"algorithm": "winograd"}),
}  # fmt: skip


def _conv_relu(x: Var, w: Var, b: Var) -> Any:
    return Conv2d((1, 1), (1, 1, 1, 1), (1, 1), 1, activation="relu")(x, w, b)


def _channel_sum(x: Var) -> Any:
    return ChannelSum()(x)


CASES = [
    Case(
        f"conv2d_{name}", lambda x, w, k=k: F.conv2d(x, w, **k), {"x": normal(*x), "w": normal(*w)}
    )
    for name, (x, w, k) in _FORWARD.items()
]
CASES += [
    Case(f"conv2d_bias_{name}", lambda x, w, b, k=k: F.conv2d(x, w, b, **k),
         {"x": normal(*x), "w": normal(*w), "b": normal(w[0])})
    for name, (x, w, k) in _FORWARD.items() if name in ("3x3", "groups", "odd_channels", "stem",
                                                        "depthwise", "empty_batch", "winograd")
]  # fmt: skip
CASES += [
    Case("conv2d_large_values", lambda x, w: F.conv2d(x, w, padding=1),
         {"x": normal(1, 8, 5, 5, scale=1e18), "w": normal(8, 8, 3, 3, scale=1e18)}, grad=()),
    Case("conv2d_fused_relu",
         _conv_relu,
         {"x": normal(2, 8, 5, 5), "w": normal(16, 8, 3, 3), "b": normal(16)}, grad=()),
    # channels_last between two convolutions, rows at both ends
    Case("conv2d_chain", lambda x, w: F.conv2d(F.conv2d(x, w, padding=1), w, padding=1),
         {"x": normal(2, 8, 6, 5), "w": normal(8, 8, 3, 3, scale=0.2)}),
    Case("channel_sum_rows", _channel_sum, {"x": normal(3, 5, 7, 9)}),
    Case("channel_sum_last", lambda x, w: _channel_sum(F.conv2d(x, w)),
         {"x": normal(3, 5, 30, 41), "w": normal(20, 5, 1, 1)}),
    Case("channel_sum_empty", _channel_sum, {"x": normal(0, 5, 2, 2)}),
]  # fmt: skip

# the gradients as operators, so that their own gradients are checked too
_NESTED = ("1x1_stride", "3x3", "unlike_axes", "four_paddings", "rest_of_stride", "groups",
           "depthwise", "empty_batch", "winograd", "winograd_empty_batch")  # fmt: skip


def _of(name: str) -> tuple[Conv2d, tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    x, w, k = _FORWARD[name]
    from megbrain_py.ops.conv.geometry import padding4, pair

    op = Conv2d(pair("", "", k.get("stride", 1)), padding4("", k.get("padding", 0)),
                pair("", "", k.get("dilation", 1)), k.get("groups", 1),
                algorithm=k.get("algorithm", "auto"))  # fmt: skip
    return op, x, w, op.y_shape(x, w)


for _name in _NESTED:
    _op, _x, _w, _y = _of(_name)
    CASES += [
        Case(f"backward_data_{_name}",
             lambda dy, w, op=_op, x=_x: op.operator(Conv2dBackwardData, x_shape=x)(dy, w),
             {"dy": normal(*_y), "w": normal(*_w)}),
        Case(f"backward_weights_{_name}",
             lambda x, dy, op=_op, w=_w: op.operator(Conv2dBackwardWeights, w_shape=w)(x, dy),
             {"x": normal(*_x), "dy": normal(*_y)}),
    ]  # fmt: skip

_TRANSPOSED: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "plain": ((2, 4, 5, 3), (4, 6, 3, 3), {}),
    "double": ((2, 16, 4, 5), (16, 8, 2, 2), {"stride": 2}),
    "output_padding": ((1, 4, 4, 4), (4, 3, 3, 3), {"stride": 2, "padding": 1,
                                                   "output_padding": 1}),
    "groups": ((1, 6, 4, 4), (6, 2, 3, 3), {"groups": 3, "padding": 1}),
    "dilation": ((1, 4, 4, 3), (4, 2, 3, 2), {"dilation": (2, 3), "stride": (1, 2)}),
    "empty_batch": ((0, 4, 4, 4), (4, 2, 2, 2), {"stride": 2}),
}  # fmt: skip
CASES += [
    Case(f"conv_transpose2d_{name}", lambda x, w, b, k=k: F.conv_transpose2d(x, w, b, **k),
         {"x": normal(*x), "w": normal(*w), "b": normal(w[1] * k.get("groups", 1))})
    for name, (x, w, k) in _TRANSPOSED.items()
]  # fmt: skip


def _error(name: str, x: tuple[int, ...], w: tuple[int, ...], message: str, **k: Any) -> ErrorCase:
    inputs = {"x": normal(*x), "w": normal(*w)}
    return ErrorCase(name, lambda x, w: F.conv2d(x, w, **k), inputs, message)


ERRORS = [
    _error("channels", (8, 32, 7, 7), (16, 64, 3, 3),
           "conv2d: w expects 64 input channels, x has 32"),
    _error("channels of groups", (1, 8, 7, 7), (8, 8, 3, 3),
           "conv2d: w expects 16 input channels, x has 8", groups=2),
    _error("groups", (1, 6, 7, 7), (4, 2, 3, 3),
           "conv2d: 4 output channels do not split into 3 groups", groups=3),
    _error("rank", (8, 7, 7), (8, 8, 3, 3), "conv2d: x must be [N, C, H, W], has rank 3"),
    _error("empty", (1, 8, 4, 2), (8, 8, 3, 3),
           "conv2d: the kernel reaches over 3 pixels, but the width of the padded input is 2"),
    _error("no pixels", (1, 8, 0, 5), (8, 8, 1, 1), "the output would be empty"),
    _error("stride", (1, 8, 4, 4), (8, 8, 3, 3), "conv2d: stride must be at least 1", stride=0),
    _error("padding", (1, 8, 4, 4), (8, 8, 3, 3), "conv2d: padding must not be negative",
           padding=-1),
    _error("paddings", (1, 8, 4, 4), (8, 8, 3, 3), "conv2d: padding must be an integer",
           padding=(1, 2, 3)),
    _error("algorithm", (1, 8, 4, 4), (8, 8, 3, 3),
           "conv2d: algorithm must be one of auto, direct, winograd, is 'fast'", algorithm="fast"),
    _error("winograd", (1, 8, 4, 4), (8, 8, 3, 3),
           "conv2d: algorithm winograd is for 3x3 kernels with stride 1, dilation 1, paddings up "
           "to 2 and one group", algorithm="winograd", stride=2),
    ErrorCase("bias", F.conv2d,
              {"x": normal(1, 2, 3, 3), "w": normal(4, 2, 1, 1), "bias": normal(3)},
              "conv2d: bias must have shape (4,), has (3,)"),
    ErrorCase("types", F.conv2d,
              {"x": normal(1, 2, 3, 3), "w": np.ones((4, 2, 1, 1), np.int64)},
              "conv2d: all inputs must have one float type, are float32, int64"),
    ErrorCase("output_padding", lambda x, w: F.conv_transpose2d(x, w, output_padding=1),
              {"x": normal(1, 2, 3, 3), "w": normal(2, 2, 2, 2)},
              "conv_transpose2d: output_padding (1, 1) must be at least 0 and below stride"),
    ErrorCase("transposed channels", F.conv_transpose2d,
              {"x": normal(1, 2, 3, 3), "w": normal(3, 2, 2, 2)},
              "conv_transpose2d: w expects 3 input channels, x has 2"),
]  # fmt: skip


def _benchmark(name: str, x: tuple[int, ...], w: tuple[int, ...], **k: Any) -> Benchmark:
    inputs = lambda: {"x": normal(*x), "w": normal(*w)}  # noqa: E731
    return Benchmark(name, lambda x, w: F.conv2d(x, w, **k), inputs, ("x", "w"))


BENCHMARKS = [  # of ResNet-50, batch 16
    _benchmark("stem", (16, 3, 224, 224), (64, 3, 7, 7), stride=2, padding=3),
    _benchmark("3x3_56", (16, 64, 56, 56), (64, 64, 3, 3), padding=1),
    _benchmark("1x1_56", (16, 64, 56, 56), (256, 64, 1, 1)),
    _benchmark("3x3_14", (16, 256, 14, 14), (256, 256, 3, 3), padding=1),
    _benchmark("3x3_stride", (16, 128, 56, 56), (128, 128, 3, 3), padding=1, stride=2),
    _benchmark("depthwise", (16, 128, 56, 56), (128, 1, 3, 3), padding=1, groups=128),
]
