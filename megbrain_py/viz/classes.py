"""Pictures of a detector's classes: AP of each, and which are taken for which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from megbrain_py.viz.curves import save_figure

_NUMBERED = 24  # classes: with more, cells are too small for numbers
_LONGEST = 22  # letters of a class name


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"


def _colours(shares: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Blue on the diagonal, red beside it, grey in the last row: float64[n, n, 4]."""
    from matplotlib import colormaps

    right = np.eye(len(shares), dtype=bool)[..., None]
    found = np.where(right, colormaps["Blues"](shares), colormaps["Reds"](shares))
    found[-1] = colormaps["Greys"](shares[-1] * 0.8)
    found[shares == 0] = 1.0
    return np.asarray(found)


def draw_confusion(
    counts: npt.NDArray[np.int64], class_names: Sequence[str], path: Path, title: str = "confusion"
) -> None:
    """Write a PNG of counts [K + 1, K + 1] (data/confusion.py): rows are the objects' classes,
    columns the detections', each row in shares of its objects: right ones blue, mistakes red. The
    background's row, which has no objects, is grey, in shares of its detections."""
    from matplotlib.figure import Figure

    names = [*map(_short, class_names), "background"]
    size = len(names)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    cell = float(np.clip(9.0 / size, 0.28, 1.15))
    letters = max(map(len, names))
    margin = 0.6 + 0.085 * letters
    figure = Figure(figsize=(cell * size + margin + 0.35, cell * size + margin + 0.5))
    width, height = figure.get_size_inches()
    axes = figure.add_axes(
        (margin / width, margin / height, cell * size / width, cell * size / height)
    )
    axes.imshow(_colours(shares))
    if size <= _NUMBERED:
        for (row, column), count in np.ndenumerate(counts):
            share, large = shares[row, column], cell > 0.7
            if count:
                in_shares = large and row < size - 1
                axes.text(
                    column, row, f"{share:.2f}\n{count}" if in_shares else f"{count}",
                    ha="center", va="center", color="white" if share > 0.55 else "0.15",
                    fontsize=9 if large else 7,
                )  # fmt: skip
    axes.axhline(size - 1.5, color="0.4", linewidth=1)
    axes.axvline(size - 1.5, color="0.4", linewidth=1)
    small = 9 if cell > 0.4 else 7
    axes.set_xticks(range(size), names, rotation=90 if letters > 4 else 0, fontsize=small)
    axes.set_yticks(range(size), names, fontsize=small)
    axes.set_xlabel("found as  (last column: missed)")
    axes.set_ylabel("is  (last row: nothing there)")
    axes.set_title(title, fontsize=11)
    save_figure(figure, path)


def draw_class_ap(
    ap: Mapping[str, float | None], ap50: Mapping[str, float | None], path: Path
) -> None:
    """Write a PNG: a bar for each class, the best on top; hollow to AP50. None: no objects."""
    from matplotlib.figure import Figure

    def value(name: str) -> float:
        found = ap.get(name)
        return -1.0 if found is None else float(found)

    names = sorted(ap, key=lambda name: (value(name), name))
    height = 0.24 * len(names) + 1.3
    figure = Figure(figsize=(7.5, height))
    margin = 0.4 + 0.085 * max([len(_short(name)) for name in names], default=4)
    axes = figure.add_axes(
        (margin / 7.5, 0.6 / height, (7.5 - margin - 0.3) / 7.5, (height - 1.1) / height)
    )
    rows = np.arange(len(names))
    outer = [float(ap50.get(name) or 0.0) for name in names]
    inner = [max(value(name), 0.0) for name in names]
    axes.barh(rows, outer, color="#d5e6f4", edgecolor="#7fb2dd", linewidth=0.6, label="AP50")
    axes.barh(rows, inner, color="#2171b5", height=0.55, label="AP")
    for row, name in enumerate(names):
        text = "no objects" if ap.get(name) is None else f"{inner[row]:.2f} · {outer[row]:.2f}"
        right = outer[row] < 0.82
        axes.text(
            outer[row] + 0.01 if right else outer[row] - 0.01, row, text,
            va="center", ha="left" if right else "right", fontsize=8,
        )  # fmt: skip
    axes.set_yticks(rows, [_short(name) for name in names], fontsize=9)
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.grid(axis="x", alpha=0.25)
    axes.set_axisbelow(True)
    axes.set_title("average precision of each class: AP · AP50", fontsize=11)
    save_figure(figure, path)
