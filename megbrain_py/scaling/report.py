"""Predictions as a table, as JSON and as a picture beside the hours that the MegDet talk names."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from megbrain_py.printing import columns
from megbrain_py.scaling.predict import Prediction
from megbrain_py.viz.curves import save_figure

MODEL = "a model, not a measurement"
TALK_HOURS = {16: 33.2, 64: 11.2, 256: 4.1}  # of a whole training, by images in a batch

_HEAD = ("devices", "batch", "step s", "images/s", "efficiency", "h/epoch", "blocking", "exposed",
         "hidden")  # fmt: skip


def table(predictions: Sequence[Prediction]) -> str:
    """A line for each number of devices. The last three columns are shares of the step: collectives
    that the ranks wait for at once; overlapping ones beyond the work beside them; behind it."""
    rows: list[tuple[str, ...]] = [_HEAD]
    for found in predictions:
        step = found.step
        shares = [
            f"{part / step.seconds:.1%}" for part in (step.blocking, step.exposed, step.hidden)
        ]
        rows.append(
            (str(found.devices), str(found.batch), f"{step.seconds:.3f}",
             f"{found.images_per_second:.2f}", f"{found.efficiency:.1%}",
             f"{found.epoch_hours:.2f}", *shares)
        )  # fmt: skip
    return "\n".join(columns(rows))


def write_json(
    path: Path, predictions: Sequence[Prediction], assumptions: Mapping[str, Any]
) -> None:
    """What was assumed, and the rows."""
    document = {
        "what": MODEL,
        "assumptions": dict(assumptions),
        "predictions": [one.to_json() for one in predictions],
    }
    path.write_text(json.dumps(document, indent=1) + "\n")


def draw(path: Path, predictions: Sequence[Prediction], title: str) -> None:
    """Left: hours of an epoch by devices. Right: how much faster than with 16 images, by images in
    a batch, beside the talk's."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.8))
    figure.subplots_adjust(left=0.07, right=0.98, bottom=0.12, top=0.82, wspace=0.22)
    figure.suptitle(f"{title}\n{MODEL}", fontsize=10)
    hours, faster = figure.subplots(1, 2)
    devices = [one.devices for one in predictions]
    first = predictions[0]
    ideal = [first.epoch_hours * first.devices / count for count in devices]
    hours.loglog(devices, ideal, "--", color="gray", label=f"{first.devices} device / devices")
    hours.loglog(devices, [one.epoch_hours for one in predictions], "o-", label="model")
    _axis(hours, devices, "devices", "hours for one epoch of COCO")
    _draw_beside_the_talk(faster, predictions)
    save_figure(figure, path)


def _draw_beside_the_talk(axes: Any, predictions: Sequence[Prediction]) -> None:
    """Other hardware and software, and whole trainings: only the speed-ups compare."""
    base = next((one for one in predictions if one.batch >= min(TALK_HOURS)), predictions[-1])
    shown = [one for one in predictions if one.batch >= base.batch]
    batches = sorted({*TALK_HOURS, *(one.batch for one in shown)})
    axes.loglog(batches, [b / batches[0] for b in batches], "--", color="gray", label="ideal")
    axes.loglog(
        [one.batch for one in shown],
        [base.epoch_hours / one.epoch_hours * base.batch / batches[0] for one in shown],
        "o-", label="model",
    )  # fmt: skip
    axes.loglog(
        list(TALK_HOURS), [TALK_HOURS[16] / hours for hours in TALK_HOURS.values()], "s-",
        color="#d55e00", label="the MegDet talk, on its GPUs",
    )  # fmt: skip
    for batch, hours in TALK_HOURS.items():
        axes.annotate(f"{hours} h", (batch, TALK_HOURS[16] / hours), (6, -12),
                      textcoords="offset points", fontsize=9)  # fmt: skip
    axes.margins(y=0.1)
    _axis(axes, batches, "images in a batch", "times as fast as with 16 images")


def _axis(axes: Any, ticks: Sequence[int], across: str, up: str) -> None:
    axes.set_xticks(list(ticks), [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=9)
