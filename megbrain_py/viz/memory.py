"""The memory of a plan over time: what is live at each instruction, and what fills the peak."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from megbrain_py.plan import Plan, Slot
from megbrain_py.plan_memory import MemoryProfile, memory_profile
from megbrain_py.planning.sizes import show_size, unit_of
from megbrain_py.viz.curves import save_figure

_AGAIN = "#009e73"  # of instructions that run again, and of what they make


def draw_memory(plan: Plan, path: str | Path, title: str = "") -> MemoryProfile:
    """Write a PNG: bytes live at each instruction, the arena's height, the lower bound, the peak.

    Of a plan under a budget also what is live without recomputation, and which instructions make
    values again. Below every block as a rectangle of its lifetime (across) and its place in the
    arena (up).
    """
    from matplotlib.figure import Figure

    profile = memory_profile(plan)
    figure = Figure(figsize=(12, 9))
    figure.subplots_adjust(left=0.08, right=0.98, bottom=0.07, top=0.93, hspace=0.18)
    above, below = figure.subplots(2, 1, sharex=True)
    unit, name = unit_of(profile.arena_bytes)
    steps = np.arange(len(profile.live))
    above.fill_between(steps, profile.live / unit, step="mid", color="#56b4e9", label="values")
    if profile.workspace.any():
        above.fill_between(
            steps,
            profile.workspace / unit,
            step="mid",
            color="#e69f00",
            label="workspace of kernels",
        )
    highest = _draw_without_recomputation(above, plan, unit)
    _mark_again(above, plan)
    above.axhline(
        profile.arena_bytes / unit, color="#d55e00",
        label=f"arena: {profile.arena_bytes / unit:,.2f} {name}",
    )  # fmt: skip
    above.axhline(
        profile.lower_bound / unit, color="black", linestyle="--",
        label=f"lower bound for this order: {profile.lower_bound / unit:,.2f} {name}",
    )  # fmt: skip
    _mark_peak(above, plan, profile, unit, name)
    above.set_ylabel(f"{name} live")
    above.set_ylim(0, max(profile.arena_bytes * 1.22, highest * 1.32) / unit or 1)
    above.legend(loc="upper right", fontsize=9, ncols=2)
    above.set_title(title or _title(plan))
    _draw_blocks(below, plan, profile, unit)
    below.set_ylabel(f"place in the arena, {name}")
    below.set_xlabel("instruction")
    below.set_xlim(-0.5, len(profile.live) - 0.5)
    save_figure(figure, Path(path))
    return profile


def _title(plan: Plan) -> str:
    title = f"memory of a plan of {len(plan.instructions)} instructions"
    if plan.budget is None:
        return title
    allowed, again = show_size(max(plan.budget.budget, 0)), len(plan.memory.again)
    return f"{title} within {allowed}: {again} run again, {plan.budget.extra:+.1%} time"


def _draw_without_recomputation(axes: Any, plan: Plan, unit: float) -> int:
    """What the plan that makes nothing twice holds, over the same width; its most bytes."""
    if plan.budget is None or not plan.memory.again:
        return 0
    live = np.array(plan.budget.vanilla_live)
    steps = np.linspace(0, len(plan.instructions) - 1, len(live))
    axes.plot(
        steps, live / unit, color="#666666", linewidth=1.2,
        label=f"without recomputation: {show_size(int(live.max()))} ({len(live)} instructions)",
    )  # fmt: skip
    return int(live.max())


def _mark_again(axes: Any, plan: Plan) -> None:
    """Ticks at the bottom for instructions that make values again."""
    again = plan.memory.again
    if again:
        axes.plot(
            again, np.full(len(again), 0.015), "|", color=_AGAIN, markersize=11,
            transform=axes.get_xaxis_transform(), label="runs again, and what it makes",
        )  # fmt: skip


def _mark_peak(axes: Any, plan: Plan, profile: MemoryProfile, unit: float, name: str) -> None:
    if not plan.instructions:
        return
    step = plan.instructions[profile.peak]
    largest = [
        f"  {slot.type.nbytes / unit:,.2f} {name}  {slot.label} {slot.type}"
        for slot in profile.at_peak[:4]
    ]
    text = "\n".join(
        [
            f"peak {profile.peak_bytes / unit:,.2f} {name} at instruction {profile.peak}: "
            f"{step.kernel}, from {step.origin}",
            *largest,
        ]
    )
    axes.axvline(profile.peak, color="#cc79a7", linewidth=1)
    left = profile.peak < len(profile.live) / 2
    above = bool(plan.memory.again)  # there is room up to what it takes without recomputation
    axes.annotate(
        text, (profile.peak, profile.arena_bytes / unit if above else profile.peak_bytes / unit),
        xytext=(8 if left else -8, 8 if above else -8), textcoords="offset points",
        va="bottom" if above else "top", ha="left" if left else "right", fontsize=8,
        multialignment="left",
        bbox={"facecolor": "white", "alpha": 0.85, "edgecolor": "#cc79a7"},
    )  # fmt: skip


def _draw_blocks(axes: Any, plan: Plan, profile: MemoryProfile, unit: float) -> None:
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    slots = [s for s in plan.slots if s.arena == "scratch"]
    end = len(profile.live) - 1
    patches = [
        Rectangle(
            (max(s.first, 0) - 0.5, s.offset / unit),
            min(s.last, end) - max(s.first, 0) + 1, s.type.nbytes / unit,
        )
        for s in slots
    ]  # fmt: skip
    again = {(s.offset, s.first) for t in plan.memory.again
             for s in map(plan.slots.__getitem__, plan.instructions[t].outputs)}  # fmt: skip
    colours = [
        _AGAIN if (s.offset, s.first) in again
        else "#e69f00" if s.label == "workspace" else _shade(slots, i)
        for i, s in enumerate(slots)
    ]  # fmt: skip
    axes.add_collection(
        PatchCollection(patches, facecolors=colours, edgecolors="white", linewidths=0.3)
    )
    axes.axvline(profile.peak, color="#cc79a7", linewidth=1)
    axes.set_ylim(0, profile.arena_bytes / unit or 1)


def _shade(slots: Sequence[Slot], index: int) -> str:
    """Neighbours in blues that differ."""
    return ("#56b4e9", "#0072b2", "#7fc8f0", "#3a94cf", "#9ad4f5")[index % 5]
