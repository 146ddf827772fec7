"""What a step and a measuring can do beyond the plain: against numpy, and resumed bit-exactly."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_fakes import Batch, Momentum, batch_of, config_of, parts_of

import megbrain_py as mb
from megbrain_py import functional as F
from megbrain_py import nn, optim
from megbrain_py.graph import Var
from megbrain_py.training import best, checkpoint, policy, settings
from megbrain_py.training.config import TrainConfig
from megbrain_py.training.ema import Average
from megbrain_py.training.log import read_log
from megbrain_py.training.precise_bn import PreciseNorms
from megbrain_py.training.progress import PlainDisplay
from megbrain_py.training.step import NORM, StepOptions, TrainStep
from megbrain_py.training.trainer import Trainer


@pytest.fixture(autouse=True)
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "draw_curves", lambda _: None)


def quiet() -> PlainDisplay:
    return PlainDisplay(io.StringIO(), seconds=0)


class Normed(nn.Module):
    """A convolution, a batch norm and a mean; one norm in the part that `freeze` keeps."""

    def __init__(self, norm: bool = True) -> None:
        self.conv = nn.Conv2d(3, 4, 3, padding=1, rng=0)
        self.norm = nn.BatchNorm2d(4) if norm else None
        self.last = nn.Conv2d(4, 1, 1, rng=1)

    def losses(self, images: Var, **_: Var) -> dict[str, Var]:
        y = self.conv(images)
        y = F.relu(self.norm(y) if self.norm is not None else y)
        error = self.last(y) - 0.5
        return {"loss_fit": F.mean(error * error)}


def pictures(*seeds: int, count: int = 2) -> list[Batch]:
    """Batches of one size."""
    return [batch_of(seed, 1, count) for seed in seeds]


def joined(batches: list[Batch]) -> Batch:
    return {name: np.concatenate([b[name] for b in batches]) for name in batches[0]}


def state(model: nn.Module) -> dict[str, np.ndarray]:
    return model.state_dict()


# --- the rate ---


def read(*words: str) -> TrainConfig:
    return settings.read(TrainConfig, None, words)


def test_warm_up_rises_from_the_small_batches_rate() -> None:
    """MegDet: r + (R - r) t / T, or the same on a log scale."""
    words = ("batch_size=256", "optimizer.warmup_pictures=16", "optimizer.schedule=normal")
    rates = policy.learning_rates(read(*words, "optimizer.warmup_steps=100"), 1100)
    assert rates(0) == pytest.approx(0.02) and rates(100) == 0.32
    assert rates(50) == pytest.approx(0.02 + 0.3 / 2)
    power = policy.learning_rates(read(*words, "optimizer.warmup=exponential"), 1100)
    assert power(0) == pytest.approx(0.02) and power(110) == pytest.approx(0.02 * 4)
    small = policy.learning_rates(read("batch_size=8", words[1]), 1100)
    assert small(0) == small(500) == 0.01  # the batch is no larger: nothing to rise from


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("normal", {0: 0.32, 799: 0.32, 800: 0.032, 1000: 0.0032, 1099: 0.0032}),
        ("long", {0: 0.32, 1100: 0.032, 1400: 0.0032, 1699: 0.0032, 1700: 0.0016, 1799: 0.0016}),
    ],
)
def test_schedules_of_megdet(name: str, expected: dict[int, float]) -> None:
    config = read("batch_size=256", f"optimizer.schedule={name}", "optimizer.warmup_steps=0")
    steps = policy.total_steps(config, 25600)  # 100 steps an epoch
    assert steps == {"normal": 1100, "long": 1800}[name]
    rates = policy.learning_rates(config, steps)
    assert {step: rates(step) for step in expected} == expected
    assert f"schedule {name}: x 0.1 at step" in policy.describe(config, steps)


def test_normal_is_the_default_and_the_rate_says_why() -> None:
    plain, named = read("batch_size=4"), read("batch_size=4", "optimizer.schedule=normal")
    both = [policy.learning_rates(config, 3000) for config in (plain, named)]
    assert all(both[0](step) == both[1](step) for step in range(3000))
    several = read("batch_size=4", "accumulate=8", "optimizer.warmup_pictures=16")
    text = policy.describe(several, 3000)
    assert "0.02 for 16 pictures x 32/16 = 0.04 a step" in text
    assert "linear warm-up from 0.02 in 500 steps, x 0.1 at step 2182" in text


# --- clipping and accumulation ---


def test_clipping_by_value_holds_each_element() -> None:
    values = np.array([-3.0, -0.5, 0.0, 2.0, np.nan], np.float32)
    (clipped,) = optim.clip_by_value([mb.constant(values)], 1.0)
    result = mb.compile(clipped)()["output"]
    assert np.array_equal(result, np.array([-1, -0.5, 0, 1, np.nan], np.float32), equal_nan=True)


@pytest.mark.parametrize("options", [{}, {"clip_norm": 0.05}, {"clip_value": 0.01}])
def test_accumulated_batches_are_the_large_batch(options: dict[str, float]) -> None:
    ends, norms = [], []
    for accumulate in (1, 4):
        model = Normed(norm=False)
        step = TrainStep(
            model, Momentum(model.parameters()), StepOptions(**options, accumulate=accumulate)
        )
        for k in range(3):
            batches = pictures(*range(4 * k, 4 * k + 4))
            found = step(batches if accumulate > 1 else [joined(batches)], 0, k, 0.5)
            norms.append(found.get(NORM, 0.0))
        ends.append(state(model))
    assert np.allclose(norms[:3], norms[3:], rtol=1e-5)
    for name, value in ends[0].items():
        assert np.allclose(value, ends[1][name], rtol=1e-5, atol=1e-7), name
    assert not np.allclose(ends[0]["conv.weight"], state(Normed())["conv.weight"], rtol=1e-4)


def test_losses_of_accumulated_batches_are_their_mean() -> None:
    model = Normed(norm=False)
    batches = pictures(0, 1)
    alone = TrainStep(model, Momentum(model.parameters()))
    single = [alone([batch], 0, 0, 0.0)["loss"] for batch in batches]
    step = TrainStep(model, Momentum(model.parameters()), StepOptions(accumulate=2))
    assert step(batches, 0, 0, 0.0)["loss"] == pytest.approx(np.mean(single), rel=1e-6)
    assert step.signatures == 1
    assert not any(total.value.any() for total in step._sums)


def test_two_sizes_of_batch_in_one_step() -> None:
    model = Normed(norm=False)
    step = TrainStep(model, Momentum(model.parameters()), StepOptions(accumulate=2))
    assert np.isfinite(step([batch_of(0, 0), batch_of(0, 1)], 0, 0, 0.1)["loss"])
    assert step.signatures == 2


# --- averages ---


def test_average_follows_the_formula() -> None:
    model = Normed()
    average = Average(model.named_state(), 0.6)
    step = TrainStep(model, Momentum(model.parameters()), average=average)
    expected = {n: v.astype(np.float64) for n, v in state(model).items()}
    for k, batch in enumerate(pictures(*range(8))):
        step([batch], 0, k, 0.5)
        decay = min(0.6, (1 + k) / (10 + k))
        now = state(model)
        expected = {n: decay * v + (1 - decay) * now[n] for n, v in expected.items()}
    found = {n: v.copy() for n, v in average.state_dict().items()}
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert np.allclose(found[name], value, rtol=1e-5, atol=1e-7), name
    own = state(model)
    with average.in_use():
        used = state(model)
    assert all(np.array_equal(used[n], found[n]) for n in found)
    assert all(np.array_equal(v, own[n]) for n, v in state(model).items())


def test_an_average_costs_the_training_nothing() -> None:
    """Weights end bit-equal with and without."""
    ends = []
    for decay in (None, 0.9):
        model = Normed()
        average = Average(model.named_state(), decay) if decay else None
        step = TrainStep(model, Momentum(model.parameters()), average=average)
        for k, batch in enumerate(pictures(*range(4))):
            step([batch], 0, k, 0.5)
        ends.append(state(model))
    assert all(np.array_equal(v, ends[1][n]) for n, v in ends[0].items())


def test_averages_are_measured_saved_and_used(tmp_path: Path) -> None:
    config = config_of(tmp_path / "run", "ema=0.9", "eval_every=4")
    model = Normed()
    seen: list[np.ndarray] = []

    def evaluate() -> dict[str, float]:
        seen.append(model.conv.weight.value.copy())
        return {"AP": 0.1 * len(seen), "AP50": 0.0}

    optimizer = Momentum(model.parameters())
    parts = parts_of(config, 8, model=model, optimizer=optimizer, evaluate=evaluate)
    Trainer(config, parts, quiet()).run()
    last = checkpoint.load(checkpoint.path_of(tmp_path / "run" / "checkpoints", 8))
    kept = checkpoint.load(tmp_path / "run" / "best.safetensors")
    assert np.array_equal(last.model["conv.weight"], model.conv.weight.value)
    assert np.array_equal(last.average["conv.weight"], seen[-1])
    assert np.array_equal(kept.model["conv.weight"], seen[-1])
    assert np.array_equal(last.weights["conv.weight"], seen[-1])
    assert not kept.average
    assert not np.array_equal(seen[-1], model.conv.weight.value)


def test_averages_switched_on_later_start_from_the_weights(tmp_path: Path) -> None:
    plain = config_of(tmp_path / "run")
    Trainer(plain, parts_of(plain, 3), quiet()).run()
    averaged = config_of(tmp_path / "run", "ema=0.9")
    trainer = Trainer(averaged, parts_of(averaged, 3), quiet())
    trainer.run(resume=True)
    assert trainer.average is not None
    own = trainer.parts.model.named_state()
    for name, value in trainer.average.state_dict().items():
        assert np.array_equal(value, own[name].value)


# --- the best, and stopping ---


def lines_of(*figures: float, by: str = "AP") -> list[dict[str, Any]]:
    kind, name = ("val", "loss") if by == "val_loss" else ("eval", by)
    return [{"kind": kind, "step": n, name: value} for n, value in enumerate(figures, 1)]


@pytest.mark.parametrize(
    ("by", "figures", "expected"),
    [
        ("AP", (0.1, 0.3, 0.2), [True, True, False]),
        ("AR_100", (0.1, 0.1), [True, True]),  # of equal ones the later
        ("val_loss", (2.0, 1.0, 1.5), [True, True, False]),
    ],
)
def test_best_by(by: str, figures: tuple[float, ...], expected: list[bool]) -> None:
    lines = lines_of(*figures, by=by)
    assert [best.is_best(lines[: n + 1], by, n + 1) for n in range(len(lines))] == expected


def test_measurings_since_best() -> None:
    assert best.measurings_since_best([], "AP") == 0
    assert best.measurings_since_best(lines_of(0.1, 0.3, 0.2, 0.3), "AP") == 2  # no better: equal
    assert best.measurings_since_best(lines_of(0.1, 0.2), "AP") == 0


def test_patience_ends_a_training_and_a_resumed_one(tmp_path: Path) -> None:
    words = ("eval_every=2", "patience=2")
    config = config_of(tmp_path / "run", *words)
    quality = [0.1, 0.5, 0.4, 0.5, 0.9]

    def parts() -> Any:
        found = iter(quality)
        return parts_of(config, 20, evaluate=lambda: {"AP": next(found), "AP50": 0.0})

    trainer = Trainer(config, parts(), quiet())
    outcome = trainer.run()
    assert outcome.finished and outcome.step == 8
    assert "no better AP in 2 measurings: the training ends after step 8" in (
        trainer.show.stream.getvalue()  # type: ignore[attr-defined]
    )
    assert checkpoint.load(tmp_path / "run" / "best.safetensors").step == 8  # equal: the later
    again = Trainer(config, parts(), quiet()).run(resume=True)
    assert again.finished and again.step == 8
    longer = config_of(tmp_path / "run", "eval_every=2", "patience=3")
    assert Trainer(longer, parts(), quiet()).run(resume=True).step > 8


def test_best_by_validation_loss(tmp_path: Path) -> None:
    config = config_of(tmp_path / "run", "eval_every=2", "best_by=val_loss")
    scale = iter([1.0, 0.5, 2.0])

    def validation() -> Iterator[Batch]:
        batch = batch_of(1, 1)
        yield {**batch, "images": batch["images"] * np.float32(next(scale))}

    Trainer(config, parts_of(config, 6, validation=validation), quiet()).run()
    kept = checkpoint.load(tmp_path / "run" / "best.safetensors")
    assert kept.step == 4
    losses = [line["loss"] for line in read_log(tmp_path / "run" / "log.jsonl")
              if line["kind"] == "val"]  # fmt: skip
    assert kept.extra["figures"]["val_loss"] == losses[1] == min(losses)


# --- precise norms, freezing ---


def test_precise_norms_are_the_moments_of_all_pictures() -> None:
    model = Normed()
    before = state(model)
    batches = [batch_of(seed, 1, 3) for seed in range(5)]
    x = joined(batches)["images"]
    y = mb.compile(model.conv(mb.placeholder("x", x.shape)))(x=x)["output"].astype(np.float64)
    norms = PreciseNorms(model)
    assert norms
    with norms.in_use(batches, 0):
        found = state(model)
    assert np.allclose(found["norm.running_mean"], y.mean((0, 2, 3)), rtol=1e-4, atol=1e-6)
    assert np.allclose(found["norm.running_var"], y.var((0, 2, 3)), rtol=1e-3)
    assert all(np.array_equal(v, before[n]) for n, v in state(model).items())
    assert not PreciseNorms(Normed(norm=False))


def trained_once(model: Normed) -> tuple[set[str], list[str]]:
    """Names of what a step changed, and the kernels of the step."""
    step = TrainStep(model, optim.SGD(model.parameters()))
    before = state(model)
    step(pictures(0), 0, 0, 0.5)
    changed = {n for n, v in state(model).items() if not np.array_equal(v, before[n])}
    (function,) = step.function._compiled.values()
    return changed, [i.kernel for i in function.plan.instructions]


def test_frozen_parts_get_no_gradient_and_keep_their_statistics() -> None:
    frozen = Normed()
    assert frozen.norm is not None
    frozen.conv.freeze()
    frozen.norm.freeze()
    changed, kernels = trained_once(frozen)
    everything, more = trained_once(Normed())
    assert changed == {"last.weight", "last.bias"}
    assert {"conv.weight", "norm.weight", "norm.running_mean"} <= everything
    backward = [[k for k in names if k.startswith("conv2d_")] for names in (kernels, more)]
    assert len(backward[0]) == 1  # of last.weight; none of its input
    assert len(backward[1]) == 3
    assert "channel_moments" not in kernels


# --- all together, killed and resumed ---


class Stop(BaseException):
    """As a kill: nothing catches it."""


@pytest.mark.parametrize("die_at", [3, 8, 9, 13, 20, 27])
def test_everything_resumes_bit_exactly(tmp_path: Path, die_at: int) -> None:
    """Averages, accumulation, clipping, precise norms and best checkpoints, cut at a batch."""
    words = (
        "accumulate=2", "ema=0.8", "precise_bn=6", "eval_every=3", "patience=3", "batch_size=2",
        "optimizer.clip_norm=0.3", "checkpoint_every=2", "best_by=AP75",
    )  # fmt: skip

    def run(folder: Path, *, kill: int = -1, resume: bool = False) -> Normed:
        config = config_of(folder, *words)
        model = Normed()

        def batches(start: int, stop: int) -> Iterator[Batch]:
            for number in range(start, stop):
                if number == kill:
                    raise Stop
                yield batch_of(3, number)

        def evaluate() -> dict[str, float]:  # depends on all that is in use meanwhile
            values = np.concatenate([v.reshape(-1) for v in state(model).values()])
            return {"AP": 0.0, "AP50": 0.0, "AP75": float(abs(np.sin(1e3 * values.sum())))}

        parts = parts_of(
            config, 14, model=model, optimizer=Momentum(model.parameters()), batches=batches,
            evaluate=evaluate, validation=lambda: iter(pictures(7)), epoch_steps=5,
        )  # fmt: skip
        Trainer(config, parts, quiet()).run(resume=resume)
        return model

    run(tmp_path / "whole")
    with pytest.raises(Stop):
        run(tmp_path / "cut", kill=die_at)
    run(tmp_path / "cut", resume=True)
    for name in ("best.safetensors", "checkpoints"):
        files = [
            (tmp_path / f / name)
            if name != "checkpoints"
            else checkpoint.files(tmp_path / f / name)[-1]
            for f in ("whole", "cut")
        ]
        one, two = (checkpoint.load(path) for path in files)
        assert (one.step, one.extra) == (two.step, two.extra)
        for section in ("model", "optimizer", "average"):
            old, new = getattr(one, section), getattr(two, section)
            assert set(old) == set(new)
            assert all(old[n].tobytes() == new[n].tobytes() for n in old), section
    timed = ("seconds", "rate")
    logs = [
        [{k: v for k, v in line.items() if k not in timed} for line in read_log(f / "log.jsonl")]
        for f in (tmp_path / "whole", tmp_path / "cut")
    ]
    assert sorted(logs[0], key=str) == sorted(logs[1], key=str)
