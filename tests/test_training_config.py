"""Configuration: files, overrides, types, limits, and messages that name the nearest key."""

from __future__ import annotations

from pathlib import Path

import pytest

from megbrain_py.errors import DataError
from megbrain_py.training import policy, settings
from megbrain_py.training.config import TrainConfig


def read(*overrides: str, file: Path | None = None) -> TrainConfig:
    return settings.read(TrainConfig, file, overrides)


def test_file_then_overrides(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text(
        'batch_size = 4\nepochs = 3\n[data]\ntrain = "a.json"\nshort_side = 320\n'
        '[model]\npreset = "laptop"\nproposals = 64\nanchor_sizes = [8, 16.5]\n'
    )
    config = read("batch_size=8", "data.scale_jitter=0.5,1.5", "optimizer.nesterov=true", file=file)
    assert config.batch_size == 8
    assert config.epochs == 3.0
    assert config.data.short_side == 320
    assert config.data.scale_jitter == (0.5, 1.5)
    assert config.optimizer.nesterov is True
    assert config.model.options == {"proposals": 64, "anchor_sizes": [8, 16.5]}


def test_writes_what_it_reads(tmp_path: Path) -> None:
    config = read(
        'data.train=C:\\a "b"/ü.json', "model.depth=3", "model.names=[\"x\", 'y']", "epochs=0.1",
        "optimizer.weight_decay=1e-5", "data.short_side=64",
    )  # fmt: skip
    file = tmp_path / "c.toml"
    file.write_text(settings.to_toml(config), encoding="utf-8")
    assert read(file=file) == config
    assert settings.replaced(config, {}) == config
    assert settings.replaced(config, {"steps": 5}).steps == 5
    with pytest.raises(DataError, match=r"no key run\.stps; did you mean run\.steps"):
        settings.replaced(config, {"stps": 5}, "run.")


def test_options_of_options(tmp_path: Path) -> None:
    config = read("model.rpn.proposals=64", "model.norm=frozen")
    assert config.model.options == {"rpn.proposals": 64, "norm": "frozen"}
    file = tmp_path / "c.toml"
    file.write_text(settings.to_toml(config), encoding="utf-8")
    assert read(file=file) == config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "bach_size=3",
            "no key bach_size (override 'bach_size=3'); did you mean batch_size?",
        ),
        ("data.trian=3", "did you mean data.train"),
        ("workers=3", "did you mean data.workers?"),
        ("zzzz=3", "; there are: accumulate, batch_size, best_by, bn_size"),
        ("batch_size", "config: expected key=value, found 'batch_size'"),
        ("batch_size=many", "config: batch_size expects a whole number, found 'many'"),
        ("batch_size=2.5", "config: batch_size expects a whole number, found 2.5"),
        ("batch_size=0", "config: batch_size expects at least 1, found 0"),
        ("data.flip=2", "config: data.flip expects at most 1, found 2"),
        ("optimizer.name=adam", "config: optimizer.name expects one of sgd, adamw, found 'adam'"),
        ("optimizer.nesterov=1", "config: optimizer.nesterov expects true or false, found 1"),
        ("data.scale_jitter=a,3", "config: data.scale_jitter expects a list, each a number"),
        ("data.short_side=9999", "expects at most data.long_side = 1333, found 9999"),
        ("data.scale_jitter=2,1", "expects two factors, smaller first, found [2.0, 1.0]"),
    ],
)
def test_refuses(override: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        read(override)
    assert message in str(caught.value)


def test_refuses_files(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    with pytest.raises(DataError, match="there is no such file"):
        read(file=file)
    file.write_text("a = = 3")
    with pytest.raises(DataError, match=r"a\.toml: not TOML: .*line 1"):
        read(file=file)
    file.write_text("[optimiser]\nrate = 1")
    with pytest.raises(DataError, match=r"no section \[optimiser\] .*; did you mean optimizer"):
        read(file=file)
    file.write_text("[data]\nworker = 1")
    with pytest.raises(DataError, match=r"no key data.worker \(.*a.toml\); did you mean data.work"):
        read(file=file)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="cannot be read"):
        read(file=file)


def test_rate_is_scaled_to_the_batch() -> None:
    config = read("batch_size=4", "optimizer.rate=0.08")
    assert policy.scaled_rate(config) == 0.02
    text = policy.describe(config, 100)
    assert "0.08 for 16 pictures x 4/16 = 0.02 a step (linear scaling" in text


def test_steps() -> None:
    def steps(*overrides: str) -> int:
        return policy.total_steps(read(*overrides), 10)

    assert steps("epochs=2", "batch_size=4") == 5
    assert steps("epochs=2", "batch_size=2", "accumulate=2") == 5
    assert steps("epochs=2", "steps=7") == 7
    assert steps("epochs=0.001") == 1
    assert steps() == 55 and steps("optimizer.schedule=long") == 90


def test_every_setting_is_explained() -> None:
    for line in settings.to_toml(TrainConfig()).splitlines():
        assert "#" in line or line.startswith("[") or not line, line


def test_settings_that_contradict_each_other() -> None:
    with pytest.raises(DataError, match=r"give data\.short_sides or data\.scale_jitter"):
        read("data.short_sides=64,96", "data.scale_jitter=0.5,1")
    with pytest.raises(DataError, match="best_by=val_loss expects val_loss_images of at least 1"):
        read("best_by=val_loss", "val_loss_images=0")
    with pytest.raises(DataError, match="patience expects eval_every of at least 1, found 0"):
        read("patience=3")
    with pytest.raises(DataError, match=r"model\.leave_out expects model\.weights, found none"):
        read("model.leave_out=rpn")
    with pytest.raises(DataError, match=r"best_by expects one of AP, AP50, .*, found 'mAP'"):
        read("best_by=mAP")
