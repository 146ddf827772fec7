"""A detector trained on many ranks is the one that a single rank trains: same losses, weights,
figures; so is one that goes on with another number of ranks."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from megbrain_py import ranks
from megbrain_py.data.digit_scenes import make_digit_scenes
from megbrain_py.errors import DataError
from megbrain_py.op_testing import relative_error
from megbrain_py.training import checkpoint, settings
from megbrain_py.training.assemble import assemble, open_data
from megbrain_py.training.checkpoint import Checkpoint
from megbrain_py.training.config import TrainConfig
from megbrain_py.training.detector import Detecting, InputConfig, detect_all
from megbrain_py.training.devices import on_devices
from megbrain_py.training.log import Line, read_log
from megbrain_py.training.progress import PlainDisplay
from megbrain_py.training.shards import gathered
from megbrain_py.training.trainer import Trainer

STEPS = 3
SEEDS = ("4", "1", "3")
SETTINGS = (
    f"steps={STEPS}", "checkpoint_every=1", "keep=9", "data.short_side=64", "data.long_side=64",
    "data.workers=0", "val_loss_images=8", "model.fpn_channels=16", "model.roi.hidden=24",
    "model.rpn.samples=32", "model.roi.samples=16", "optimizer.rate=0.02", "optimizer.clip_norm=5",
    "ema=0.9", "precise_bn=8",
)  # fmt: skip
CLOCK = ("seconds", "rate", "rank_rates", "rank_waits")  # of a log's line: what depends on time


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_digit_scenes(tmp_path_factory.mktemp("digits"), 16, 12, seed=0)


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "draw_curves", lambda _: None)
    monkeypatch.setattr("megbrain_py.training.assemble.draw_measured", lambda *_: None)


def detector_config(data: tuple[Path, Path], folder: Path, *words: str) -> TrainConfig:
    given = [f"data.train={data[0]}", f"data.val={data[1]}", f"output={folder}", "batch_size=4"]
    return settings.read(TrainConfig, "examples/demo.toml", [*given, *SETTINGS, *words])


Trained = tuple[list[Line], list[Checkpoint], str]


def train(config: TrainConfig, *, permuted: bool = False, resume: bool = False) -> Trained:
    """The log, the checkpoint of each step, and what was said."""
    text = io.StringIO()

    def program(own: TrainConfig) -> None:
        show = PlainDisplay(text if ranks.current().rank == 0 else io.StringIO(), seconds=0)
        trainer = assemble(own, show)
        if permuted:
            given = trainer.parts.batches
            parts = replace(trainer.parts, batches=lambda a, b: map(_other_order, given(a, b)))
            trainer = Trainer(own, parts, show)
        trainer.run(resume=resume)

    on_devices(config, program)
    folder = Path(config.output)
    steps = [checkpoint.load(path) for path in checkpoint.files(folder / "checkpoints")]
    return read_log(folder / "log.jsonl"), steps, text.getvalue()


def _other_order(batch: Any) -> Any:
    return {name: array[[2, 0, 3, 1]] for name, array in batch.items()}


def difference(one: Trained, other: Trained) -> float:
    """The largest relative difference: losses and norms of every step, figures where both have
    them, all arrays at the end."""
    kinds = {line["kind"] for line in one[0]} & {line["kind"] for line in other[0]}
    lines = [[line for line in log if line["kind"] in kinds] for log in (one[0], other[0])]
    numbers = [
        [v for line in log for k, v in line.items() if isinstance(v, float) and k not in CLOCK]
        for log in lines
    ]
    assert len(lines[0]) == len(lines[1]) >= STEPS
    found = [abs(a - b) / max(abs(b), 1e-3) for a, b in zip(*numbers, strict=True)]
    last, other_last = one[1][-1], other[1][-1]
    for section in ("model", "optimizer", "average"):
        arrays, others = getattr(last, section), getattr(other_last, section)
        assert list(arrays) == list(others)
        found += [relative_error(arrays[n], others[n]) for n in arrays if np.any(others[n])]
    return max(found)


OneRank = Callable[[str], tuple[Trained, float]]


@pytest.fixture(scope="module")
def one_rank(data: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> OneRank:
    """By seed: what one rank trains, and what another order of the pictures in a batch changes."""
    folder = tmp_path_factory.mktemp("one_rank")

    @functools.cache
    def trained(seed: str) -> tuple[Trained, float]:
        whole = train(detector_config(data, folder / seed, f"seed={seed}"))
        other = detector_config(data, folder / f"{seed}_permuted", f"seed={seed}")
        return whole, difference(train(other, permuted=True), whole)

    return trained


def check_alike(one_rank: OneRank, alike: Callable[[str], Trained]) -> None:
    """Some seed among three gives equal trainings.

    Rounding can move a picture's proposal or a ReLU's input to the other side of a decision, on one
    rank as well, when the order within a batch is another; from then on all differs. Such seeds
    cannot tell; a wrong division or order shows with any seed.
    """
    seen = []
    for seed in SEEDS:
        whole, noise = one_rank(seed)
        error = difference(alike(seed), whole)
        if error <= 1e-3 and error <= 5 * noise:
            return
        seen.append(f"seed {seed}: {error:.1e}, by another order of pictures {noise:.1e}")
    raise AssertionError("; ".join(seen))


@pytest.mark.parametrize(
    ("devices", "words"),
    [(2, ()), (3, ()), (5, ("data.val=", "precise_bn=0"))],  # two; one or two; none or one picture
    ids=["2", "3", "5"],
)
def test_training_on_ranks_is_that_of_one(
    devices: int,
    words: tuple[str, ...],
    one_rank: OneRank,
    data: tuple[Path, Path],
    tmp_path: Path,
) -> None:
    def alike(seed: str) -> Trained:
        return train(
            detector_config(data, tmp_path / seed, f"seed={seed}", f"devices={devices}", *words)
        )

    check_alike(one_rank, alike)


def test_going_on_with_more_ranks(
    one_rank: OneRank, data: tuple[Path, Path], tmp_path: Path
) -> None:
    def changed(seed: str) -> Trained:
        config = detector_config(data, tmp_path / seed, f"seed={seed}")
        train(replace(config, devices=2))
        folder = Path(config.output) / "checkpoints"
        for step in (2, 3):
            checkpoint.path_of(folder, step).unlink()
        found = train(replace(config, devices=3), resume=True)
        assert "changed since the checkpoint: devices = 2 -> 3" in found[2]
        assert "resuming after step 1 of 3" in found[2]
        return found

    check_alike(one_rank, changed)


def test_the_same_ranks_repeat_bit_by_bit(data: tuple[Path, Path], tmp_path: Path) -> None:
    """A resumed training too; batch norms of each device alone keep rank 0's statistics."""
    words = ("bn_size=local", "devices=2")
    whole = train(detector_config(data, tmp_path / "a", *words))
    folder = tmp_path / "b"
    train(detector_config(data, folder, *words))
    for step in (2, 3):
        checkpoint.path_of(folder / "checkpoints", step).unlink()
    again = train(detector_config(data, folder, *words), resume=True)
    assert difference(again, whole) == 0.0
    assert "batch norm over each device's own" in whole[2]


def test_figures_are_those_of_one_rank(data: tuple[Path, Path], tmp_path: Path) -> None:
    """Every digit of every detection; each rank looks at whole batches of its own."""
    config = detector_config(data, tmp_path / "run", "eval_batch=3", "batch_size=6")

    def measured(own: TrainConfig) -> tuple[list[dict[str, Any]], Any]:
        trainer = assemble(own, PlainDisplay(io.StringIO()))
        world = ranks.current()
        dataset = open_data(own.data.val, "", "data.val")
        loader = InputConfig(64, 64).loader(dataset, 3)
        found = detect_all(Detecting(trainer.parts.model), loader, part=(world.rank, world.size))
        every = gathered(found)
        losses = trainer.measuring.validation(trainer.parts.validation(), 0)  # type: ignore[misc]
        key = [(r["image_id"], -r["score"], r["bbox"]) for r in every.results]
        order = sorted(range(len(key)), key=key.__getitem__)
        return [every.results[i] for i in order], losses

    results, losses = on_devices(config, measured)
    assert len(results) > 100
    for devices in (2, 5):  # four batches
        found, others = on_devices(replace(config, devices=devices), measured)
        assert found == results
        assert others == losses


def test_devices_that_are_not_there_are_refused(data: tuple[Path, Path], tmp_path: Path) -> None:
    config = detector_config(data, tmp_path / "run", "devices=2")
    with pytest.raises(DataError, match="devices=2, but there is 1 rank "):
        assemble(config, PlainDisplay(io.StringIO()))
    with pytest.raises(DataError, match="bn_size expects all, local or a number"):
        detector_config(data, tmp_path / "run", "bn_size=0")


def test_a_batch_that_fits_every_device(
    data: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planned on rank 0 for all: the pictures of one device, of which each gets as many."""
    asked: list[tuple[int, int, list[int]]] = []

    def three(
        config: TrainConfig, held: int, programs: Any, most: int, _: Any, sharing: int
    ) -> Any:
        pictures = [p.types["images"].shape[0] for p in programs(5) if "key" in p.types]
        asked.append((most, sharing, pictures))
        return replace(config, batch_size=3, fit_batch=False)

    monkeypatch.setattr("megbrain_py.training.assemble.fit_batch", three)
    config = detector_config(data, tmp_path / "run", "fit_batch=true", "devices=2", "data.val=")
    shapes = on_devices(config, lambda own: assemble(own, PlainDisplay(io.StringIO())).config)
    assert shapes.batch_size == 6
    assert asked == [(8, 2, [5] * len(asked[0][2]))]
