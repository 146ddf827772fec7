"""Modules: names, state in and out, files, initialisers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from megbrain_py import nn, placeholder
from megbrain_py.errors import DataError, GraphError


class Net(nn.Module):
    def __init__(self) -> None:
        self.stem = nn.Conv2d(3, 4, 3, bias=False)
        self.bn = nn.BatchNorm2d(4)
        self.blocks = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
        self.heads = [nn.Linear(2, 2), nn.Linear(2, 3, bias=False)]
        self.table = {"a": nn.Embedding(7, 2)}


def test_names_are_dotted_and_in_definition_order() -> None:
    net = Net()
    assert list(net.named_state()) == [
        "stem.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var",
        "blocks.0.weight", "blocks.0.bias", "blocks.2.weight", "blocks.2.bias",
        "heads.0.weight", "heads.0.bias", "heads.1.weight", "table.a.weight",
    ]  # fmt: skip
    assert all(p.name == name for name, p in net.named_state().items())
    assert "bn.running_mean" not in net.named_parameters()
    assert len(net.parameters()) == 11


def test_freezing_leaves_statistics() -> None:
    net = Net()
    net.requires_grad(False)
    assert net.parameters() == []
    net.requires_grad(True)
    assert len(net.parameters()) == 11


def test_state_round_trip(tmp_path: Path) -> None:
    first, second = Net(), Net()
    assert not np.array_equal(first.stem.weight.value, second.stem.weight.value)
    path = tmp_path / "state.safetensors"
    nn.save(path, first.state_dict())
    nn.save(path, first.state_dict())  # over an older file
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    written = second.load_state_dict({**nn.load(path), "bn.num_batches_tracked": np.array(3)})
    assert written == list(first.named_state())
    for name, value in first.state_dict().items():
        assert np.array_equal(second.state_dict()[name], value)


def test_state_that_does_not_fit_is_listed_and_not_written() -> None:
    net = Net()
    before = net.state_dict()
    state = {n: v + 1 for n, v in net.state_dict().items()}
    del state["bn.bias"]
    state["extra.weight"] = np.zeros(3)
    state["stem.weight"] = np.zeros((4, 3, 5, 5), np.float32)
    with pytest.raises(DataError) as error:
        net.load_state_dict(state)
    assert "missing (1):\n    bn.bias" in str(error.value)
    assert "unknown (1):\n    extra.weight" in str(error.value)
    assert "stem.weight: expected float32[4, 3, 3, 3], found float32[4, 3, 5, 5]" in str(
        error.value
    )
    assert all(np.array_equal(v, before[n]) for n, v in net.state_dict().items())
    del state["stem.weight"]
    written = net.load_state_dict(state, strict=False)
    assert "stem.weight" not in written and "bn.weight" in written


def test_damaged_and_missing_files(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    nn.save(path, {"a": np.arange(1000)})
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="not a whole safetensors file"):
        nn.load(path)
    with pytest.raises(DataError, match="there is no file"):
        nn.load(tmp_path / "none")


def test_initialisers() -> None:
    w = nn.init.kaiming_normal((64, 32, 3, 3), rng=1)
    assert np.array_equal(w, nn.init.kaiming_normal((64, 32, 3, 3), rng=1))
    assert w.dtype == np.float32
    assert abs(w.std() / np.sqrt(2 / (32 * 9)) - 1) < 0.02
    u = nn.init.kaiming_uniform((64, 32, 3, 3), fan="fan_out", rng=1)
    assert abs(u.std() / np.sqrt(2 / (64 * 9)) - 1) < 0.02
    x = nn.init.xavier_uniform((200, 100), rng=1)
    assert abs(x.std() / np.sqrt(2 / 300) - 1) < 0.02
    assert abs(nn.init.xavier_normal((200, 100), rng=1).std() / np.sqrt(2 / 300) - 1) < 0.02
    nn.init.seed(5)
    first = nn.Linear(3, 4).weight.value.copy()
    nn.init.seed(5)
    assert np.array_equal(first, nn.Linear(3, 4).weight.value)


def test_dropout_wants_a_key() -> None:
    x = placeholder("x", (2, 3))
    assert nn.Dropout(0.5)(x) is x
    with nn.train_mode(), pytest.raises(GraphError, match="expected a key"):
        nn.Dropout(0.5)(x)
