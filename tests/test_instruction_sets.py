"""Kernels use the registers of their level: seen in the machine code of the module itself."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest
from machine_code import MachineCode, available

from megbrain_py import _engine  # noqa: TID251

# Those that take the time of a training step, convolutions and matrix products aside (oneDNN's).
_HOT = (
    "roi_align", "roi_align_backward", "prroi_pool", "prroi_pool_backward", "prroi_pool_box_grad",
    "roi_max_pool", "nms", "match_boxes", "channel_moments",
    "channel_normalise", "add", "mul", "relu", "relu_grad", "sigmoid", "gelu", "softmax",
    "cross_entropy", "cross_entropy_grad", "sigmoid_cross_entropy", "smooth_l1", "sgd_update",
    "adamw_update", "resize", "avg_pool2d", "max_pool2d", "max_pool2d_backward", "sum",
    "layer_norm",
)  # fmt: skip
_WIDTH = {"base": 0, "v3": 256, "v4": 512}  # bits; base has the 128 of SSE2


@pytest.fixture(scope="module")
def code() -> MachineCode:
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("levels exist on x86-64 only")
    if not available():
        pytest.skip("no objdump here (it is a part of binutils)")
    return MachineCode(Path(_engine.__file__))


@pytest.mark.parametrize("isa", ["v3", "v4"])
def test_hot_kernels_compute_with_wide_registers(code: MachineCode, isa: str) -> None:
    if not any(level == isa for _, level in code.kernels):
        pytest.skip(f"{isa} is not in this build")
    found = {name: code.closure(name, isa).arithmetic for name in _HOT}
    assert found == dict.fromkeys(_HOT, _WIDTH[isa])


@pytest.mark.parametrize("isa", ["base", "v3"])
def test_no_kernel_reaches_code_of_a_higher_level(code: MachineCode, isa: str) -> None:
    """An inline function that levels share must come from the lowest (docs/layout.md)."""
    names = sorted(name for name, level in code.kernels if level == isa)
    wide = {name: code.closure(name, isa).widest for name in names}
    assert {name: width for name, width in wide.items() if width > _WIDTH[isa]} == {}
