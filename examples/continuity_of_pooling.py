"""What poolings of boxes do when a box moves by less than a pixel: a table and a picture.

python examples/continuity_of_pooling.py [picture.png]

A box slides over a smooth map. Pooling that rounds stands still and then jumps; bilinear samples
move with kinks; Precise RoI Pooling moves smoothly. Then a linear readout of the pooled discs says
where the disc lies in its box, which is what a detector's box head has to find out.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import megbrain_py as mb
from megbrain_py import functional as F

Array = NDArray[Any]
SIDE, BINS = 40, 7  # of the maps, of the pooled grid
STEPS = 32  # of the sliding box, a pixel
POOLINGS: dict[str, Callable[..., mb.Var]] = {
    "RoI Pooling (max)": F.roi_pool,
    "RoI Pooling (mean)": lambda *a: F.roi_pool(*a, mode="avg"),
    "RoI Align, 1 sample": lambda *a: F.roi_align(*a, sampling_ratio=1),
    "RoI Align, 2 samples": lambda *a: F.roi_align(*a, sampling_ratio=2),
    "Precise RoI Pooling": F.prroi_pool,
}


def pooled(pooling: Callable[..., mb.Var], maps: Array, boxes: Array) -> Array:
    """[N, R, C * BINS^2] of maps [N, C, S, S] and boxes [N, R, 4]."""
    images, rows = boxes.shape[:2]
    x, rois = mb.placeholder("x", maps.shape), mb.placeholder("rois", boxes.shape)
    count = mb.constant(np.full(images, rows, np.int32))
    y = mb.compile({"y": pooling([x], rois, count, BINS, [1.0])})(x=maps, rois=boxes)["y"]
    return y.reshape(images, rows, -1)


def sliding() -> tuple[Array, Array, Array]:
    """A random smooth map, shifts from 0 to 2 pixels, and the box at each."""
    rng = np.random.default_rng(0)
    waves = np.fft.rfft2(rng.standard_normal((4, SIDE, SIDE)))
    rate = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE))
    maps = np.fft.irfft2(waves * np.exp(-((rate / 0.15) ** 2)), s=(SIDE, SIDE))
    shifts = np.arange(2 * STEPS + 1) / STEPS
    box = np.array([9.3, 11.6, 22.1, 25.0])
    boxes = box + shifts[:, None] * np.array([1, 0, 1, 0])
    return (maps / maps.std()).astype(np.float32)[None], shifts, boxes.astype(np.float32)[None]


def discs(count: int) -> tuple[Array, Array, Array]:
    """Maps with a disc each, a box around it that is a little off, and by how much, in pixels."""
    rng = np.random.default_rng(1)
    centre = rng.uniform(16, 24, (count, 2))
    radius = rng.uniform(4, 8, count)
    at = np.arange(SIDE)
    away = np.hypot(
        at[None, :, None] - centre[:, 1, None, None], at[None, None] - centre[:, 0, None, None]
    )
    maps = np.clip(radius[:, None, None] - away + 0.5, 0, 1)  # a border of one pixel
    off = rng.uniform(-1.5, 1.5, (count, 2))
    middle, half = centre + off, 1.3 * radius[:, None]
    boxes = np.concatenate([middle - half, middle + half], 1)
    return maps[:, None].astype(np.float32), boxes[:, None].astype(np.float32), off


def localisation_error(pooling: Callable[..., mb.Var]) -> float:
    """Pixels, root mean square: a linear readout fitted on half of the discs, tried on the rest."""
    maps, boxes, off = discs(1200)
    side = boxes[:, 0, 2:] - boxes[:, 0, :2]
    grid = pooled(pooling, maps, boxes)[:, 0]
    grid = np.concatenate([grid, np.ones((len(grid), 1))], 1).astype(np.float64)
    seen, rest = slice(None, 600), slice(600, None)
    readout, *_ = np.linalg.lstsq(grid[seen], (off / side)[seen], rcond=None)
    wrong = (grid[rest] @ readout) * side[rest] - off[rest]
    return float(np.sqrt(np.mean(wrong**2)))


def draw(curves: dict[str, Array], shifts: Array, errors: dict[str, float], path: Path) -> None:
    """One pooled value, how fast the whole grid changes, and the errors of the readout."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4), layout="constrained")
    value, speed, bars = figure.subplots(1, 3)
    for name, grid in curves.items():
        value.plot(shifts, grid[:, BINS * BINS // 2], label=name)
        speed.plot(shifts[1:], rates(grid), label=name)
    value.set(title="one bin's value", xlabel="shift of the box, pixels")
    speed.set(title="change of the grid per pixel", xlabel="shift of the box, pixels", yscale="log")
    value.legend(fontsize=7)
    bars.barh(list(errors), list(errors.values()))
    bars.invert_yaxis()
    bars.set(title="where is the disc? error in pixels")
    figure.savefig(path, dpi=110)


def rates(grid: Array) -> Array:
    """Root mean square change of all bins from step to step, per pixel of shift."""
    return np.asarray(np.sqrt(np.mean(np.diff(grid, axis=0) ** 2, 1)) * STEPS)


def main() -> None:
    """Print the table, draw the picture."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("continuity_of_pooling.png")
    maps, shifts, boxes = sliding()
    curves = {name: pooled(pooling, maps, boxes)[0] for name, pooling in POOLINGS.items()}
    errors = {name: localisation_error(pooling) for name, pooling in POOLINGS.items()}
    print("                       largest jump   kinks   error of the readout")
    for name, grid in curves.items():
        change, bends = rates(grid), rates(np.diff(grid, axis=0))
        jump, kink = change.max() / np.sqrt(np.mean(change**2)), bends.max() / bends.mean()
        print(f"{name:<22} {jump:12.2f} {kink:7.2f} {errors[name]:15.3f} px")
    draw(curves, shifts, errors, path)
    print(f"{path}: largest jump: of a step of 1/{STEPS} pixel, over the root mean square of all;")
    print("kinks: the same for the change of the change, over its mean")


if __name__ == "__main__":
    main()
