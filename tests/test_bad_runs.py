"""Settings, variables, checkpoints and folders of runs that are not what they should be.

Each is refused with an error that names the file or the key, what was expected and what was found.
"""

from __future__ import annotations

import io
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_fakes import config_of, parts_of

from megbrain_py import nn
from megbrain_py.errors import DataError
from megbrain_py.training import checkpoint, settings
from megbrain_py.training.config import TrainConfig
from megbrain_py.training.progress import PlainDisplay
from megbrain_py.training.trainer import Trainer

# --- settings -------------------------------------------------------------------------------------

BAD_SETTINGS: dict[str, tuple[str, str]] = {
    "no TOML": ("steps = = 3", r"not TOML: .*line 1"),
    "a key twice": ("steps = 3\nsteps = 4", r"not TOML: "),
    "an unknown key": ("stepps = 3", r"no key stepps \(.*did you mean steps\?"),
    "an unknown section": ("[dat]\nflip = 0.5", r"no section \[dat\]"),
    "a section for a key": ("[steps]\na = 1", r"no section \[steps\]"),
    "a text for a number": ('steps = "many"', r"steps expects a whole number, found 'many' \("),
    "a number for a switch": ("[optimizer]\nnesterov = 1", "optimizer.nesterov expects true or"),
    "a negative rate": ("[optimizer]\nrate = -1", r"optimizer.rate expects at least 0, found -1"),
    "a rate that is no number": ("[optimizer]\nrate = nan", "optimizer.rate expects a finite"),
    "a batch of nothing": ("batch_size = 0", "batch_size expects at least 1, found 0"),
    "an unknown optimiser": ('[optimizer]\nname = "sgdm"', "optimizer.name expects one of sgd"),
    "a list for a number": ("steps = [1, 2]", "steps expects a whole number"),
    "an endless number": ("epochs = inf", "epochs expects a finite number"),
    "jitter the wrong way": ("[data]\nscale_jitter = [2, 1]", "two factors, smaller first"),
    "a probability above one": ("[data]\nflip = 1.5", "data.flip expects at most 1, found 1.5"),
    "a side above the other": ("[data]\nshort_side = 4000", "data.short_side expects at most"),
}


@pytest.mark.parametrize("name", BAD_SETTINGS)
def test_bad_settings_are_named(name: str, tmp_path: Path) -> None:
    text, message = BAD_SETTINGS[name]
    path = tmp_path / "settings.toml"
    path.write_text(text)
    with pytest.raises(DataError, match=rf"^config.*{message}") as caught:
        settings.read(TrainConfig, path)
    if name not in ("jitter the wrong way", "a side above the other"):  # of two settings together
        assert str(path) in str(caught.value)


BAD_ENVIRONMENT: dict[str, tuple[str, str, str]] = {
    "threads that are no number": ("MB_NUM_THREADS", "abc", "expected a number >= 1, found 'abc'"),
    "no threads": ("MB_NUM_THREADS", "0", "expected a number >= 1, found '0'"),
    "an instruction set that does not exist": ("MB_ISA", "v9", "unknown instruction set v9; known"),
    "a pass that does not exist": ("MB_PASSES", "-fusion", "found -fusion, which is no pass"),
    "a folder that cannot be made": ("MB_DUMP", "/dev/null/dump", "MB_DUMP"),
}


@pytest.mark.parametrize("name", BAD_ENVIRONMENT)
def test_a_bad_variable_is_named(name: str) -> None:
    variable, value, message = BAD_ENVIRONMENT[name]
    code = "import megbrain_py as mb; mb.compile(mb.placeholder('x', (2,)) * 2.0)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, variable: value},
        capture_output=True,
        text=True,
        check=False,
    )
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1
    assert "Error: " in last
    assert variable in last
    assert message in last


@pytest.fixture(autouse=True)
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than all these trainings."""
    monkeypatch.setattr(Trainer, "draw_curves", lambda _: None)


# --- checkpoints and the folder of a run ----------------------------------------------------------


def tiny(folder: Path) -> Trainer:
    """A training of the tiny model: four steps, two checkpoints."""
    config = config_of(folder, "checkpoint_every=2")
    return Trainer(config, parts_of(config, 4), PlainDisplay(io.StringIO(), seconds=0))


def trained(folder: Path) -> Path:
    """A finished training; the checkpoint of its last step."""
    tiny(folder).run()
    return checkpoint.path_of(folder / "checkpoints", 4)


def _signed(path: Path, **changes: Any) -> None:
    """Changes metadata and signs them again, as another version of the program would."""
    from safetensors.numpy import save

    text, arrays = checkpoint._read(path)
    metadata = json.dumps({**json.loads(text["metadata"]), **changes})
    sums = {"checksum": checkpoint._checksum(metadata, arrays)}
    path.write_bytes(save(arrays, {**text, "metadata": metadata, **sums}))


def _rewritten(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def _flip(data: bytes) -> bytes:
    return data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]


BAD_CHECKPOINTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "cut": (lambda path: _rewritten(path, lambda data: data[:-7]), "not a whole safetensors file"),
    "of no bytes": (lambda path: path.write_bytes(b""), "not a whole safetensors file"),
    "with a flipped bit": (lambda path: _rewritten(path, _flip), "the checksum does not fit"),
    "of weights only": (
        lambda path: nn.save(path, {"w": np.zeros(3, np.float32)}), "no checkpoint of ours"),
    "of the future": (lambda path: _signed(path, version=2), "format version 2, this program"),
    "without a step": (lambda path: _signed(path, step=None), "its metadata cannot be read"),
    "with a negative step": (lambda path: _signed(path, step=-1), "its metadata cannot be read"),
    "with settings that are none": (lambda path: _signed(path, config=5), "cannot be read"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "cannot be read|not a whole"),
    "missing": (lambda path: path.unlink(), "there is no such file"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_CHECKPOINTS)
def test_a_bad_checkpoint_is_named_and_the_one_before_is_taken(name: str, tmp_path: Path) -> None:
    damage, message = BAD_CHECKPOINTS[name]
    path = trained(tmp_path)
    weights = checkpoint.load(path).model["scale"].tobytes()
    damage(path)
    with pytest.raises(DataError, match=rf"^checkpoint {path}: .*({message})"):
        checkpoint.load(path)
    if name == "a folder":
        path.rmdir()
    assert tiny(tmp_path).run(resume=True).finished
    assert checkpoint.load(path).model["scale"].tobytes() == weights  # nothing lost


@contextmanager
def _file_size_limit(limit: int) -> Iterator[None]:
    """Files cannot grow beyond, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_told_and_costs_no_checkpoint(tmp_path: Path) -> None:
    path = trained(tmp_path)
    before = path.read_bytes()
    state = checkpoint.load(path)
    with (
        _file_size_limit(len(before) - 1),
        pytest.raises(DataError, match=rf"^{path}: cannot be written: File too large"),
    ):
        checkpoint.save(state, path.parent)
    assert path.read_bytes() == before
    assert not list(path.parent.glob(".*"))


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises((DataError, OSError), match=f"{tmp_path}/file"):
        tiny(tmp_path / "file" / "run").run()


def test_weights_in_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"load: {tmp_path} cannot be read: Is a directory"):
        nn.load(tmp_path)
