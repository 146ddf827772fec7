"""A detector trained on many ranks is the one that a single rank trains: same losses, weights,
figures; so is one that goes on with another number of ranks."""

from __future__ import annotations

import functools
import io
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_fakes import Batch, batch_of, config_of, parts_of

from megbrain_py import distributed, ranks
from megbrain_py.data.digit_scenes import make_digit_scenes
from megbrain_py.errors import DataError, EngineError
from megbrain_py.op_testing import relative_error
from megbrain_py.training import checkpoint, settings
from megbrain_py.training.assemble import assemble
from megbrain_py.training.checkpoint import Checkpoint
from megbrain_py.training.config import TrainConfig
from megbrain_py.training.detector import Detecting, InputConfig, detect_all
from megbrain_py.training.devices import on_devices
from megbrain_py.training.log import Line, read_log
from megbrain_py.training.progress import PlainDisplay
from megbrain_py.training.shards import first, gathered, norm_group, together
from megbrain_py.training.trainer import Outcome, Trainer

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
        dataset = assemble_data(own)
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


def assemble_data(config: TrainConfig) -> Any:
    from megbrain_py.training.assemble import open_data

    return open_data(config.data.val, "", "data.val")


# --- what all decide together, with a model of milliseconds ---


def on_fakes(
    folder: Path, devices: int, steps: int, *words: str, **changes: Any
) -> tuple[list[Outcome], str]:
    """Outcomes by rank and what was said; batches of two pictures for each rank."""
    config = config_of(folder / "run", f"devices={devices}", *words)
    texts = [io.StringIO() for _ in range(devices)]

    def program() -> Outcome:
        rank = ranks.current().rank
        made = {name: change(rank) for name, change in changes.items()}
        return Trainer(config, parts_of(config, steps, **made), PlainDisplay(texts[rank], 0)).run()

    outcomes = distributed.run(program, devices)
    return outcomes, texts[0].getvalue()


def rank_batches(rank: int, change: Callable[[int, Batch], None]) -> Any:
    def batches(start: int, stop: int) -> Iterator[Batch]:
        for step in range(start, stop):
            batch = batch_of(3, step)
            change(step, batch)
            yield batch

    return batches


def test_a_signal_ends_all_ranks_after_one_step(tmp_path: Path) -> None:
    """It comes while rank 1 prepares a batch; the training is resumed to the end."""
    main = threading.get_ident()

    def interrupts(rank: int) -> Any:
        def change(step: int, _: Batch) -> None:
            if rank == 1 and step == 4:
                signal.pthread_kill(main, signal.SIGTERM)
                time.sleep(0.3)

        return rank_batches(rank, change)

    config = config_of(tmp_path / "run", "devices=3")
    text = io.StringIO()

    def program(own: TrainConfig) -> tuple[int, bool]:
        rank = ranks.current().rank
        show = PlainDisplay(text if rank == 0 else io.StringIO(), 0)
        outcome = Trainer(own, parts_of(own, 9, batches=interrupts(rank)), show).run()
        ends = distributed.all_gather_objects((outcome.step, outcome.finished))
        assert len(set(ends)) == 1
        return ends[0]

    step, finished = on_devices(config, program)
    assert step in (5, 6) and not finished
    assert f"SIGTERM: saved after step {step}; resume with --resume" in text.getvalue()
    saved = checkpoint.files(tmp_path / "run" / "checkpoints")
    assert [path.name for path in saved] == [f"step_{step:08d}.safetensors"]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_loss_that_is_not_finite_on_one_rank_stops_all(tmp_path: Path) -> None:
    """The error names the pictures of all ranks; every rank raises it, none hangs."""
    seen: list[str] = []

    def poison(rank: int) -> Any:
        def change(step: int, batch: Batch) -> None:
            batch["image_ids"] = batch["image_ids"] + 10 * rank
            if rank == 1 and step == 2:
                batch["images"][0, 0, 0, 0] = np.nan

        return rank_batches(rank, change)

    config = config_of(tmp_path / "run", "devices=2", "checkpoint_every=1")

    def program() -> None:
        parts = parts_of(config, 5, batches=poison(ranks.current().rank))
        try:
            Trainer(config, parts, PlainDisplay(io.StringIO())).run()
        except EngineError as error:
            seen.append(str(error))

    distributed.run(program, 2)
    assert len(seen) == 2 and seen[0] == seen[1]
    assert "step 2: loss_fit = nan" in seen[0]
    assert "[200, 201, 210, 211]" in seen[0]
    assert "step_00000002" in seen[0]


def test_rank_0_alone_writes_and_shows(tmp_path: Path) -> None:
    def evaluate(rank: int) -> Any:
        figures = iter([0.5, 0.4, 0.3, 0.2])
        return lambda: first(lambda: {"AP": next(figures), "AP50": 0.5})

    outcomes, text = on_fakes(
        tmp_path, 3, 12, "eval_every=2", "patience=2", "checkpoint_every=4", evaluate=evaluate
    )
    assert outcomes == [Outcome(6, True, {"AP": 0.3, "AP50": 0.5})] * 3
    assert "no better AP in 2 measurings: the training ends after step 6" in text
    lines = read_log(tmp_path / "run" / "log.jsonl")
    steps = [line for line in lines if line["kind"] == "train"]
    assert [line["step"] for line in steps] == list(range(1, 7))
    assert [line["step"] for line in lines if line["kind"] == "eval"] == [2, 4, 6]
    assert checkpoint.load(tmp_path / "run" / "best.safetensors").step == 2
    timed = [line for line in steps if line["rate"] is not None]
    assert timed
    for line in timed:
        assert sum(line["rank_rates"]) == pytest.approx(line["rate"], abs=0.02)
        assert len(line["rank_waits"]) == 3
    assert "img/s on 3 ranks, " in text


def test_a_training_that_cannot_start_says_so_on_every_rank(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "log.jsonl").touch()
    config = config_of(tmp_path / "run", "devices=3")

    def program() -> str:
        with pytest.raises(DataError) as caught:
            Trainer(config, parts_of(config, 2), PlainDisplay(io.StringIO())).run()
        return str(caught.value)

    found = distributed.run(program, 3)
    assert set(found) == {
        f"train: {tmp_path / 'run'} holds a training already; go on with --resume, or choose "
        "another output="
    }


def test_what_one_rank_refuses_all_refuse() -> None:
    def refuses() -> int:
        if ranks.current().rank:
            raise OSError(2, f"no file on rank {ranks.current().rank}")
        return 7

    def program() -> tuple[int, str]:
        with pytest.raises(OSError, match="no file on rank") as caught:
            together(refuses)
        return first(refuses), str(caught.value)

    assert distributed.run(program, 3) == [(7, "[Errno 2] no file on rank 1")] * 3


@pytest.mark.parametrize(
    ("words", "colors"),
    [
        ((), (0, 0, 0, 0)),
        (("bn_size=local",), (0, 1, 2, 3)),
        (("bn_size=4",), (0, 0, 1, 1)),
        (("bn_size=3",), "bn_size=3: group: 3 images are no whole number of ranks with 2 each"),
        (("bn_size=6",), "bn_size=6: group: 4 ranks cannot form groups of 3"),
        (("bn_size=2", "batch_size=6"), "expects pictures for each of 4 devices, equally many"),
        (("bn_size=local", "batch_size=3"), "bn_size=local expects pictures for each of 4 devices"),
    ],
)
def test_bn_size(words: tuple[str, ...], colors: tuple[int, ...] | str, tmp_path: Path) -> None:
    config = config_of(tmp_path, "batch_size=8", *words)

    def program() -> Any:
        try:
            return norm_group(config).colors
        except DataError as error:
            return str(error)

    for found in distributed.run(program, 4):
        assert found == colors if isinstance(colors, tuple) else colors in found


def test_devices_that_are_not_there_are_refused(data: tuple[Path, Path], tmp_path: Path) -> None:
    config = detector_config(data, tmp_path / "run", "devices=2")
    with pytest.raises(DataError, match="devices=2, but there is 1 rank "):
        assemble(config, PlainDisplay(io.StringIO()))
    with pytest.raises(DataError, match="bn_size expects all, local or a number"):
        detector_config(data, tmp_path / "run", "bn_size=0")
