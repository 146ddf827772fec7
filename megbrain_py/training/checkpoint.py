"""Atomic checkpoints: one file that is either whole and checked, or refused with the reason."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from megbrain_py.dtypes import Array
from megbrain_py.errors import DataError
from megbrain_py.nn.serialize import write_atomically
from megbrain_py.parameter import Parameter

FORMAT = "megbrain_py.checkpoint"
VERSION = 1
_NAME = re.compile(r"step_(\d{8,})\.safetensors")
_SECTIONS = ("model", "optimizer", "average")


@dataclass(frozen=True)
class Checkpoint:
    """The state of a training after `step` steps.

    model, optimizer: arrays by name. config: the run's settings as plain data. extra: what else
    belongs to the run (class names, the best AP so far), plain data too. average: the averaged
    weights of a training that has them (`ema`), by the names of `model`.
    """

    step: int
    seed: int
    config: Mapping[str, Any]
    model: Mapping[str, Array]
    optimizer: Mapping[str, Array] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    average: Mapping[str, Array] = field(default_factory=dict)

    @property
    def weights(self) -> dict[str, Array]:
        """What a detector made of this state uses: averages where there are any."""
        return {**self.model, **self.average}

    def metadata(self) -> dict[str, Any]:
        """All but the arrays."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "step": self.step,
            "seed": self.seed,
            "config": dict(self.config),
            "extra": dict(self.extra),
        }


def path_of(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return folder / f"step_{step:08d}.safetensors"


def save(checkpoint: Checkpoint, folder: Path, keep: int = 3) -> Path:
    """Write `folder/step_N.safetensors` and remove all but the newest `keep`.

    The bytes go to a temporary file beside it, to the disk, and only then get the name: whoever
    finds the name finds a whole file, whenever the process or the machine stops.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob(".step_*"):  # left by a process that was killed while it wrote
        stale.unlink(missing_ok=True)
    target = path_of(folder, checkpoint.step)
    write(checkpoint, target)
    found = files(folder)
    for old in found[: max(len(found) - keep, 0)]:
        if old != target:
            old.unlink(missing_ok=True)
    return target


def write(checkpoint: Checkpoint, target: Path) -> None:
    """Write a checkpoint under any name; other readers see the old file or the new one, whole."""
    write_atomically(target, _encode(checkpoint))


def load(path: str | Path) -> Checkpoint:
    """Read and check a checkpoint. DataError names the file and what is wrong with it."""
    path = Path(path)
    text, arrays = _read(path)
    if text.get("format") != FORMAT:
        raise DataError(f"checkpoint {path}: is a safetensors file, but no checkpoint of ours")
    try:
        metadata = json.loads(text["metadata"])
        version, step, seed = metadata["version"], int(metadata["step"]), int(metadata["seed"])
        config, extra = dict(metadata["config"]), dict(metadata["extra"])
        if step < 0:
            raise ValueError(f"step {step}")
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise DataError(f"checkpoint {path}: its metadata cannot be read ({error!r})") from None
    if version != VERSION:
        raise DataError(
            f"checkpoint {path}: format version {version}, this program reads {VERSION}"
        )
    if text.get("checksum") != _checksum(text["metadata"], arrays):
        raise DataError(f"checkpoint {path}: the checksum does not fit: the file is damaged")
    parts: dict[str, dict[str, Array]] = {section: {} for section in _SECTIONS}
    for name, array in arrays.items():
        section, _, rest = name.partition("/")
        if section not in parts:
            raise DataError(f"checkpoint {path}: unknown section {section!r}")
        parts[section][rest] = array
    return Checkpoint(
        step, seed, config, parts["model"], parts["optimizer"], extra, parts["average"]
    )


def files(folder: Path) -> list[Path]:
    """The files named like checkpoints, oldest step first. Their contents are not looked at."""
    if not folder.is_dir():
        return []
    found = ((match, path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name)))
    return [path for _, path in sorted((int(match[1]), path) for match, path in found)]


def latest(folder: Path, report: Callable[[str], None] = print) -> Checkpoint | None:
    """The newest valid checkpoint of a folder, or None.

    Each newer file that is not valid is told to `report`, with the reason.
    """
    for path in reversed(files(folder)):
        try:
            found = load(path)
        except DataError as error:
            report(f"{error}; an older checkpoint is tried")
            continue
        if path_of(folder, found.step) != path:
            report(f"checkpoint {path}: holds step {found.step}; an older checkpoint is tried")
            continue
        return found
    return None


def _encode(checkpoint: Checkpoint) -> bytes:
    from safetensors.numpy import save as encode

    arrays = {
        f"{section}/{name}": np.asarray(array, order="C")
        for section in _SECTIONS
        for name, array in getattr(checkpoint, section).items()
    }
    metadata = json.dumps(checkpoint.metadata(), sort_keys=True)
    text = {
        "format": FORMAT,
        "metadata": metadata,
        "checksum": _checksum(metadata, arrays),
    }
    return bytes(encode(arrays, text))


def _checksum(metadata: str, arrays: Mapping[str, Array]) -> str:
    """SHA-256 of everything that is read back: metadata, names, types, shapes, bytes."""
    digest = hashlib.sha256(metadata.encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _read(path: Path) -> tuple[dict[str, str], dict[str, Array]]:
    """The text and the arrays of a safetensors file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="numpy") as opened:
            text = dict(opened.metadata() or {})
            arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise DataError(f"checkpoint {path}: there is no such file") from None
    except OSError as error:
        raise DataError(f"checkpoint {path}: cannot be read: {error}") from None
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"checkpoint {path}: not a whole safetensors file: {error}") from None
    return text, arrays


def load_state(own: Mapping[str, Parameter], given: Mapping[str, Array], what: str) -> None:
    """Write arrays into the parameters of the same names; DataError unless all fit."""
    missing = [name for name in own if name not in given]
    unknown = [name for name in given if name not in own]
    if missing or unknown:
        first = f"{missing[0]} is missing" if missing else f"{unknown[0]} is unknown"
        raise DataError(
            f"{what}: does not fit the model: {first} "
            f"({len(missing)} missing, {len(unknown)} unknown)"
        )
    for name, parameter in own.items():
        if given[name].shape != parameter.shape:
            raise DataError(
                f"{what}: {name} has shape {given[name].shape}, the model's is {parameter.shape}"
            )
    for name, parameter in own.items():
        parameter.set(given[name])
