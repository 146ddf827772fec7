"""Layers with weights: Linear, Conv2d, ConvTranspose2d, Embedding."""

from __future__ import annotations

import math

import numpy as np

from megbrain_py import functional as F
from megbrain_py.dtypes import Array
from megbrain_py.graph import Var
from megbrain_py.nn import init
from megbrain_py.nn.module import Module
from megbrain_py.parameter import Parameter

_TORCH_SLOPE = math.sqrt(5.0)  # torch's default: uniform in +-1/sqrt(fan_in)


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, (int, np.integer)) else value


def _bias(size: int, fan_in: int, rng: init.RandomLike) -> Array:
    return init.uniform([size], 1.0 / math.sqrt(max(fan_in, 1)), rng=rng)


class Linear(Module):
    """x @ weight.T + bias: x `[..., inputs]` -> `[..., outputs]`; weight `[outputs, inputs]`."""

    def __init__(
        self, inputs: int, outputs: int, *, bias: bool = True, rng: init.RandomLike = None
    ) -> None:
        rng = init.generator(rng)
        weight = init.kaiming_uniform([outputs, inputs], slope=_TORCH_SLOPE, rng=rng)
        self.weight = Parameter(weight)
        self.bias = Parameter(_bias(outputs, inputs, rng)) if bias else None

    def forward(self, x: Var) -> Var:
        return F.linear(x, self.weight, self.bias)


class Conv2d(Module):
    """2-d convolution: x `[N, inputs, H, W]`; weight `[outputs, inputs / groups, kh, kw]`."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int],
        *,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        algorithm: str = "auto",
        rng: init.RandomLike = None,
    ) -> None:
        rng = init.generator(rng)
        if inputs % groups or outputs % groups:
            raise ValueError(f"Conv2d: {inputs} -> {outputs} channels in {groups} groups")
        shape = [outputs, inputs // groups, *_pair(kernel)]
        self.weight = Parameter(init.kaiming_uniform(shape, slope=_TORCH_SLOPE, rng=rng))
        self.bias = Parameter(_bias(outputs, init.fans(shape)[0], rng)) if bias else None
        self.stride = _pair(stride)
        self.padding = _pair(padding)
        self.dilation = _pair(dilation)
        self.groups = groups
        self.algorithm = algorithm

    def forward(self, x: Var) -> Var:
        return F.conv2d(
            x,
            self.weight,
            self.bias,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
            algorithm=self.algorithm,
        )


class ConvTranspose2d(Module):
    """Transposed 2-d convolution: x `[N, inputs, H, W]`; weight `[inputs, outputs, kh, kw]`."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int],
        *,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        output_padding: int | tuple[int, int] = 0,
        bias: bool = True,
        rng: init.RandomLike = None,
    ) -> None:
        rng = init.generator(rng)
        shape = [inputs, outputs, *_pair(kernel)]
        self.weight = Parameter(init.kaiming_uniform(shape, slope=_TORCH_SLOPE, rng=rng))
        self.bias = Parameter(_bias(outputs, init.fans(shape)[0], rng)) if bias else None
        self.stride = _pair(stride)
        self.padding = _pair(padding)
        self.output_padding = _pair(output_padding)

    def forward(self, x: Var) -> Var:
        return F.conv_transpose2d(
            x,
            self.weight,
            self.bias,
            stride=self.stride,
            padding=self.padding,
            output_padding=self.output_padding,
        )


class Embedding(Module):
    """Rows of a table: integer indices of any shape -> `[..., width]`; weight `[count, width]`."""

    def __init__(self, count: int, width: int, *, rng: init.RandomLike = None) -> None:
        self.weight = Parameter(init.normal([count, width], rng=rng))

    def forward(self, indices: Var) -> Var:
        return F.embedding(indices, self.weight)
