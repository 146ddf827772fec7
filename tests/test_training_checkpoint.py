"""Checkpoints are whole or refused; resuming falls back to the newest valid one and says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from megbrain_py.errors import DataError
from megbrain_py.training import checkpoint
from megbrain_py.training.checkpoint import Checkpoint


def made(step: int) -> Checkpoint:
    rng = np.random.default_rng(step)
    model = {
        "a.weight": rng.standard_normal((3, 5)).astype(np.float32),
        "count": np.array(step, np.int64),
        "empty": np.zeros((0, 4), np.float32),
    }
    optimizer = {"a.weight.momentum": rng.standard_normal((3, 5)).astype(np.float32)}
    extra = {"classes": ["naïve", "cell"], "best": 0.5}
    return Checkpoint(step, 7, {"seed": 7, "data": {"train": "x.json"}}, model, optimizer, extra)


def test_round_trip(tmp_path: Path) -> None:
    before = made(12)
    path = checkpoint.save(before, tmp_path)
    after = checkpoint.load(path)
    assert (after.step, after.seed, after.config, after.extra) == (
        12, 7, before.config, before.extra,
    )  # fmt: skip
    for section in ("model", "optimizer"):
        old, new = getattr(before, section), getattr(after, section)
        assert set(old) == set(new)
        for name in old:
            assert old[name].dtype == new[name].dtype
            assert np.array_equal(old[name], new[name])


def test_keeps_the_newest(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4, 5):
        checkpoint.save(made(step), tmp_path, keep=2)
    assert [p.name for p in checkpoint.files(tmp_path)] == [
        "step_00000004.safetensors",
        "step_00000005.safetensors",
    ]
    assert not list(tmp_path.glob(".*"))


def test_saving_an_old_step_never_removes_it(tmp_path: Path) -> None:
    for step in (8, 9, 3):
        path = checkpoint.save(made(step), tmp_path, keep=2)
        assert path.exists()


def test_every_flip_and_cut_is_found(tmp_path: Path) -> None:
    path = checkpoint.save(made(3), tmp_path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    positions = {0, 7, 8, 9, len(whole) - 1, *rng.integers(0, len(whole), 150).tolist()}
    good = checkpoint.load(path)
    for position in sorted(positions):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(damaged))
        with pytest.raises(DataError, match=r"checkpoint .*step_00000003\.safetensors: "):
            checkpoint.load(path)
    for length in (0, 4, 8, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match="not a whole safetensors file"):
            checkpoint.load(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(DataError):
        checkpoint.load(path)
    path.write_bytes(whole)
    assert checkpoint.load(path).step == good.step


def test_foreign_and_missing_files(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    foreign = tmp_path / "weights.safetensors"
    save_file({"w": np.zeros(3, np.float32)}, foreign)
    with pytest.raises(DataError, match="no checkpoint of ours"):
        checkpoint.load(foreign)
    with pytest.raises(DataError, match="there is no such file"):
        checkpoint.load(tmp_path / "nothing.safetensors")
    with pytest.raises(DataError, match=r"cannot be read|not a whole"):
        checkpoint.load(tmp_path)
    picture = tmp_path / "step_00000009.safetensors"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8)
    with pytest.raises(DataError, match="not a whole safetensors file"):
        checkpoint.load(picture)


def test_newer_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "VERSION", 99)
    path = checkpoint.save(made(1), tmp_path)
    monkeypatch.undo()
    with pytest.raises(DataError, match="format version 99, this program reads 1"):
        checkpoint.load(path)


def test_latest_falls_back_and_says_so(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        path = checkpoint.save(made(step), tmp_path)
    path.write_bytes(path.read_bytes()[:-5])
    (tmp_path / ".step_00000040.safetensors.x1").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("mine")
    renamed = tmp_path / "step_00000050.safetensors"
    renamed.write_bytes(checkpoint.path_of(tmp_path, 10).read_bytes())
    said: list[str] = []
    found = checkpoint.latest(tmp_path, said.append)
    assert found is not None
    assert found.step == 20
    assert "step_00000050" in said[0]
    assert "holds step 10" in said[0]
    assert "step_00000030" in said[1]
    assert "an older checkpoint is tried" in said[1]
    checkpoint.save(made(60), tmp_path)
    assert not list(tmp_path.glob(".*"))
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_latest_of_nothing(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path / "no") is None
    assert checkpoint.latest(tmp_path) is None


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = checkpoint.save(made(1), tmp_path)
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(
        DataError, match=r"step_00000001\.safetensors: cannot be written: disk full"
    ):
        checkpoint.save(made(1), tmp_path)
    assert path.read_bytes() == before
