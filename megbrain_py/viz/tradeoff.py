"""Time against memory as a picture: what budgets cost, what is proven, what cannot be kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from megbrain_py.planning.sizes import show_size, unit_of
from megbrain_py.viz.curves import save_figure

_OURS, _PROVEN, _TOO_LITTLE = "#0072b2", "#e69f00", "#999999"


def draw_tradeoff(found: Mapping[str, Any], path: str | Path) -> None:
    """Write a PNG of `Tradeoff.to_json()`: additional time in percent over the whole budget."""
    from matplotlib.figure import Figure

    state, plain, least = found["state_bytes"], found["plain_bytes"], found["least_bytes"]
    points = [p for p in found["points"] if p["feasible"]]
    unit, name = unit_of(plain + state)
    figure = Figure(figsize=(8.5, 5.2))
    figure.subplots_adjust(left=0.09, right=0.97, bottom=0.11, top=0.87)
    axes = figure.subplots()
    right = max([plain + state, *(p["total_budget_bytes"] for p in points)]) / unit
    left = min(p["total_budget_bytes"] for p in found["points"]) / unit
    if points:
        _draw_points(axes, points, unit, found["plain_seconds"])
    if least is not None:
        end = (least + state) / unit
        axes.axvspan(0, end, color=_TOO_LITTLE, alpha=0.25, linewidth=0)
        axes.annotate(
            f"nothing found below {show_size(least + state)}", (end, 0.5),
            xycoords=("data", "axes fraction"), xytext=(-6, 0), textcoords="offset points",
            ha="right", va="center", rotation=90, fontsize=9,
        )  # fmt: skip
        left = min(left, end)
    margin = 0.12 * (right - left) or 0.1 * right
    axes.set_xlim(max(left - 1.6 * margin, 0), right + margin)
    axes.set_ylim(bottom=0)
    axes.set_xlabel(f"budget, {name} ({show_size(state)} of it parameters and constants)")
    axes.set_ylabel("additional time of a run, %")
    axes.grid(alpha=0.25)
    percent = max(plain, 1) / 100

    def share(budget: Any) -> Any:
        return (budget * unit - state) / percent

    def budget(share: Any) -> Any:
        return (share * percent + state) / unit

    top = axes.secondary_xaxis("top", functions=(share, budget))
    top.set_xlabel(f"share of the {show_size(plain)} that it takes without recomputation, %")
    if points:
        axes.legend(loc="upper right", fontsize=9)
    save_figure(figure, Path(path))


def _draw_points(axes: Any, points: list[dict[str, Any]], unit: float, plain: float) -> None:
    """Steps between the points, largest budget first: a plan fits all larger budgets, and what
    is proven for a budget holds for all smaller ones."""
    budgets = [p["total_budget_bytes"] / unit for p in points]
    extra = [100 * p["extra"] for p in points]
    axes.plot(
        budgets, extra, "o-", color=_OURS, markersize=5, drawstyle="steps-pre",
        label="plans; number of instructions that run again",
    )  # fmt: skip
    proven = [(b, 100 * max(p["bound_seconds"] / plain - 1, 0.0))
              for b, p in zip(budgets, points, strict=True)
              if p["bound_seconds"] is not None and plain]  # fmt: skip
    if proven:
        below = list(zip(*proven, strict=True))
        axes.fill_between(
            *below, step="post", color=_PROVEN, alpha=0.3, linewidth=0, label="proven impossible"
        )
        axes.plot(*below, "_", color=_PROVEN, markersize=10, markeredgewidth=2)
    for budget, cost, point in zip(budgets, extra, points, strict=True):
        if point["made_again"]:
            axes.annotate(
                str(point["made_again"]), (budget, cost), xytext=(5, 5),
                textcoords="offset points", fontsize=8, color=_OURS,
            )  # fmt: skip
