"""Losses, average precision and learning rate of a run as one picture."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NOT_LOSSES = ("kind", "step", "lr", "rate", "seconds", "epoch", "loss", "grad_norm")


def draw_curves(lines: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write a PNG from the lines of a log (training/log.py).

    Left: the training losses (thin as measured, thick smoothed over 1/50 of the run) and the
    validation loss; middle: AP and AP50 of boxes and masks; right: learning rate and pictures a
    second; then, where it was limited, the gradients' norm before that.
    """
    from matplotlib.figure import Figure

    panels = [_losses, _quality, _pace]
    if len(_of(lines, "train", "grad_norm")[0]):
        panels.append(_norm)
    width = 5.0 * len(panels)
    figure = Figure(figsize=(width, 4.6))
    figure.subplots_adjust(
        left=0.5 / width, right=1 - 0.65 / width, bottom=0.11, top=0.92, wspace=0.24
    )
    found = figure.subplots(1, len(panels))
    for panel, axes in zip(panels, found, strict=True):
        panel(axes, lines)
        axes.set_xlabel("step")
        axes.set_xlim(0, max([line["step"] for line in lines], default=1) * 1.02)
        axes.grid(alpha=0.25)
    save_figure(figure, path)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure so that readers never see half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        figure.savefig(temporary, dpi=110)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _of(lines: Sequence[Mapping[str, Any]], kind: str, name: str) -> tuple[Any, Any]:
    """(steps, values) of one quantity."""
    found = [(n["step"], n[name]) for n in lines if n["kind"] == kind and n.get(name) is not None]
    steps, values = zip(*found, strict=True) if found else ((), ())
    return np.array(steps), np.array(values, np.float64)


def smooth(values: Any, window: int) -> Any:
    """Running mean over `window` values around each, fewer at the ends."""
    if window < 2 or len(values) < 2:
        return values
    total = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    low = np.maximum(index - window // 2, 0)
    high = np.minimum(index + window // 2 + 1, len(values))
    return (total[high] - total[low]) / (high - low)


def _losses(axes: Axes, lines: Sequence[Mapping[str, Any]]) -> None:
    train = [line for line in lines if line["kind"] == "train"]
    names = list(dict.fromkeys(k for line in train for k in line if k not in _NOT_LOSSES))
    top = 0.0
    for number, name in enumerate(["loss", *names]):
        steps, values = _of(train, "train", name)
        if not len(steps):
            continue
        color = f"C{number}"
        curve = smooth(values, max(len(values) // 50, 1) | 1)
        if name == "loss":
            axes.plot(steps, values, color=color, alpha=0.25, linewidth=0.6)
            top = float(np.percentile(curve, 98)) * 1.3
        label = "total" if name == "loss" else name.removeprefix("loss_")
        axes.plot(steps, curve, color=color, linewidth=2 if name == "loss" else 1.2, label=label)
    steps, values = _of(lines, "val", "loss")
    if len(steps):
        axes.plot(steps, values, "o--", color="black", markersize=4, label="total, validation")
        top = max(top, float(values.max()) * 1.1)
    axes.set_ylim(0, top or None)
    axes.set_title("losses")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8)


def _quality(axes: Axes, lines: Sequence[Mapping[str, Any]]) -> None:
    for name, label, style in (
        ("AP", "AP", "C0o-"), ("AP50", "AP50", "C1o-"),
        ("segm_AP", "AP of masks", "C0s--"), ("segm_AP50", "AP50 of masks", "C1s--"),
    ):  # fmt: skip
        steps, values = _of(lines, "eval", name)
        if len(steps):
            axes.plot(steps, values, style, markersize=4, label=label)
            axes.annotate(
                f"{values[-1]:.3f}", (steps[-1], values[-1]), xytext=(-4, 5),
                textcoords="offset points", ha="right", fontsize=9,
            )  # fmt: skip
    axes.set_ylim(0, 1)
    axes.set_title("average precision on validation pictures")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8, loc="upper left")
    else:
        axes.text(0.5, 0.5, "not measured yet", ha="center", transform=axes.transAxes)


def _pace(axes: Axes, lines: Sequence[Mapping[str, Any]]) -> None:
    steps, values = _of(lines, "train", "lr")
    axes.plot(steps, values, color="C3", linewidth=2)
    axes.set_ylabel("learning rate", color="C3")
    axes.set_ylim(bottom=0)
    right = axes.twinx()
    steps, values = _of(lines, "train", "rate")
    right.plot(steps, values, color="C7", linewidth=0.8)
    right.set_ylabel("pictures a second", color="C7")
    right.set_ylim(0, float(values.max()) * 1.5 if len(values) else 1.0)
    axes.set_zorder(right.get_zorder() + 1)  # the rate is drawn over the speed
    axes.patch.set_visible(False)
    axes.set_title("learning rate and speed")


def _norm(axes: Axes, lines: Sequence[Mapping[str, Any]]) -> None:
    steps, values = _of(lines, "train", "grad_norm")
    curve = smooth(values, max(len(values) // 50, 1) | 1)
    axes.plot(steps, values, color="C5", alpha=0.25, linewidth=0.6)
    axes.plot(steps, curve, color="C5", linewidth=2)
    axes.set_ylim(0, float(np.percentile(values, 98)) * 1.3 or None)
    axes.set_title("norm of the gradients before clipping")
