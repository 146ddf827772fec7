"""The trainer: its log, figures, NaN guard, signals, refusals and curves."""

from __future__ import annotations

import io
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_fakes import batch_of, config_of, parts_of

from megbrain_py.errors import DataError, EngineError
from megbrain_py.training import checkpoint
from megbrain_py.training.log import RunLog, read_log
from megbrain_py.training.progress import BarDisplay, PlainDisplay, Rate, clock
from megbrain_py.training.trainer import Trainer


@pytest.fixture(autouse=True)
def no_curves(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Drawing takes longer than all these trainings; one test keeps it."""
    if request.node.name != "test_run_learns_logs_and_measures":
        monkeypatch.setattr(Trainer, "draw_curves", lambda _: None)


def quiet() -> PlainDisplay:
    return PlainDisplay(io.StringIO(), seconds=0)


def said(trainer: Trainer) -> str:
    assert isinstance(trainer.show, PlainDisplay)
    assert isinstance(trainer.show.stream, io.StringIO)
    return trainer.show.stream.getvalue()


def test_run_learns_logs_and_measures(tmp_path: Path) -> None:
    config = config_of(tmp_path / "run", "eval_every=10", "checkpoint_every=8", "keep=2")
    quality = iter([0.2, 0.5, 0.4])
    parts = parts_of(
        config, 25, extra={"classes": ["a"]}, epoch_steps=10,
        validation=lambda: (batch_of(9, step) for step in range(3)),
        evaluate=lambda: {"AP": (ap := next(quality)), "AP50": ap + 0.1, "per_class": {"a": ap}},
    )  # fmt: skip
    trainer = Trainer(config, parts, quiet())
    outcome = trainer.run()
    assert outcome.finished
    assert outcome.step == 25
    assert outcome.figures["AP"] == 0.4
    lines = read_log(tmp_path / "run" / "log.jsonl")
    train = [line for line in lines if line["kind"] == "train"]
    assert [line["step"] for line in train] == list(range(1, 26))
    assert train[-1]["loss"] < train[0]["loss"]
    assert train[0]["loss"] == pytest.approx(train[0]["loss_fit"] + train[0]["loss_size"], rel=1e-6)
    assert {"lr", "rate", "seconds", "epoch"} <= set(train[0])
    assert [line["step"] for line in lines if line["kind"] == "val"] == [10, 20, 25]
    assert [line["AP"] for line in lines if line["kind"] == "eval"] == [0.2, 0.5, 0.4]
    names = [p.name for p in checkpoint.files(tmp_path / "run" / "checkpoints")]
    assert names == ["step_00000024.safetensors", "step_00000025.safetensors"]
    best = checkpoint.load(tmp_path / "run" / "best.safetensors")
    assert best.step == 20
    assert best.extra == {
        "classes": ["a"],
        "figures": {"AP": 0.5, "AP50": 0.6, "per_class": {"a": 0.5}},
    }
    assert (tmp_path / "run" / "curves.png").read_bytes()[:4] == b"\x89PNG"
    assert "output = " in (tmp_path / "run" / "config.toml").read_text()
    text = said(trainer)
    assert "step 25/25  loss " in text
    assert "sizes 2" in text  # two sizes of batch were compiled
    assert "validation AP 0.500, AP50 0.600" in text
    state = parts.model.named_state()
    final = checkpoint.load(tmp_path / "run" / "checkpoints" / names[-1])
    assert all(np.array_equal(final.model[n], p.value) for n, p in state.items())
    assert float(state["running_mean"].value) != 0.0


def test_same_settings_same_weights_and_clipping_matters(tmp_path: Path) -> None:
    ends: list[Any] = []
    for name, clip in (("a", 0.0), ("b", 0.0), ("c", 1e-3), ("d", 1e6)):
        config = config_of(tmp_path / name, f"optimizer.clip_norm={clip}")
        parts = parts_of(config, 6)
        Trainer(config, parts, quiet()).run()
        ends.append(parts.model.named_state()["scale"].value.copy())
    assert np.array_equal(ends[0], ends[1])
    assert np.array_equal(ends[0], ends[3])
    assert not np.array_equal(ends[0], ends[2])


def test_refuses_a_folder_in_use(tmp_path: Path) -> None:
    config = config_of(tmp_path / "run")
    Trainer(config, parts_of(config, 2), quiet()).run()
    with pytest.raises(DataError, match="holds a training already; go on with --resume"):
        Trainer(config, parts_of(config, 2), quiet()).run()


def test_resume_needs_the_same_seed_and_model(tmp_path: Path) -> None:
    config = config_of(tmp_path / "run")
    Trainer(config, parts_of(config, 2), quiet()).run()
    other = config_of(tmp_path / "run", "seed=4")
    with pytest.raises(DataError, match="made with seed 3, the configuration says 4"):
        Trainer(other, parts_of(other, 2), quiet()).run(resume=True)
    parts = parts_of(config, 2)
    parts.model.extra = parts.model.scale.__class__(np.zeros(3, np.float32))  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="extra is missing"):
        Trainer(config, parts, quiet()).run(resume=True)


def test_resume_tells_changes_and_refuses_to_start_over(tmp_path: Path) -> None:
    config = config_of(tmp_path / "run")
    Trainer(config, parts_of(config, 2), quiet()).run()
    longer = config_of(tmp_path / "run", "optimizer.rate=0.5", "data.workers=1")
    trainer = Trainer(longer, parts_of(longer, 3), quiet())
    trainer.run(resume=True)
    assert "changed since the checkpoint: optimizer.rate = 0.02 -> 0.5" in said(trainer)
    assert said(trainer).count("changed since") == 1
    for path in checkpoint.files(tmp_path / "run" / "checkpoints"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"none of the 2 checkpoints in .* is valid"):
        Trainer(config, parts_of(config, 2), quiet()).run(resume=True)
    assert len(read_log(tmp_path / "run" / "log.jsonl")) == 3  # nothing was lost


def test_settings_younger_than_a_checkpoint_are_no_change(tmp_path: Path) -> None:
    config = config_of(tmp_path / "run", "ema=0.5")
    Trainer(config, parts_of(config, 2), quiet()).run()
    path = checkpoint.path_of(tmp_path / "run" / "checkpoints", 2)
    state = checkpoint.load(path)
    older = {k: v for k, v in state.config.items() if k not in ("accumulate", "ema")}
    checkpoint.write(replace(state, config=older), path)
    trainer = Trainer(config, parts_of(config, 3), quiet())
    trainer.run(resume=True)
    changes = [line for line in said(trainer).splitlines() if "changed since" in line]
    assert changes == ["changed since the checkpoint: ema = 0.0 -> 0.5"]


def test_non_finite_loss_stops_and_names_it(tmp_path: Path) -> None:
    config = config_of(tmp_path / "run", "checkpoint_every=2")
    parts = parts_of(config, 10)

    def poisoned(start: int, stop: int) -> Any:
        for step in range(start, stop):
            batch = batch_of(3, step)
            if step == 5:
                batch["images"][0, 0, 0, 0] = np.nan
            yield batch

    trainer = Trainer(config, replace(parts, batches=poisoned), quiet())
    with pytest.raises(EngineError) as caught:
        trainer.run()
    text = str(caught.value)
    assert "train: step 5: loss_fit = nan; expected finite losses" in text
    assert "[500, 501]" in text
    assert "step_00000004.safetensors" in text
    names = [p.name for p in checkpoint.files(tmp_path / "run" / "checkpoints")]
    assert names[-1] == "step_00000004.safetensors"
    assert Trainer(config, parts, quiet()).run(resume=True).finished


def test_non_finite_weight_is_never_saved(tmp_path: Path) -> None:
    config = config_of(tmp_path / "run", "checkpoint_every=3")
    parts = parts_of(config, 9, schedule=lambda step: float("inf") if step == 5 else 0.01)
    with pytest.raises(EngineError, match="is not finite after step 6; no checkpoint is made"):
        Trainer(config, parts, quiet()).run()
    names = [p.name for p in checkpoint.files(tmp_path / "run" / "checkpoints")]
    assert names == ["step_00000003.safetensors"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_saves_and_resume_ends_equal(tmp_path: Path, number: int) -> None:
    whole = config_of(tmp_path / "whole")
    expected = parts_of(whole, 9)
    Trainer(whole, expected, quiet()).run()

    config = config_of(tmp_path / "cut")

    def interrupted(start: int, stop: int) -> Any:
        for step in range(start, stop):
            if step == 4:
                os.kill(os.getpid(), number)
            yield batch_of(3, step)

    trainer = Trainer(config, parts_of(config, 9, batches=interrupted), quiet())
    outcome = trainer.run()
    assert not outcome.finished
    assert outcome.step == 5
    assert f"{signal.Signals(number).name}: saved after step 5" in said(trainer)
    parts = parts_of(config, 9)
    assert Trainer(config, parts, quiet()).run(resume=True).finished
    for name, parameter in expected.model.named_state().items():
        assert np.array_equal(parameter.value, parts.model.named_state()[name].value), name
    steps = [line["step"] for line in read_log(tmp_path / "cut" / "log.jsonl")]
    assert steps == list(range(1, 10))


def test_evaluation_missed_by_a_kill_is_made_up_for(tmp_path: Path) -> None:
    config = config_of(tmp_path / "run")

    def die() -> dict[str, float]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Trainer(config, parts_of(config, 3, evaluate=die), quiet()).run()
    figures = {"AP": 0.3, "AP50": 0.6}
    outcome = Trainer(config, parts_of(config, 3, evaluate=lambda: figures), quiet()).run(
        resume=True
    )
    assert outcome.figures == figures
    again = Trainer(config, parts_of(config, 3, evaluate=die), quiet()).run(resume=True)
    assert again.figures == figures  # from the log: measured once


def test_log_is_cut_and_half_lines_are_dropped(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "log.jsonl")
    for step in range(1, 6):
        log.write("train", step, {"loss": 0.5})
    log.close()
    with log.path.open("a") as stream:
        stream.write('{"kind": "train", "st')
    assert len(read_log(log.path)) == 5
    log.cut(3)
    log.write("train", 4, {"loss": 0.25})
    log.close()
    assert [line["step"] for line in log.lines()] == [1, 2, 3, 4]
    log.path.write_text('{"kind": "train", "step": 1}\nnonsense\n')
    with pytest.raises(DataError, match=r"log\.jsonl: line 2 is no log line: 'nonsense'"):
        log.lines()


def test_rate_leaves_compiling_steps_out() -> None:
    rate = Rate()
    rate.add(2, 100.0, usual=False)
    assert rate.images_per_second is None
    assert rate.seconds_left(3) is None
    rate.add(2, 0.5)
    assert rate.images_per_second == 4.0
    assert rate.seconds_left(3) == 1.5
    assert [clock(s) for s in (None, 5, 65, 3723)] == ["?", "0:05", "1:05", "1:02:03"]


def test_rate_counts_waiting_for_pictures(tmp_path: Path) -> None:
    config = config_of(tmp_path / "run")
    measured = iter([0.1] * 3)

    def slow(start: int, stop: int) -> Iterator[dict[str, np.ndarray]]:
        for step in range(start, stop):
            time.sleep(0.05)
            yield batch_of(config.seed, 1 + 3 * step)  # one signature

    def evaluate() -> dict[str, float]:
        time.sleep(0.5)
        return {"AP": next(measured)}

    parts = parts_of(config, 9, batches=slow, evaluate=evaluate)
    trainer = Trainer(replace(config, eval_every=4), parts, quiet())
    trainer.run()
    rate = trainer._rate.images_per_second
    assert rate is not None
    assert 2 < rate < 40, "2 pictures in each 0.05 s of waiting; measuring does not count"


@pytest.mark.parametrize(
    ("found", "best"),
    [([(0.0, 0.0), (0.0, 0.0)], 2), ([(0.1, 0.3), (0.1, 0.2)], 1), ([(0.2, 0.3), (0.1, 0.9)], 1)],
)
def test_of_equal_models_the_later_is_the_best(
    tmp_path: Path, found: list[tuple[float, float]], best: int
) -> None:
    config = config_of(tmp_path / "run", "eval_every=1")
    figures = iter(found)
    parts = parts_of(
        config, 2, evaluate=lambda: dict(zip(("AP", "AP50"), next(figures), strict=True))
    )
    Trainer(config, parts, quiet()).run()
    assert checkpoint.load(tmp_path / "run" / "best.safetensors").step == best


def test_bar_runs(capsys: pytest.CaptureFixture[str]) -> None:
    bar = BarDisplay()
    bar.start(0, 2)
    bar.update(1, {"loss": 1.0, "loss_a": 1.0}, {"lr": 0.1, "rate": None, "signatures": 1})
    bar.message("[not markup]")
    bar.close()
    assert "[not markup]" in capsys.readouterr().out


def test_the_resumed_run_under_checks_names_the_operator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the message of the guard says to do, done."""
    config = config_of(tmp_path / "run", "checkpoint_every=2")

    def exploding(start: int, stop: int) -> Any:
        for step in range(start, stop):
            batch = batch_of(3, step)
            if step == 5:
                batch["images"] *= np.float32(1e30)  # its square is infinite
            yield batch

    with pytest.raises(EngineError) as caught:
        Trainer(config, parts_of(config, 10, batches=exploding), quiet()).run()
    advice = f"MB_CHECK=1 megbrain train --resume {tmp_path / 'run'}"
    assert advice in str(caught.value)
    monkeypatch.setenv("MB_CHECK", "1")
    with pytest.raises(EngineError, match=r"^check: .* mul at .*training_fakes\.py:\d+, made"):
        Trainer(config, parts_of(config, 10, batches=exploding), quiet()).run(resume=True)
