"""What the ranks of a training decide together, and how they end, with a model of milliseconds."""

from __future__ import annotations

import io
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_fakes import Batch, batch_of, config_of, parts_of

from megbrain_py import distributed, ranks
from megbrain_py.errors import DataError, EngineError
from megbrain_py.training import checkpoint
from megbrain_py.training.config import TrainConfig
from megbrain_py.training.devices import on_devices
from megbrain_py.training.log import read_log
from megbrain_py.training.progress import PlainDisplay
from megbrain_py.training.shards import first, norm_group, shared, together
from megbrain_py.training.trainer import Outcome, Trainer


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "draw_curves", lambda _: None)


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
        note = shared(caught.value)
        assert note is not None and note.rank == 1
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
