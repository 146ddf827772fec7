"""What a training starts from: weights of a run, a checkpoint, another program; frozen parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from megbrain_py.dtypes import Array
from megbrain_py.errors import DataError
from megbrain_py.training.config import ModelConfig
from megbrain_py.training.runs import find_checkpoint
from megbrain_py.weights import fit, read_weights

Report: TypeAlias = Callable[[str], None]


def arrays_of(path: str | Path) -> dict[str, Array]:
    """The model's arrays of a run's folder, a checkpoint of ours, a .pth or safetensors file."""
    path = Path(path)
    if path.is_dir() or path.suffix == ".toml" or not path.exists():
        return dict(find_checkpoint(path)[1].weights)
    found = read_weights(path)
    if any(name.startswith("model/") for name in found.tensors):
        return dict(find_checkpoint(path)[1].weights)  # which checks its checksum
    return found.arrays


def load_weights(
    model: Any, path: str, leave_out: Sequence[str] = (), report: Report = print
) -> None:
    """Write a file's weights into the model. DataError lists what does not fit by name or shape.

    leave_out: parts, by the beginning of their names, that keep the model's own values.
    """
    own = model.named_state()
    try:
        found = fit(arrays_of(path), {n: p.type for n, p in own.items()}, leave_out)
    except DataError as error:
        text = str(error)
        raise DataError(text if text.startswith(path) else f"{path}: {text}") from None
    model.load_state_dict(found.arrays, strict=False)
    report(f"weights: {len(found.arrays)} of {len(own)} arrays from {path}")
    for note in found.notes:
        report(f"  {note}")


def freeze(model: Any, config: ModelConfig, report: Report = print) -> None:
    """Keep the first `freeze_at` parts of the backbone as they are."""
    body, parts = model.backbone.body, config.freeze_at
    most = 1 + len(body.channels)
    if parts > most:
        raise DataError(
            f"config: model.freeze_at expects at most {most} (the stem, {', '.join(body.channels)})"
            f", found {parts}"
        )
    before = sum(p.value.size for p in model.parameters())
    body.freeze_at(parts)
    kept = before - sum(p.value.size for p in model.parameters())
    names = ["stem", *body.channels][:parts]
    report(f"frozen: {', '.join(names)}: {kept:,} weights stay, and their batch norms' statistics")
    if not config.weights:
        report("warning: model.freeze_at keeps weights that nothing has trained (no model.weights)")
