"""From settings to a Trainer: what is frozen, scaled and told; the real detector, not trained."""

from __future__ import annotations

import io
from pathlib import Path

import data_files
import pytest

from megbrain_py.errors import DataError
from megbrain_py.training import checkpoint, settings
from megbrain_py.training.assemble import assemble
from megbrain_py.training.config import TrainConfig
from megbrain_py.training.progress import PlainDisplay
from megbrain_py.training.trainer import Trainer


def assembled(folder: Path, *words: str) -> tuple[Trainer, str]:
    """A Trainer on eight small pictures, and what was said."""
    document = data_files.document([(64, 96)] * 5 + [(96, 64)] * 3, 3)
    file = data_files.write(folder / "data", document)
    given = [f"data.train={file}", "data.short_side=64", "data.long_side=96", "steps=10"]
    config = settings.read(TrainConfig, None, [*given, f"output={folder / 'run'}", *words])
    show = PlainDisplay(io.StringIO())
    trainer = assemble(config, show)
    assert isinstance(show.stream, io.StringIO)
    return trainer, show.stream.getvalue()


def test_frozen_parts_are_not_trained_and_named(tmp_path: Path) -> None:
    plain, text = assembled(tmp_path)
    assert "frozen" not in text
    state = plain.checkpoint()
    weights = checkpoint.save(state, tmp_path / "weights")
    trainer, text = assembled(tmp_path, "model.freeze_at=2", f"model.weights={weights}")
    assert "frozen: stem, C2: " in text and "warning" not in text
    trained = {p.name for p in trainer.parts.model.parameters()}
    frozen = {p.name for p in plain.parts.model.parameters()} - trained
    assert frozen and all(
        name.startswith(("backbone.body.conv1", "backbone.body.bn1", "backbone.body.layer1"))
        for name in frozen
    )
    assert not any(name.startswith(tuple(frozen)) for name in trainer.parts.optimizer.state_dict())
    _, text = assembled(tmp_path, "model.freeze_at=1")
    assert "warning: model.freeze_at keeps weights that nothing has trained" in text


def test_freezing_more_than_there_is_is_refused(tmp_path: Path) -> None:
    message = r"model\.freeze_at expects at most 5 \(the stem, C2, C3, C4, C5\), found 6"
    with pytest.raises(DataError, match=message):
        assembled(tmp_path, "model.freeze_at=6")


def test_the_start_says_what_a_step_is(tmp_path: Path) -> None:
    words = ("batch_size=2", "accumulate=4", "optimizer.schedule=long", "steps=0", "epochs=4")
    trainer, text = assembled(tmp_path, *words, "optimizer.warmup_steps=1")
    assert trainer.parts.steps == 4 and trainer.parts.epoch_steps == 1.0
    assert (
        "4 steps of 8 pictures (4 batches of 2): gradients are the batches' mean; losses are"
        in text
    )
    assert "learning rate 0.02 for 16 pictures x 8/16 = 0.01 a step (linear scaling: " in text
    assert "schedule long: x 0.1 at step 2, x 0.1 at step 3, x 0.5 at step 4, 4 steps" in text


def test_sampling_changes_what_an_epoch_is(tmp_path: Path) -> None:
    words = ("batch_size=2", "steps=0", "epochs=1", "data.repeat_threshold=1")
    plain, _ = assembled(tmp_path, *words)
    often, text = assembled(tmp_path, *words, "data.sampling=repeat_factor")
    assert plain.parts.steps == 4 < often.parts.steps
    assert "8 pictures drawn " in text
