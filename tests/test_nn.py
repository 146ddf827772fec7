"""Modules: names, state in and out, files, initialisers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import megbrain_py as mb
from megbrain_py import functional as F
from megbrain_py import nn, placeholder
from megbrain_py.errors import DataError, EngineError, GraphError


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


def test_dropout_draws_from_the_key_of_the_training_graph() -> None:
    x = placeholder("x", (4, 1000))
    key = placeholder("key", (4,), "int64")
    module = nn.Sequential(nn.Dropout(0.25), nn.Dropout(0.25))
    with nn.train_mode(key):
        first = module[0](x)
        both = module(x)
    run = mb.compile({"first": first, "both": both})
    feeds = {"x": np.ones((4, 1000), np.float32), "key": np.arange(4)}
    found, again = run(**feeds), run(**feeds)
    assert np.array_equal(found["both"], again["both"])
    kept = found["first"] != 0
    assert np.allclose(found["first"][kept], 1 / 0.75) and abs(kept.mean() - 0.75) < 0.03
    assert abs((found["both"] != 0).mean() - 0.75**2) < 0.03  # the two draw different masks


def test_a_batch_norm_used_twice_moves_its_statistics_twice() -> None:
    norm = nn.BatchNorm2d(2, momentum=0.5)
    x = placeholder("x", (2, 2, 3, 3))
    with nn.train_mode() as updates:
        y = norm(norm(x))
    assert set(updates) == {norm.running_mean, norm.running_var}
    value = np.random.default_rng(0).standard_normal((2, 2, 3, 3)).astype(np.float32) + 4
    mb.compile({"y": y}, updates=updates)(x=value)
    mean = value.mean((0, 2, 3))
    assert np.allclose(norm.running_mean.value, 0.25 * mean, atol=1e-5)  # the second mean is 0
    unbiased = value.var((0, 2, 3), ddof=1)
    second = 18 / 17 * value.var((0, 2, 3)) / (value.var((0, 2, 3)) + 1e-5)
    assert np.allclose(norm.running_var.value, 0.25 + 0.25 * unbiased + 0.5 * second, atol=1e-5)


def test_layers_build_and_run() -> None:
    net = nn.Sequential(
        nn.Conv2d(4, 6, 3, padding=1, groups=2), nn.GroupNorm(3, 6), nn.GELU(),
        nn.ConvTranspose2d(6, 2, 2, stride=2), nn.Tanh(), nn.MaxPool2d(2), nn.Sigmoid(),
        nn.Flatten(), nn.LayerNorm(2 * 5 * 5), nn.Linear(50, 3), nn.Identity(),
    )  # fmt: skip
    y = net(placeholder("x", (2, 4, 5, 5)))
    value = np.random.default_rng(0).standard_normal((2, 4, 5, 5)).astype(np.float32)
    loss = F.sum(y * y)
    grads = mb.gradients(loss, net.parameters())
    found = mb.compile([y, *grads])(x=value)
    assert found["output0"].shape == (2, 3)
    assert all(np.isfinite(g).all() and g.any() for g in found.values())
    table = nn.Embedding(7, 3)
    rows = mb.compile(table(placeholder("i", (2, 2), "int64")))(i=np.array([[0, 6], [3, 3]]))
    assert np.array_equal(rows["output"], table.weight.value[[[0, 6], [3, 3]]])


def test_a_label_out_of_range_is_refused_when_it_is_run() -> None:
    loss = F.cross_entropy(placeholder("x", (3, 5)), placeholder("label", (3,), "int64"))
    run = mb.compile(loss)
    with pytest.raises(EngineError, match="label 5 of row 1 is not one of 5 classes"):
        run(x=np.zeros((3, 5), np.float32), label=np.array([0, 5, -100]))


def test_assigning_to_a_value_writes_into_the_shared_memory() -> None:
    p = mb.Parameter(np.zeros(3, np.float32), "p")
    step = mb.compile({"twice": p * 2.0}, updates={p: p + 1.0})
    p.value = np.array([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(step()["twice"], [2, 4, 6])
    np.testing.assert_array_equal(p.value, [2, 3, 4])
    p.value += 1
    np.testing.assert_array_equal(step()["twice"], [6, 8, 10])
    with pytest.raises(EngineError, match=r"p: shape is \(3,\), the new value has \(2,\)"):
        p.value = np.zeros(2)
