"""Residual networks: names, stages, options; ResNet-50 against torchvision's goldens."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import megbrain_py as mb
from megbrain_py import functional as F
from megbrain_py import nn, optim
from megbrain_py.models.resnet import CONFIGS, PreactivationResNet, resnet
from megbrain_py.op_testing import normal

GOLDENS = Path(__file__).with_name("goldens")
sys.path.insert(0, str(GOLDENS))

from recipe import recipe_image, recipe_weights, sample  # noqa: E402
from store import load  # noqa: E402

MEAN = np.array([0.485, 0.456, 0.406], np.float32)[:, None, None]
STD = np.array([0.229, 0.224, 0.225], np.float32)[:, None, None]
LOGITS_BAR, GRADIENT_BAR, STATISTICS_BAR = 1e-4, 1e-3, 1e-4


def _images(batch: int, size: int) -> np.ndarray:
    made = [(recipe_image(f"resnet50/{i}", size, size) - MEAN) / STD for i in range(batch)]
    return np.stack(made)


def _errors(golden: dict[str, np.ndarray], prefix: str, found: dict[str, np.ndarray]) -> dict:
    """Relative error of each array's sampled entries and of its maximum and norm."""
    errors = {}
    for name, ours in found.items():
        key = f"{prefix}/{name}"
        samples, (largest, norm) = golden[f"{key}/samples"], golden[f"{key}/stats"]
        difference = np.abs(sample(key, ours, len(samples)) - samples).max() / largest
        errors[name] = max(
            difference,
            abs(np.abs(ours).max() / largest - 1),
            abs(np.linalg.norm(ours.astype(np.float64)) / norm - 1),
        )
    return errors


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_resnet50_follows_torchvision(mode: str) -> None:
    golden = load(GOLDENS / "resnet50.npz")
    batch, size = golden["batch_and_size"]
    net = resnet("resnet50", rng=0)
    net.load_state_dict(recipe_weights({n: p.shape for n, p in net.named_state().items()}))
    x = mb.placeholder("x", (int(batch), 3, int(size), int(size)))
    labels = mb.placeholder("labels", (int(batch),), "int64")
    updates: dict[mb.Parameter, mb.Var] = {}
    if mode == "train":
        with nn.train_mode() as updates:
            logits = net(x)
    else:
        logits = net(x)
    loss = F.cross_entropy(logits, labels)
    names = list(net.named_parameters())
    grads = dict(zip(names, mb.gradients(loss, net.parameters()), strict=True))
    run = mb.compile({"logits": logits, "loss": loss, **grads}, updates=updates)
    found = run(x=_images(int(batch), int(size)), labels=golden["labels"])

    expected = golden[f"{mode}/logits"]
    assert np.abs(found["logits"] - expected).max() <= LOGITS_BAR * np.abs(expected).max()
    assert abs(found["loss"] - golden[f"{mode}/loss"]) <= LOGITS_BAR * abs(found["loss"])
    errors = _errors(golden, f"{mode}/gradient", {n: found[n] for n in names})
    stored = [key for key in golden if key.startswith(f"{mode}/gradient/")]
    assert len(stored) == 2 * len(errors) == 2 * 161
    assert max(errors.values()) <= GRADIENT_BAR, max(errors, key=errors.__getitem__)
    if mode == "train":
        running = {n: p.value for n, p in net.named_state().items() if "running" in n}
        errors = _errors(golden, "train/statistics", running)
        assert len(errors) == 106
        assert max(errors.values()) <= STATISTICS_BAR, max(errors, key=errors.__getitem__)


@pytest.mark.parametrize("name", CONFIGS)
def test_stages_have_the_stated_shapes(name: str) -> None:
    net = resnet(name, rng=0, classes=0)
    x = mb.placeholder("x", (2, 3, 64, 96))
    stages = net(x)
    assert list(stages) == list(net.channels)
    for stage, y in stages.items():
        step = net.strides[stage]
        assert y.shape == (2, net.channels[stage], 64 // step, 96 // step)
    if name not in ("cifar20",):
        assert list(net.strides.values()) == [4, 8, 16, 32]


def test_blocks_start_as_identities() -> None:
    net = resnet("laptop", rng=0, zero_init_last=True)
    last = [p for n, p in net.named_state().items() if n.endswith("bn2.weight")]
    assert len(last) == 4 and not any(p.value.any() for p in last)


def test_frozen_norms_and_frozen_parts() -> None:
    net = resnet("laptop", rng=0, classes=0, norm="frozen")
    assert not any("bn" in n for n in net.named_parameters())
    total = len(net.parameters())
    net.freeze_at(2)
    names = list(net.named_parameters())
    assert not any(n.startswith(("conv1", "layer1")) for n in names)
    assert len(names) == total - 3
    x = normal(1, 3, 32, 32)
    with nn.train_mode() as updates:
        y = net(mb.placeholder("x", x.shape))["C5"]
    assert not updates
    plain = resnet("laptop", rng=0, classes=0)
    expected = mb.compile(plain(mb.placeholder("x", x.shape))["C5"])(x=x)["output"]
    assert np.allclose(mb.compile(y)(x=x)["output"], expected, rtol=1e-5, atol=1e-5)


def test_unknown_name() -> None:
    with pytest.raises(ValueError, match="'resnet5' is not known; known: resnet18"):
        resnet("resnet5")


@pytest.mark.parametrize(("depth", "parameters"), [(164, 1.7e6), (1001, 10.2e6)])
def test_preactivation_networks_have_the_papers_size(depth: int, parameters: float) -> None:
    net = PreactivationResNet(depth, rng=0)
    convolutions = [n for n, p in net.named_parameters().items() if len(p.shape) == 4]
    beside = [n for n in convolutions if "shortcut" in n]
    assert len(convolutions) - len(beside) + 1 == depth  # and the classifier
    assert len(beside) == 3
    assert sum(p.value.size for p in net.parameters()) == pytest.approx(parameters, rel=0.02)


def test_a_preactivation_network_learns() -> None:
    net = PreactivationResNet(11, rng=0)
    images, labels = normal(8, 3, 32, 32), np.arange(8)
    x, y = mb.placeholder("x", images.shape), mb.placeholder("y", (8,), "int64")
    with nn.train_mode() as statistics:
        logits = net(x)
        loss = F.cross_entropy(logits, y)
    assert logits.shape == (8, 10)
    sgd = optim.SGD(net.parameters(), momentum=0.9)
    step = mb.compile({"loss": loss}, updates={**statistics, **sgd.updates(loss, 0.1)})
    losses = [float(step(x=images, y=labels)["loss"]) for _ in range(10)]
    assert losses[1] < losses[0]
    assert losses[-1] < 0.5 * losses[0]


def test_depths_of_preactivation_networks() -> None:
    with pytest.raises(ValueError, match="depth 1000 is not 9 n"):
        PreactivationResNet(1000)
