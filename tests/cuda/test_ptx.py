"""The PTX interpreter on programs written by hand: what it computes, what it refuses. No nvcc."""

from __future__ import annotations

import numpy as np
import pytest
from ptx.machine import Grid, run
from ptx.memory import Fault, GlobalMemory
from ptx.parse import kernels_of

pytestmark = pytest.mark.cuda

# y[i] is computed by BODY in %r9 from i in %r1; 64 threads in 2 blocks.
_PROGRAM = """
.visible .entry program(
    .param .u64 program_param_0
)
{
    .reg .pred %p<9>;
    .reg .f32 %f<9>;
    .reg .b32 %r<19>;
    .reg .b64 %rd<9>;
    ld.param.u64 %rd1, [program_param_0];
    mov.u32 %r3, %ctaid.x;
    mov.u32 %r4, %ntid.x;
    mov.u32 %r5, %tid.x;
    mad.lo.s32 %r1, %r3, %r4, %r5;
BODY
    mul.wide.s32 %rd2, %r1, 4;
    add.s64 %rd3, %rd1, %rd2;
    st.global.u32 [%rd3], %r9;
    ret;
}
"""
_INDEX = np.arange(64, dtype=np.int32)
_ADDRESS = 1 << 20


def _run(body: str) -> np.ndarray:
    out = np.full(64 * 4, 0xFF, np.uint8)
    (kernel,) = kernels_of(_PROGRAM.replace("BODY", body)).values()
    parameters = _ADDRESS.to_bytes(8, "little")
    run(kernel, Grid((2, 1, 1), (32, 1, 1)), parameters, GlobalMemory([(_ADDRESS, out)]))
    return out.view(np.int32)


def test_threads_leave_a_loop_one_after_the_other() -> None:
    """r9 = 0 + 1 + ... + i, by a loop whose length depends on the thread."""
    found = _run(
        """
        mov.u32 %r9, 0;
        mov.u32 %r2, 0;
    $AGAIN:
        add.s32 %r9, %r9, %r2;
        add.s32 %r2, %r2, 1;
        setp.le.s32 %p1, %r2, %r1;
        @%p1 bra $AGAIN;
        """
    )
    np.testing.assert_array_equal(found, _INDEX * (_INDEX + 1) // 2)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("sub.s32 %r2, %r1, 30; div.s32 %r9, %r2, 7;", np.trunc((_INDEX - 30) / 7)),
        ("sub.s32 %r2, %r1, 30; shr.s32 %r9, %r2, 2;", (_INDEX - 30) >> 2),
        ("sub.s32 %r2, %r1, 30; shr.u32 %r9, %r2, 40;", np.zeros(64)),
        ("cvt.rn.f32.s32 %f1, %r1; mul.f32 %f2, %f1, 0fBF000000; cvt.rzi.s32.f32 %r9, %f2;",
         np.trunc(_INDEX * -0.5)),
        ("cvt.rn.f32.s32 %f1, %r1; mul.f32 %f2, %f1, 0f3F000000; cvt.rni.s32.f32 %r9, %f2;",
         np.rint(_INDEX * 0.5)),
        ("mov.f32 %f1, 0f7FC00000; setp.neu.f32 %p1, %f1, %f1; selp.b32 %r9, 5, 6, %p1;",
         np.full(64, 5)),
        ("mov.f32 %f1, 0f7FC00000; setp.ne.f32 %p1, %f1, %f1; selp.b32 %r9, 5, 6, %p1;",
         np.full(64, 6)),
        ("setp.gt.s32 %p1, %r1, 40; mov.u32 %r9, 1; @!%p1 mov.u32 %r9, 2;",
         np.where(_INDEX > 40, 1, 2)),
        ("sub.s32 %r2, %r1, 9; cvt.s64.s32 %rd4, %r2; shr.s64 %rd5, %rd4, 32;"
         "cvt.u32.u64 %r9, %rd5;",
         np.where(_INDEX < 9, -1, 0)),
    ],
)  # fmt: skip
def test_arithmetic(body: str, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(_run(body), expected)


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("popc.b32 %r9, %r1;", "unknown opcode popc.b32"),
        ("add.sat.s32 %r9, %r1, 1;", "unknown modifier sat of add.sat.s32"),
        ("cvt.rp.f32.s32 %f1, %r1;", "rounding rp"),
        ("bar.warp.sync 1;", "unknown barrier"),
        ("ld.local.u32 %r9, [%rd1];", "unknown opcode ld.local.u32"),
        ("add.s32 %r9, %r1, %r2;", "register %r2 is read before it is written"),
        ("div.s32 %r9, %r1, 0;", "an integer is divided by 0"),
        ("ld.global.u32 %r9, [%rd1+2];", "is no multiple of 4"),
        ("ld.global.u32 %r9, [%rd1+-4];", "read out of bounds"),
        ("mov.u32 %r9, 1; st.global.u32 [%rd1], %r9;", "race in global memory, byte 0"),
    ],
)
def test_what_is_wrong_or_unknown_is_refused(body: str, fault: str) -> None:
    with pytest.raises(Fault, match="kernel program") as caught:
        _run(body)
    assert fault in str(caught.value)


def test_an_unknown_declaration_is_refused() -> None:
    with pytest.raises(SyntaxError, match="unknown declaration"):
        _run(".local .align 8 .b8 depot[16];")
