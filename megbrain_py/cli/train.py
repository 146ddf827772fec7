"""`megbrain train`: a training from a configuration file and settings, or a resumed one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from megbrain_py.errors import DataError


def train(words: Sequence[str], resume: str | None, *, show: bool = False) -> int:
    """Train; 0 when it ran to the end, 130 when a signal stopped it (its state is saved)."""
    from megbrain_py.training import settings
    from megbrain_py.training.assemble import assemble
    from megbrain_py.training.config import TrainConfig
    from megbrain_py.training.progress import display
    from megbrain_py.training.trainer import CONFIG_FILE

    files = [word for word in words if "=" not in word]
    overrides = [word for word in words if "=" in word]
    if len(files) > 1:
        raise DataError(f"expected one configuration file, found {' and '.join(files)}")
    file = Path(files[0]) if files else None
    if resume and (resume.endswith(".toml") or "=" in resume):
        # `--resume CONFIG.toml` and `--resume key=value`: the word is no run, but a setting
        return train([*words, resume], "", show=show)
    if resume:  # the run's own configuration; settings may lengthen it
        if file is not None:
            raise DataError(f"--resume {resume} reads {resume}/{CONFIG_FILE}: leave {file} away")
        file = Path(resume) / CONFIG_FILE
        if not file.is_file():
            raise DataError(f"--resume {resume}: no run's folder: it has no {CONFIG_FILE}")
    config = settings.read(TrainConfig, file, overrides)
    if resume == "" and file is None and not config.data.train:
        return train(words, config.output, show=show)  # only output= says which run
    if resume:
        config = replace(config, output=resume)
    if show:
        print(settings.to_toml(config), end="")
        return 0
    shown = display()
    outcome = assemble(config, shown).run(resume=resume is not None)
    if outcome.figures:
        shown.message(figures_text(outcome.figures))
    if outcome.finished:
        shown.message(f"done: {config.output}")
    return 0 if outcome.finished else 130


def figures_text(figures: Mapping[str, Any]) -> str:
    """The 12 numbers and AP per class as a table; "" when nothing was measured."""
    if not figures:
        return ""

    def number(value: object) -> str:
        return f"{value:6.3f}" if isinstance(value, float) else "   -  "

    plain = {n: v for n, v in figures.items() if not isinstance(v, dict) and n != "epoch"}
    lines = ["  ".join(f"{n} {number(v).strip()}" for n, v in plain.items())]
    per_class = figures.get("AP_per_class")
    fifty = figures.get("AP50_per_class")
    if isinstance(per_class, dict) and isinstance(fifty, dict):
        width = max(map(len, per_class), default=5)
        lines.append(f"{'class':<{width}}      AP    AP50")
        lines += [
            f"{name:<{width}}  {number(ap)}  {number(fifty.get(name))}"
            for name, ap in per_class.items()
        ]
    return "\n".join(lines)
