"""The study's pictures, from the files that its parts wrote."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from examples.large_batch import balance, moments, results
from examples.large_batch.accuracy import finished
from examples.large_batch.intervals import Interval, student
from examples.large_batch.setting import LARGE, PHASES, SMALL, Study
from examples.large_batch.training import ARMS, SWEEP, TWICE, Arm
from megbrain_py.viz.curves import save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LAYERS = ("bn1", "layer1.0.bn2", "layer2.0.bn2", "layer3.0.bn2", "layer4.0.bn2")
_BODY = "backbone.body."
_SCORES = (
    ("AP", "C0", "running statistics"),
    ("precise_AP", "C1", "statistics over 256 pictures"),
)
_THEORY = {"color": "black", "linestyle": "--", "linewidth": 1.2}


def draw(study: Study, folder: Path) -> list[Path]:
    """Write those pictures whose parts are there; their paths."""
    needs = {
        "gradient_variance": (_gradient_variance, "gradients/late.json"),
        "linear_rule": (_linear_rule, "walks/late.json"),
        "moments": (_moments, "moments/late.json"),
        "balance": (_balance, "balance/late.json"),
        "accuracy": (_accuracy, "accuracy"),
    }
    written = []
    for name, (picture, part) in needs.items():
        if (study.out / part).exists():
            written.append(folder / f"{name}.png")
            save_figure(picture(study), written[-1])
            _shrink(written[-1])
    return written


def _shrink(path: Path) -> None:
    """Few colours are enough for curves, and take a third of the bytes."""
    from PIL import Image

    with Image.open(path) as picture:
        fewer = picture.convert("RGB").quantize(64, dither=Image.Dither.NONE)
    fewer.save(path, optimize=True)


def _figure(panels: int, width: float, height: float = 3.9) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(1, panels, squeeze=False)[0]


def _band(axes: Axes, x: Sequence[int], y: Sequence[Interval], label: str, color: str) -> None:
    axes.plot(x, [one.value for one in y], "o-", color=color, markersize=4, label=label)
    axes.fill_between(
        x, [one.low for one in y], [one.high for one in y], color=color, alpha=0.2, linewidth=0
    )


def _batch_axis(axes: Axes, sizes: Sequence[int], *, log: bool = True) -> None:
    from matplotlib.ticker import LogLocator

    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.set_xlabel("batch, pictures")
    if log:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("")
    axes.grid(alpha=0.25)


def _errorbar(axes: Axes, x: Any, y: Sequence[Interval], **style: Any) -> None:
    value = np.array([one.value for one in y])
    below = value - np.array([one.low for one in y])
    above = np.array([one.high for one in y]) - value
    finite = np.nan_to_num(np.maximum([below, above], 0), posinf=0.0)
    axes.errorbar(x, value, yerr=finite, capsize=3, **style)


def _gradient_variance(study: Study) -> Figure:
    figure, panels = _figure(len(PHASES), 12)
    sizes = np.array(study.batches)
    for axes, phase in zip(panels, PHASES, strict=True):
        for norms, color in (("running", "C0"), ("batch", "C1")):
            found = results.gradient_variance(study, phase, norms)
            text = f"{norms} statistics: slope {found.slope.text(2)}"
            _band(axes, study.batches, found.relative, text, color)
        axes.plot(sizes, 1 / sizes, **_THEORY, label="theory: slope -1")
        scale = results.noise_scale(study, phase)
        axes.set_title(f"{phase}; noise scale {scale.text()} pictures", fontsize=10)
        _batch_axis(axes, study.batches)
        axes.legend(fontsize=8)
    panels[0].set_ylabel("variance of the gradient, over that at batch 1")
    return figure


def _linear_rule(study: Study) -> Figure:
    figure, (ratio, mean) = _figure(2, 11)
    x = np.arange(len(PHASES))
    walks = [results.real_walk(study, phase) for phase in PHASES]
    frozen = {
        norms: [results.frozen_ratio(study, phase, norms) for phase in PHASES]
        for norms in ("running", "batch")
    }
    for shift, color, label, values in (
        (-0.15, "C0", "weights frozen, running statistics", frozen["running"]),
        (0.0, "C1", "weights frozen, batch's statistics", frozen["batch"]),
        (0.15, "C3", "weights move", [w.ratio for w in walks]),
    ):
        _errorbar(ratio, x + shift, values, fmt="o", color=color, label=label)
    ratio.axhline(1, **_THEORY, label="theory: 1")
    steps = results.large(study) // SMALL
    ratio.set_ylabel(f"variance of {steps} small steps over one large")
    ratio.set_ylim(bottom=0)
    _errorbar(mean, x - 0.1, [w.distance for w in walks], fmt="o", color="C3",
              label="distance / length of the large step")  # fmt: skip
    _errorbar(mean, x + 0.1, [w.length for w in walks], fmt="s", color="C2",
              label="length / length of the large step")  # fmt: skip
    mean.axhline(0, **_THEORY, label="gradients that do not change: 0 and 1")
    mean.axhline(1, **_THEORY)
    mean.set_ylabel(f"mean way of {steps} small steps")
    for axes in (ratio, mean):
        axes.set_xticks(x, PHASES)
        axes.set_xlim(-0.5, len(PHASES) - 0.5)
        axes.set_xlabel("weights of the training by sync batch norm")
        axes.grid(alpha=0.25)
        axes.legend(fontsize=8)
    return figure


def _moments(study: Study) -> Figure:
    figure, panels = _figure(3, 13, 4.3)
    found = moments.errors(study, "late")
    sizes = np.array(study.batches)
    for axes, kind in zip(panels, ("mean", "var"), strict=False):
        for number, layer in enumerate(_LAYERS):
            curve = [Interval(**one) for one in found[_BODY + layer][kind]]
            _band(axes, study.batches, curve, layer, f"C{number}")
        start = found[_BODY + "layer4.0.bn2"][kind][0]["value"]
        axes.plot(sizes, start / np.sqrt(sizes), **_THEORY, label="slope -1/2")
        _batch_axis(axes, study.batches)
        axes.legend(fontsize=7)
    panels[0].set_ylabel("error of the mean, in standard deviations")
    panels[1].set_ylabel("error of the variance, relative")
    names = list(found)
    for shift, kind, color in ((-0.15, "mean", "C0"), (0.15, "var", "C1")):
        slopes = [Interval(**found[name]["slopes"][kind]) for name in names]
        _errorbar(panels[2], np.arange(len(names)) + shift, slopes, fmt="o", color=color,
                  markersize=4, label=f"of the {kind}")  # fmt: skip
    panels[2].axhline(-0.5, **_THEORY, label="theory: -1/2")
    labels = [name.removeprefix(_BODY).replace("downsample.1", "shortcut") for name in names]
    panels[2].set_xticks(np.arange(len(names)), labels, rotation=90, fontsize=7)
    panels[2].set_ylabel("slope on log-log paper")
    panels[2].grid(alpha=0.25)
    panels[2].legend(fontsize=8)
    return figure


def _balance(study: Study) -> Figure:
    figure, (spread, mean, epochs) = _figure(3, 13)
    sizes = np.array(study.batches)
    names = {"rpn": "anchors", "roi": "boxes"}
    for part, color in (("rpn", "C0"), ("roi", "C1")):
        found = balance.statistics(study, "late", part)
        text = f"{names[part]}: slope {found.slope.text(2)}"
        _band(spread, study.batches, found.spread, text, color)
        spread.plot(sizes, found.spread[0].value / np.sqrt(sizes), **_THEORY,
                    label="theory: slope -1/2" if part == "roi" else None)  # fmt: skip
        _band(mean, study.batches, found.mean, f"{names[part]}: mean", color)
        low = [one.value for one in found.low]
        mean.plot(study.batches, low, "v:", color=color, markersize=4,
                  label=f"{names[part]}: 5 % quantile")  # fmt: skip
    _batch_axis(spread, study.batches)
    spread.set_ylabel("positive ratio: st. deviation / mean")
    _batch_axis(mean, study.batches, log=False)
    mean.set_ylabel("positive ratio, fixed weights")
    mean.set_ylim(bottom=0)
    _by_epoch(study, epochs)
    for axes in (spread, mean, epochs):
        axes.legend(fontsize=8)
    return figure


def _by_epoch(study: Study, axes: Axes) -> None:
    """The positive ratio of the second stage in the trainings; intervals over seeds."""
    for number, arm in enumerate(ARMS[:3]):
        runs = [f["epochs"] for f in finished(study, arm) if f["converged"]]
        if not runs:
            continue
        ratios = [student([run[e]["roi_ratio"] for run in runs]) for e in range(len(runs[0]))]
        x = np.arange(1, len(ratios) + 1) + 0.08 * (number - 1)
        _errorbar(axes, x, ratios, fmt="o-", color=f"C{number + 2}", markersize=4, label=title(arm))
    axes.set_xlabel("epoch")
    axes.set_ylabel("positive ratio of boxes in training")
    axes.grid(alpha=0.25)


def title(arm: Arm) -> str:
    """An arm in words."""
    norms = "frozen norms" if arm.bn_size == 0 else f"norms over {arm.bn_size}"
    if arm.batch == LARGE and arm.bn_size == SMALL:
        norms += " (local)"
    if arm.batch == LARGE == arm.bn_size:
        norms += " (sync)"
    return f"batch {arm.batch}, {norms}" + ("" if arm.warmup else ", no warm-up")


def _accuracy(study: Study) -> Figure:
    figure, (bars, twice, sweep) = _figure(3, 14, 4.2)
    rows = [*ARMS, *SWEEP]
    _by_arm(study, bars, rows, f"rate {study.rate:g} for 16 pictures")
    _by_arm(study, twice, TWICE, f"rate {2 * study.rate:g} for 16 pictures")
    _sweep(study, [arm for arm in rows if arm.batch == LARGE and arm.bn_size], sweep)
    bars.legend(fontsize=8, loc="lower left")
    sweep.legend(fontsize=8)
    return figure


def _by_arm(study: Study, axes: Axes, arms: Sequence[Arm], text: str) -> None:
    """A row for each arm that is there: mean, interval, each seed."""
    there = [arm for arm in arms if finished(study, arm)]
    there.sort(key=lambda arm: (arm.batch, arm.bn_size, arm.warmup))
    for row, arm in enumerate(there):
        for shift, (figure, color, _) in zip((-0.15, 0.15), _SCORES, strict=True):
            values = list(results.accuracies(study, arm, figure).values())
            if values:
                _point(axes, values, row + shift, color)
        failed = sum(not f["converged"] for f in finished(study, arm))
        if failed:
            of_all = f"{failed} of {len(finished(study, arm))} did not converge"
            axes.text(0.01, row - 0.32, of_all, fontsize=7, va="center")
    for _, color, label in _SCORES:
        axes.plot([], [], "o", color=color, label=label)
    axes.set_yticks(range(len(there)), [title(arm) for arm in there], fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.set_xlim(left=0)
    axes.set_xlabel("AP; mean over seeds, 95 % interval")
    axes.set_title(text, fontsize=10)
    axes.grid(alpha=0.25)


def _point(axes: Axes, values: Sequence[float], row: float, color: str) -> None:
    mean = student(values)
    half = mean.high - mean.value if np.isfinite(mean.high) else 0.0
    axes.errorbar(mean.value, row, xerr=half, fmt="o", color=color, capsize=3)
    axes.plot(values, [row] * len(values), "|", color=color, markersize=7, alpha=0.6)


def _sweep(study: Study, arms: Sequence[Arm], axes: Axes) -> None:
    """AP by pictures that share moments."""
    for figure, color, label in _SCORES:
        found = [(arm.bn_size, results.accuracies(study, arm, figure)) for arm in arms]
        some = sorted((size, list(values.values())) for size, values in found if values)
        if some:
            means = [student(values) for _, values in some]
            sizes = [size for size, _ in some]
            _errorbar(axes, sizes, means, fmt="o-", color=color, label=label)
    _batch_axis(axes, sorted(arm.bn_size for arm in arms), log=False)
    axes.set_xlabel(f"pictures that share moments, batch {LARGE}")
    axes.set_ylabel("AP")
