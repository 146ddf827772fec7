"""Tables and a picture of what benchmarks/memory_budget.py measured, with verdicts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

Row: TypeAlias = Mapping[str, Any]

# Points of extra time that a step may take above the bound, by share of the memory.
POINTS = {0.5: 0.02, 0.35: 0.04}
MIB = 2**20
COLOURS = {"resnet50": "#0072b2", "detector": "#d55e00", "resnet1001": "#009e73"}


def report(results: Path) -> None:
    """Print a table of each part; draw beside the results."""
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    tables = {"engine": engine_table, "torch": torch_table, "batch": batch_table}
    for part, table in tables.items():
        own = [row for row in rows if row["part"] == part]
        if own:
            print("\n".join(table(own)), "\n", sep="")
    draw(rows, results.with_suffix(".png"))


def engine_table(rows: Sequence[Row]) -> list[str]:
    """What was promised of each step under a budget, and what was measured."""
    lines = [
        "| step | memory | arena, MiB | over most live | resident | results | bound | predicted | "
        "measured | step, predicted / measured | |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        head = f"| {row['model']} | {row['share']:.0%} |"
        if "refused" in row:
            lines.append(f"{head} {row['refused']} |")
            continue
        time = row["time"]
        measured, bound = time["ratio"] - 1, row["least_extra"]
        before = row["resident_before_arena"] + row["planned_bytes"]
        resident = row["most_resident"] / before - 1
        step = row["predicted_seconds"] / time["ours"]
        equal = row["digest"] == row["vanilla"]["digest"]
        missed = [
            name
            for name, held in (
                ("arena", row["committed_bytes"] == row["planned_bytes"]),
                ("resident", abs(resident) <= 0.02),
                ("results", equal),
                ("time", measured <= bound + POINTS.get(row["share"], 0.02)),
                ("prediction", abs(step - 1) <= 0.1),
            )
            if not held
        ]
        lines.append(
            f"{head} {row['planned_bytes'] / MIB:,.1f} of {row['vanilla_bytes'] / MIB:,.1f} | "
            f"{row['planned_bytes'] / row['most_live_bytes'] - 1:.2%} | {resident:+.2%} | "
            f"{'equal' if equal else 'DIFFER'} | {bound:+.1%} | "
            f"{row['predicted_seconds'] / row['vanilla_seconds'] - 1:+.1%} | "
            f"{measured:+.1%} {_interval(time)} | {row['predicted_seconds']:.3f} / "
            f"{time['ours']:.3f} s | {'misses ' + ', '.join(missed) if missed else 'holds'} |"
        )
    return lines


def torch_table(rows: Sequence[Row]) -> list[str]:
    """What a way of torch's saves and costs, and ours at the same memory of a step."""
    lines = [
        "| step | torch's way | its step, MiB | its time | ours, MiB | our time | |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        theirs = row["time"]["ratio"] - 1
        head = (
            f"| {row['model']} | {row['name']} | {row['plain_bytes'] / MIB:,.0f} -> "
            f"{row['bytes'] / MIB:,.0f} | {theirs:+.1%} {_interval(row['time'])} |"
        )
        if "our_time" not in row:
            lines.append(f"{head} {row['ours']['refused']} |")
            continue
        ours = row["our_time"]["ratio"] - 1
        holds = ours < theirs and row["our_bytes"] <= row["bytes"]
        lines.append(
            f"{head} {row['our_vanilla_bytes'] / MIB:,.0f} -> {row['our_bytes'] / MIB:,.0f} | "
            f"{ours:+.1%} {_interval(row['our_time'])} | {'holds' if holds else 'misses'} |"
        )
    return lines


def batch_table(rows: Sequence[Row]) -> list[str]:
    """Batches of the detector within the limit."""
    lines = [
        "| pictures | torchvision's most | resident, MiB | time of a picture / unbudgeted | |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        head = f"| {row['pictures']} | {row['theirs']} |"
        if "refused" in row:
            lines.append(f"{head} {row['refused']} |")
            continue
        share = row["time_of_a_picture"]
        holds = row["most_resident"] <= 4 << 30 and share <= 1.15
        holds = holds and row["pictures"] >= 3 * row["theirs"]
        lines.append(
            f"{head} {row['most_resident'] / MIB:,.0f} | {share:.3f} | "
            f"{'holds' if holds else 'misses'} |"
        )
    return lines


def _interval(time: Row) -> str:
    return f"[{time['low'] - 1:+.1%}, {time['high'] - 1:+.1%}]"


def draw(rows: Sequence[Row], path: Path) -> None:
    """A PNG: extra time against memory, on the engine and beside torch."""
    from matplotlib.figure import Figure

    from megbrain_py.viz.curves import save_figure

    figure = Figure(figsize=(12, 5))
    left, right = figure.subplots(1, 2)
    _draw_engine(left, [row for row in rows if row["part"] == "engine" and "time" in row])
    _draw_torch(right, [row for row in rows if row["part"] == "torch" and "our_time" in row])
    for axes in (left, right):
        axes.set_ylabel("extra time of a step, %")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8)
    figure.tight_layout()
    save_figure(figure, path)


def _draw_engine(axes: Any, rows: Sequence[Row]) -> None:
    axes.set_title("under a budget: measured, and no schedule can cost less")
    axes.set_xlabel("scratch memory, % of the unbudgeted plan")
    for model, colour in COLOURS.items():
        own = sorted((r for r in rows if r["model"] == model), key=lambda r: r["share"])
        if not own:
            continue
        shares = [100 * r["planned_bytes"] / r["vanilla_bytes"] for r in own]
        axes.plot(shares, [100 * r["least_extra"] for r in own], "_--", color=colour, linewidth=1)
        _points(axes, shares, [r["time"] for r in own], colour, "o", model)


def _draw_torch(axes: Any, rows: Sequence[Row]) -> None:
    axes.set_title("at equal memory of a step, beside torch")
    axes.set_xlabel("memory of a step, MiB")
    for model, colour in COLOURS.items():
        own = [r for r in rows if r["model"] == model]
        if not own:
            continue
        for key, memory, marker, name in (
            ("our_time", "our_bytes", "o", "ours"),
            ("time", "bytes", "^", "torch"),
        ):
            sizes = [r[memory] / MIB for r in own]
            _points(axes, sizes, [r[key] for r in own], colour, marker, f"{model}, {name}")


def _points(
    axes: Any, x: Sequence[float], times: Sequence[Row], colour: str, marker: str, label: str
) -> None:
    extra = [100 * (t["ratio"] - 1) for t in times]
    below = [100 * (t["ratio"] - t["low"]) for t in times]
    above = [100 * (t["high"] - t["ratio"]) for t in times]
    axes.errorbar(
        x, extra, [below, above], fmt=marker, color=colour, capsize=3, markersize=6, label=label
    )
