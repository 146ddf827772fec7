"""memory=: a training keeps it in every compiled function, or is refused; the batch that fits."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import data_files
import numpy as np
import pytest

from megbrain_py.cli.main import main
from megbrain_py.errors import CompileError, DataError
from megbrain_py.planning.recompute import LIMITS
from megbrain_py.planning.sizes import parse_size
from megbrain_py.training import fit_batch, settings
from megbrain_py.training.assemble import assemble
from megbrain_py.training.config import TrainConfig
from megbrain_py.training.fit_batch import largest_fitting
from megbrain_py.training.log import read_log
from megbrain_py.training.memory import programs_of
from megbrain_py.training.progress import PlainDisplay
from megbrain_py.training.trainer import Trainer


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prices that are not measured, and a planner that searches little."""
    monkeypatch.setenv("MB_COSTS", "roofline")
    monkeypatch.setitem(LIMITS, "default", LIMITS["fast"])


def words(
    folder: Path, *more: str, sizes: Sequence[tuple[int, int]] = ((64, 96),) * 6
) -> list[str]:
    """Settings of a short training on small pictures."""
    file = folder / "data" / "annotations" / "instances.json"
    if not file.exists():
        data_files.write(folder / "data", data_files.document(list(sizes), 3))
    given = [f"data.train={file}", "data.short_side=64", "data.long_side=96", "steps=3"]
    return [*given, "data.workers=0", f"output={folder / 'run'}", *more]


def assembled(folder: Path, *more: str, **options: Any) -> tuple[Trainer, str]:
    """A Trainer, and what was said."""
    stream = io.StringIO()
    config = settings.read(TrainConfig, None, words(folder, *more, **options))
    return assemble(config, PlainDisplay(stream)), stream.getvalue()


def held_and_arena(trainer: Trainer) -> tuple[int, int]:
    """Bytes of all parameters that the compiled functions refer to, and of their largest arena."""
    plans = [program.function.specialize(**program.types).plan for program in programs_of(trainer)]
    arrays = {id(b.array): b.type.nbytes for plan in plans for b in plan.state if not b.constant}
    return sum(arrays.values()), max(plan.scratch_bytes for plan in plans)


def outcome(trainer: Trainer) -> tuple[list[float], list[bytes]]:
    trainer.run()
    losses = [line["loss"] for line in read_log(trainer.folder / "log.jsonl") if "loss" in line]
    return losses, [p.value.tobytes() for p in trainer.parts.model.named_state().values()]


VARIANTS = {  # share of the arena, settings
    "plain": (0.75, []),
    "accumulate": (0.8, ["accumulate=2", "ema=0.9", "optimizer.clip_value=1"]),
    "measured": (0.95, ["precise_bn=4", "val_loss_images=4", "optimizer.name=adamw"]),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_losses_and_weights_are_bit_equal_within_less_memory(variant: str, tmp_path: Path) -> None:
    share, chosen = VARIANTS[variant]
    more = [*chosen, "batch_size=4", "steps=2"]
    if variant == "measured":
        words(tmp_path)
        more.append(f"data.val={tmp_path / 'data' / 'annotations' / 'instances.json'}")
    plain, text = assembled(tmp_path, *more, f"output={tmp_path / 'plain'}")
    assert "memory:" not in text
    expected = outcome(plain)
    _, before = held_and_arena(plain)
    limited, text = assembled(tmp_path, *more, f"memory={share}")
    held, arena = held_and_arena(limited)
    allowed = re.search(r"of it ([0-9.]+ MiB) for weights .* ([0-9.]+ MiB) for the arena", text)
    assert allowed is not None
    assert held == pytest.approx(parse_size(allowed[1]), rel=0.01)
    assert held == limited.step_function.state_bytes()
    assert arena <= share * before
    assert "instructions run again" in text and "no plan can cost less than" in text
    assert outcome(limited) == expected


def test_a_limit_in_bytes_holds_for_all_functions_together(tmp_path: Path) -> None:
    sizes = [(64, 96)] * 5 + [(96, 64)] * 3
    plain, _ = assembled(tmp_path, "batch_size=3", sizes=sizes)
    held, arena = held_and_arena(plain)
    limit = held + int(0.8 * arena)
    limited, text = assembled(tmp_path, "batch_size=3", f"memory={limit}", sizes=sizes)
    assert text.count("\n  step on pictures 3x3x") == 2
    assert sum(held_and_arena(limited)) <= limit
    limited.run()
    assert limited.step_function.peak_bytes <= limit - held
    assert sum(held_and_arena(limited)) <= limit  # also what was compiled on the way


def test_a_limit_that_is_too_small_names_the_least_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(CompileError) as refused:
        assembled(tmp_path, "batch_size=2", "memory=1MiB")
    text = str(refused.value)
    assert text.startswith("train: memory of 1.0 MiB is too small, the least that can be kept is ")
    assert "MiB are parameters and constants, " in text and "\n  peak: " in text
    assert re.search(r"\n +[0-9.]+ [KM]iB  float32\[.*\.py:\d+\n", text)
    assert text.endswith("needs less") and "for the step on pictures 2x3x64x96, 16 rows" in text
    assert not (tmp_path / "run").exists()
    least = re.search(r"\((\d+) bytes\)", text)
    assert least is not None
    kept, _ = assembled(tmp_path, "batch_size=2", f"memory={least[1]}")
    assert sum(held_and_arena(kept)) <= int(least[1])
    with pytest.raises(CompileError, match="too small"):
        assembled(tmp_path, "batch_size=2", f"memory={held_and_arena(kept)[0]}")


@pytest.mark.parametrize("memory", ["much", "1.5", "0.0", "0", "-1", "3 parsec", "nan", "1e", "."])
def test_what_is_no_memory(memory: str) -> None:
    with pytest.raises(DataError, match="config: memory expects bytes such as 3GiB, or a share"):
        settings.read(TrainConfig, None, [f"memory={memory}"])


def test_what_is_memory() -> None:
    def limit(text: str) -> object:
        return settings.read(TrainConfig, None, [f"memory={text}"]).memory_limit

    assert limit("3GiB") == 3 * 2**30 and limit("1.5 MiB") == 3 * 2**19 and limit("4096") == 4096
    assert limit("0.5") == 0.5 and limit("1.0") == 1.0 and isinstance(limit("1.0"), float)
    assert TrainConfig().memory_limit is None


# --- the batch that fits ---


def unlimited(folder: Path, **options: Any) -> tuple[int, int]:
    """What a step on one picture takes: held, and the arena."""
    trainer, _ = assembled(folder, "batch_size=1", **options)
    return trainer.step_function.state_bytes(), programs_of(trainer)[0].arena()


@pytest.mark.parametrize("seed", range(40))
def test_the_largest_count_that_fits(seed: int) -> None:
    rng = np.random.default_rng(seed)
    most, fixed = int(rng.integers(1, 300)), int(rng.integers(0, 1000))
    bent = rng.integers(0, 60, most + 1) if seed % 2 else np.zeros(most + 1, int)
    needs = fixed + np.cumsum(10 + bent)
    room = int(rng.integers(0, needs[-1] * 2))
    calls: list[int] = []

    def need(count: int) -> int:
        calls.append(count)
        return int(needs[count])

    found = largest_fitting(need, room, most, int(rng.integers(0, most + 2)))
    assert found == sum(needs[1:] <= room)
    assert len(set(calls)) == len(calls) <= (25 if seed % 2 else 7)


def test_the_batch_fits_and_one_picture_more_does_not(tmp_path: Path) -> None:
    sizes = [(64, 96)] * 12
    held, arena = unlimited(tmp_path, sizes=sizes)
    memory = f"memory={held + int(1.7 * arena)}"
    trainer, text = assembled(tmp_path, "fit_batch=true", memory)
    found = trainer.config.batch_size
    assert 3 <= found < 12
    assert "instructions run again" in text  # more than fit as they are
    assert f"batch_size: {found} pictures fit memory of " in text
    assert f", {found + 1} would need " in text
    assert f"3 steps of {found} pictures" in text
    assert f"x {found}/16 = " in text  # the rate is scaled to it
    assert sum(held_and_arena(trainer)) <= held + int(1.7 * arena)
    with pytest.raises(CompileError, match="too small"):
        assembled(tmp_path, f"batch_size={found + 1}", memory)


def test_without_a_limit_the_batch_fits_what_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert 2**20 < fit_batch.free_memory() < 2**50
    held, arena = unlimited(tmp_path)
    monkeypatch.setattr(fit_batch, "free_memory", lambda: int((held + 3.2 * arena) / 0.8))
    trainer, text = assembled(tmp_path, "fit_batch=true", "data.cache_mb=0")
    found = trainer.config.batch_size
    assert 2 <= found < 6 and f"{found + 1} would need" in text
    assert "80% of the " in text and " that are free less 0 bytes for data.cache_mb: " in text
    needed = held + max(program.arena() for program in programs_of(trainer))
    assert needed <= 0.8 * fit_batch.free_memory()
    monkeypatch.setattr(fit_batch, "free_memory", lambda: held)
    with pytest.raises(CompileError, match=r"train: one picture needs .*\n  memory=SIZE makes"):
        assembled(tmp_path, "fit_batch=true")


def test_a_share_says_nothing_about_a_batch() -> None:
    with pytest.raises(DataError, match="fit_batch expects memory in bytes"):
        settings.read(TrainConfig, None, ["fit_batch=true", "memory=0.5"])


# --- commands ---


def test_the_command_keeps_the_batch_it_began_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = words(tmp_path)
    size = "25MiB"
    assert main(["train", *given, "--batch", "auto", "--memory", size, "steps=1"]) == 0
    said = capsys.readouterr().out
    found = re.search(r"batch_size: (\d+) pictures fit memory of 25.0 MiB", said)
    assert found is not None and "memory: 25.0 MiB allowed" in said
    config = settings.read(TrainConfig, tmp_path / "run" / "config.toml")
    assert config.batch_size == int(found[1]) and config.memory == size
    monkeypatch.setattr(fit_batch, "free_memory", lambda: 0)
    assert main(["train", "--resume", str(tmp_path / "run"), "--memory", "1GiB", "steps=2"]) == 0
    assert main(["train", *given, "--batch=auto", "--resume", "steps=3"]) == 0
    said = capsys.readouterr().out
    assert said.count(f"of {found[1]} pictures") == 2
    assert "changed since the checkpoint: memory" not in said


def test_show_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = words(tmp_path)
    val = next(word for word in given if word.startswith("data.train=")).replace("train", "val", 1)
    assert main(["train", *given, "--show-memory", "--memory", "1MiB", val]) == 0
    said = capsys.readouterr().out
    assert "\nstep on pictures 2x3x64x96, 16 rows of boxes\ntime against memory on cpu" in said
    assert "\nevaluation on pictures 2x3x64x96, 16 rows of boxes: arena " in said
    assert (tmp_path / "run" / "memory.png").is_file()
    assert not (tmp_path / "run" / "log.jsonl").exists()


@pytest.mark.parametrize("batch", ["0", "-2", "many", "1.5"])
def test_what_is_no_batch(batch: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--batch", batch])
    assert "expected a number of pictures or auto" in capsys.readouterr().err
