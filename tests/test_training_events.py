"""TensorBoard event files: what they hold, after a kill and a resume too."""

from __future__ import annotations

import io
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from training_fakes import Batch, batch_of, config_of, parts_of

from megbrain_py.errors import DataError
from megbrain_py.training.log import read_log
from megbrain_py.training.progress import PlainDisplay
from megbrain_py.training.trainer import Trainer


@pytest.fixture(autouse=True)
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "draw_curves", lambda _: None)


def quiet() -> PlainDisplay:
    return PlainDisplay(io.StringIO(), seconds=0)


def events_of(folder: Path) -> list[Any]:
    """Every event of the files of a folder (TFRecord: length, checksum, bytes, checksum)."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for file in sorted(folder.iterdir()):
        data, at = file.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            found.append(Event.FromString(data[at + 12 : at + 12 + length]))
            at += 16 + length
    return found


def test_event_files_hold_the_log_the_pictures_and_the_settings(tmp_path: Path) -> None:
    from PIL import Image

    folder = tmp_path / "run"
    config = config_of(folder, "tensorboard=true", "eval_every=2")

    def evaluate() -> dict[str, Any]:
        Image.new("RGB", (7, 5), (255, 0, 0)).save(folder / "confusion.png")
        return {"AP": 0.25, "AP50": 0.5, "AP_small": None, "AP_per_class": {"cat": 0.75}}

    Trainer(config, parts_of(config, 4, evaluate=evaluate), quiet()).run()
    values: dict[tuple[str, int], Any] = {}
    for event in events_of(folder / "tensorboard"):
        for value in event.summary.value:
            values[value.tag, event.step] = value
    lines = [line for line in read_log(folder / "log.jsonl") if line["kind"] == "train"]
    for line in lines:
        for name in ("loss", "loss_fit", "lr"):
            assert values[f"train/{name}", line["step"]].simple_value == pytest.approx(line[name])
    assert values["eval/AP", 2].simple_value == 0.25
    assert values["eval/AP_per_class/cat", 4].simple_value == 0.75
    assert not any("AP_small" in tag for tag, _ in values)
    picture = values["confusion", 4].image
    assert (picture.height, picture.width) == (5, 7)
    assert b"eval_every = 2" in values["config/text_summary", 0].tensor.string_val[0]
    longer = config_of(folder, "tensorboard=true")
    Trainer(longer, parts_of(longer, 6), quiet()).run(resume=True)
    assert len(list((folder / "tensorboard").iterdir())) == 2
    starts = [e.step for e in events_of(folder / "tensorboard") if e.HasField("session_log")]
    assert starts == [5]  # what a killed process wrote beyond the checkpoint is left out


def test_event_files_need_their_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    config = config_of(tmp_path / "run", "tensorboard=true")
    with pytest.raises(DataError, match=r"tensorboard=true needs tensorboardX: pip install"):
        Trainer(config, parts_of(config, 2), quiet()).run()


def test_a_kill_loses_no_event(tmp_path: Path) -> None:
    """The files are looked at while the writer is open."""
    config = config_of(tmp_path / "run", "tensorboard=true")
    seen: list[int] = []

    def batches(start: int, stop: int) -> Iterator[Batch]:
        for step in range(start, stop):
            if step == 3:
                events = events_of(tmp_path / "run" / "tensorboard")
                seen.extend(e.step for e in events for v in e.summary.value if v.tag == "train/lr")
            yield batch_of(config.seed, step)

    Trainer(config, parts_of(config, 4, batches=batches), quiet()).run()
    assert seen == [1, 2, 3]
