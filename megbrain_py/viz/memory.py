"""The memory of a plan over time: what is live at each instruction, and what fills the peak."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from megbrain_py.plan import Plan, Slot
from megbrain_py.plan_memory import MemoryProfile, memory_profile
from megbrain_py.planning.sizes import unit_of
from megbrain_py.viz.curves import save_figure


def draw_memory(plan: Plan, path: str | Path, title: str = "") -> MemoryProfile:
    """Write a PNG: bytes live at each instruction, the arena's height, the lower bound, the peak.

    Below it every block as a rectangle of its lifetime (across) and its place in the arena (up).
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
    above.set_ylim(0, profile.arena_bytes / unit * 1.22 or 1)
    above.legend(loc="upper right", fontsize=9, ncols=2)
    above.set_title(title or f"memory of a plan of {len(plan.instructions)} instructions")
    _draw_blocks(below, plan, profile, unit)
    below.set_ylabel(f"place in the arena, {name}")
    below.set_xlabel("instruction")
    below.set_xlim(-0.5, len(profile.live) - 0.5)
    save_figure(figure, Path(path))
    return profile


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
    axes.annotate(
        text, (profile.peak, profile.peak_bytes / unit), xytext=(8 if left else -8, -8),
        textcoords="offset points", va="top", ha="left" if left else "right", fontsize=8,
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
    colours = ["#e69f00" if s.label == "workspace" else _shade(slots, i)
               for i, s in enumerate(slots)]  # fmt: skip
    axes.add_collection(
        PatchCollection(patches, facecolors=colours, edgecolors="white", linewidths=0.3)
    )
    axes.axvline(profile.peak, color="#cc79a7", linewidth=1)
    axes.set_ylim(0, profile.arena_bytes / unit or 1)


def _shade(slots: Sequence[Slot], index: int) -> str:
    """Neighbours in blues that differ."""
    return ("#56b4e9", "#0072b2", "#7fc8f0", "#3a94cf", "#9ad4f5")[index % 5]
