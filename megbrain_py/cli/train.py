"""`megbrain train`: a training from a configuration file and settings, or a resumed one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megbrain_py.errors import DataError

if TYPE_CHECKING:
    from megbrain_py.training.config import TrainConfig
    from megbrain_py.training.trainer import Outcome

_MASKS = "segm_"  # figures of masks begin with this


def train(words: Sequence[str], resume: str | None, *, show: str = "") -> int:
    """Train; 0 when it ran to the end, 130 when a signal stopped it (its state is saved).

    show: "config" prints the settings instead, "memory" what a step costs within less memory.
    """
    from megbrain_py.training import settings
    from megbrain_py.training.devices import join_launched, on_devices
    from megbrain_py.training.shards import first, leads

    join_launched()
    config, resumed = first(lambda: _config(words, resume))
    if show == "config":
        if leads():
            print(settings.to_toml(config), end="")
        return 0
    if show == "memory":
        on_devices(config, show_memory)
        return 0
    outcome = on_devices(config, lambda own: run(own, resume=resumed))
    return 0 if outcome.finished else 130


def _config(words: Sequence[str], resume: str | None) -> tuple[TrainConfig, bool]:
    """What to train, and whether to go on with it."""
    from megbrain_py.training import settings
    from megbrain_py.training.config import TrainConfig
    from megbrain_py.training.trainer import CONFIG_FILE

    files = [word for word in words if "=" not in word]
    overrides = [word for word in words if "=" in word]
    if len(files) > 1:
        raise DataError(f"expected one configuration file, found {' and '.join(files)}")
    file = Path(files[0]) if files else None
    if resume and (resume.endswith(".toml") or "=" in resume):
        # `--resume CONFIG.toml` and `--resume key=value`: the word is no run, but a setting
        return _config([*words, resume], "")
    if resume:  # the run's own configuration; settings may lengthen it
        if file is not None:
            raise DataError(f"--resume {resume} reads {resume}/{CONFIG_FILE}: leave {file} away")
        file = Path(resume) / CONFIG_FILE
        if not file.is_file():
            raise DataError(f"--resume {resume}: no run's folder: it has no {CONFIG_FILE}")
    config = settings.read(TrainConfig, file, overrides)
    if resume == "" and file is None and not config.data.train:
        return _config(words, config.output)  # only output= says which run
    if resume:
        config = replace(config, output=resume)
    if resume is not None and config.fit_batch:
        config = _with_batch_of(Path(config.output), config)
    return config, resume is not None


def run(config: TrainConfig, *, resume: bool = False) -> Outcome:
    """A training on this rank, shown by one, with its last figures as a table."""
    from megbrain_py.training.assemble import assemble
    from megbrain_py.training.progress import display

    shown = display()
    outcome = assemble(config, shown).run(resume=resume)
    if outcome.figures:
        shown.message(figures_text(outcome.figures))
    if outcome.finished:
        shown.message(f"done: {config.output}")
    return outcome


def _with_batch_of(run: Path, config: TrainConfig) -> TrainConfig:
    """The configuration with the batch that fitted when the run began."""
    from megbrain_py.training import settings
    from megbrain_py.training.trainer import CONFIG_FILE

    if not (run / CONFIG_FILE).is_file():
        return config
    begun = settings.read(type(config), run / CONFIG_FILE)
    return replace(config, batch_size=begun.batch_size, fit_batch=False)


def show_memory(config: TrainConfig) -> None:
    """What a step costs within less memory, as a table and a picture."""
    from megbrain_py.training.assemble import assemble
    from megbrain_py.training.memory import time_against_memory
    from megbrain_py.training.progress import display
    from megbrain_py.training.shards import first

    shown = display()
    trainer = assemble(config if config.fit_batch else replace(config, memory=""), shown)
    shown.message(first(lambda: time_against_memory(trainer)))


def figures_text(figures: Mapping[str, Any]) -> str:
    """The 12 numbers (of boxes, of masks) and AP per class; "" when nothing was measured."""
    if not figures:
        return ""

    def number(value: object) -> str:
        return f"{value:6.3f}" if isinstance(value, float) else "   -  "

    plain = {n: v for n, v in figures.items() if not isinstance(v, dict) and n != "epoch"}
    masks = {n.removeprefix(_MASKS): v for n, v in plain.items() if n.startswith(_MASKS)}
    boxes = {n: v for n, v in plain.items() if not n.startswith(_MASKS)}
    kinds = {"": boxes, _MASKS: masks} if masks else {"": boxes}
    lines = [
        ("masks: " if kind else "") + "  ".join(f"{n} {number(v).strip()}" for n, v in all.items())
        for kind, all in kinds.items()
    ]
    columns = [f"{kind}{name}_per_class" for kind in kinds for name in ("AP", "AP50")]
    found = [figures[name] for name in columns if isinstance(figures.get(name), dict)]
    if len(found) == len(columns):
        width = max(map(len, found[0]), default=5)
        titles = ("AP", "AP50", "mask AP", "mask AP50")[: len(columns)]
        lines.append(f"{'class':<{width}}" + "".join(f"  {title:>6}" for title in titles))
        for name in found[0]:
            values = zip(titles, found, strict=True)
            row = (f"  {number(v.get(name)):>{max(6, len(title))}}" for title, v in values)
            lines.append(f"{name:<{width}}" + "".join(row))
    return "\n".join(lines)
