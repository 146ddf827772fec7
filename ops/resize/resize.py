"""Resizing of images: nearest and bilinear."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from megbrain_py.errors import GraphError, require
from megbrain_py.graph import Var, user_origin
from megbrain_py.ops.resize.resample import Resample, Taps

MODES = ("nearest", "bilinear")


@lru_cache(maxsize=256)
def _nearest(source: int, target: int, step: float) -> Taps:
    """Output i is input floor(i * step), in float32 arithmetic, as torch computes it."""
    if target == source:
        step = 1.0
    at = np.floor(np.arange(target, dtype=np.float32) * np.float32(step)).astype(np.int64)
    return tuple((int(i), (1.0,)) for i in np.minimum(at, source - 1))


@lru_cache(maxsize=256)
def _bilinear(source: int, target: int, step: float) -> Taps:
    """Output i lies at (i + 0.5) * step - 0.5 of the input; beyond the border stands the border."""
    if target == source:  # torch's rule: also for a scale of 1.01 that changes no size
        step = 1.0
    taps: list[tuple[int, tuple[float, ...]]] = []
    for i in range(target):
        at = min(max((i + 0.5) * step - 0.5, 0.0), float(source - 1))
        start = min(int(at), source - 1)
        part = at - start
        taps.append((start, (1.0 - part, part) if part > 0 else (1.0,)))
    return tuple(taps)


@dataclass(frozen=True, kw_only=True)
class Resize(Resample, kernel="resize"):
    """Resized images; `steps`: input pixels for one output pixel."""

    mode: str
    steps: tuple[float, float]

    def check(self) -> None:
        require(self.mode in MODES, f"mode must be one of {', '.join(MODES)}, is {self.mode!r}")
        require(min(self.steps) > 0, f"scale must be positive, gives steps {self.steps}")

    def taps(self, axis: int) -> Taps:
        table = _nearest if self.mode == "nearest" else _bilinear
        return table(self.input_size[axis], self.output_size[axis], self.steps[axis])


def _refuse(message: str) -> GraphError:
    return GraphError(f"resize: {message}\n  at {user_origin()}")


def resize(
    x: Var,
    size: int | Sequence[int] | None = None,
    scale: float | Sequence[float] | None = None,
    mode: str = "nearest",
) -> Var:
    """Images x [N, C, H, W] at another size: [N, C, H', W'].

    Either size, in pixels, or scale, H' / H; each one number or (vertical, horizontal).
    mode: "nearest" or "bilinear", both as torch.nn.functional.interpolate(align_corners=False):
    with `scale` the sampling step is exactly 1 / scale, although H' is floor(H * scale).
    Raises GraphError for both or neither of size and scale, and when no pixel would remain.
    """
    if x.rank != 4:
        raise _refuse(f"x must be [N, C, H, W], has rank {x.rank}")
    if (size is None) == (scale is None):
        raise _refuse("give either size or scale")
    source = (x.shape[2], x.shape[3])
    if size is not None:
        wanted = (
            (size, size) if isinstance(size, (int, np.integer)) else tuple(int(n) for n in size)
        )
        if len(wanted) != 2 or min(*wanted, *source) < 1:
            raise _refuse(f"size must be one or two positive sizes, is {size!r} for {source}")
        target = (wanted[0], wanted[1])
        steps = (source[0] / target[0], source[1] / target[1])
    else:
        assert scale is not None
        given = (scale, scale) if isinstance(scale, (int, float)) else tuple(scale)
        if len(given) != 2 or min(given) <= 0:
            raise _refuse(f"scale must be one or two positive factors, is {scale!r}")
        target = (math.floor(source[0] * given[0]), math.floor(source[1] * given[1]))
        steps = (1 / given[0], 1 / given[1])
    result: Var = Resize(input_size=source, output_size=target, mode=mode, steps=steps)(x)
    return result
