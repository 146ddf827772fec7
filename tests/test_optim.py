"""Optimisers against the formulas written out in numpy; schedules; clipping; state."""

from __future__ import annotations

import math

import numpy as np
import pytest

import megbrain_py as mb
from megbrain_py import functional as F
from megbrain_py import nn, optim
from megbrain_py.errors import DataError, GraphError
from megbrain_py.op_testing import normal


def _quadratic() -> tuple[mb.Parameter, mb.Var]:
    """A parameter w, and a loss whose gradient is a * w - b."""
    w = mb.Parameter(normal(4, 3), "w")
    a, b = mb.constant(normal(4, 3, seed=1)), mb.constant(normal(4, 3, seed=2))
    return w, F.sum(w * w * a * 0.5 - w * b)


def _gradient(w: np.ndarray) -> np.ndarray:
    return normal(4, 3, seed=1) * w - normal(4, 3, seed=2)


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_follows_the_formula_in_place(nesterov: bool) -> None:
    w, loss = _quadratic()
    expected, velocity = w.value.astype(np.float64), np.zeros((4, 3))
    opt = optim.SGD([w], momentum=0.9, weight_decay=0.05, nesterov=nesterov)
    lr = mb.placeholder("lr", ())
    step = mb.compile({"loss": loss}, updates=opt.updates(loss, lr))
    kernels = [i.kernel for i in step.plan.instructions]
    assert "copy" not in kernels  # updates are written straight into parameter and state
    for k in range(5):
        rate = 0.1 / (k + 1)
        d = _gradient(expected) + 0.05 * expected
        velocity = 0.9 * velocity + d
        expected = expected - rate * (d + 0.9 * velocity if nesterov else velocity)
        step(lr=rate)
    assert np.allclose(w.value, expected, rtol=1e-5, atol=1e-6)
    assert np.allclose(opt.state_dict()["w.momentum"], velocity, rtol=1e-5, atol=1e-6)


def test_plain_sgd_has_no_state() -> None:
    w, loss = _quadratic()
    before = w.value.copy()
    opt = optim.SGD([w], momentum=0.0)
    assert opt.state_dict() == {}
    mb.compile({"loss": loss}, updates=opt.updates(loss, 0.5))()
    assert np.allclose(w.value, before - 0.5 * _gradient(before), atol=1e-6)


def test_adamw_follows_the_formula() -> None:
    w, loss = _quadratic()
    p, m, v = w.value.astype(np.float64), np.zeros((4, 3)), np.zeros((4, 3))
    opt = optim.AdamW([w], weight_decay=0.1)
    lr = mb.placeholder("lr", ())
    step = mb.compile({"loss": loss}, updates=opt.updates(loss, lr))
    for k in range(1, 8):
        g = _gradient(p)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        root = np.sqrt(v / (1 - 0.999**k)) + 1e-8
        p = p * (1 - 0.01 * 0.1) - 0.01 * (m / (1 - 0.9**k)) / root
        step(lr=0.01)
    assert np.allclose(w.value, p, rtol=1e-5, atol=1e-6)
    assert opt.state_dict()["step"] == 7


def test_groups_and_ready_gradients() -> None:
    layer = nn.Linear(3, 2, rng=0)
    groups = optim.decay_groups(layer.parameters(), 0.5)
    opt = optim.SGD(groups, momentum=0.0)
    before = {n: p.value.copy() for n, p in layer.named_parameters().items()}
    zeros = [mb.constant(np.zeros(p.shape, np.float32)) for p in opt.parameters]
    mb.compile({}, updates=opt.updates(zeros, 0.1))()
    assert np.allclose(layer.weight.value, before["weight"] * 0.95)
    assert np.array_equal(layer.bias.value, before["bias"])
    with pytest.raises(GraphError, match="expected 2 gradients, found 1"):
        opt.updates(zeros[:1], 0.1)


def test_state_round_trip_and_refusal() -> None:
    w, loss = _quadratic()
    opt = optim.AdamW([w])
    mb.compile({}, updates=opt.updates(loss, 0.1))()
    state = opt.state_dict()
    other = optim.AdamW([w])
    other.load_state_dict(state)
    assert all(np.array_equal(v, state[n]) for n, v in other.state_dict().items())
    with pytest.raises(DataError, match="missing: \\['step'\\]"):
        other.load_state_dict({n: v for n, v in state.items() if n != "step"})


def test_clipping_by_global_norm() -> None:
    values = [normal(3, 4, scale=5.0), normal(7, scale=5.0, seed=1)]
    norm = math.sqrt(sum(float((v.astype(np.float64) ** 2).sum()) for v in values))
    for limit in (1.0, 1000.0):
        clipped, found = optim.clip_by_global_norm([mb.constant(v) for v in values], limit)
        result = mb.compile({"norm": found, "a": clipped[0], "b": clipped[1]})()
        factor = min(1.0, limit / (norm + 1e-6))
        assert np.allclose(result["norm"], norm, rtol=1e-6)
        assert np.allclose(result["a"], values[0] * factor, rtol=1e-5)
        assert np.allclose(result["b"], values[1] * factor, rtol=1e-5)


def test_schedules() -> None:
    assert optim.constant(0.1)(1000) == 0.1
    steps = optim.multi_step(0.02, [10, 20])
    assert [steps(k) for k in (0, 9, 10, 19, 20, 99)] == [0.02, 0.02, 0.002, 0.002, 0.0002, 0.0002]
    wave = optim.cosine(1.0, 100, final=0.1)
    assert wave(0) == 1.0 and wave(50) == pytest.approx(0.55) and wave(100) == wave(500) == 0.1
    line = optim.warmup(optim.constant(0.2), 10, start=0.1)
    assert line(0) == pytest.approx(0.02) and line(5) == pytest.approx(0.11) and line(10) == 0.2
    power = optim.warmup(steps, 10, start=0.01, kind="exponential")
    assert power(0) == pytest.approx(0.0002) and power(5) == pytest.approx(0.002)
    assert power(15) == 0.002
    with pytest.raises(ValueError, match="must increase"):
        optim.multi_step(0.1, [5, 5])
