"""passes/fuse.py: batch norm and its neighbours become one node, only where that is right."""

from __future__ import annotations

import numpy as np
import pytest

import megbrain_py as mb
from megbrain_py import functional as F
from megbrain_py import passes
from megbrain_py.graph import Graph, Var
from megbrain_py.op_testing import normal


def _backward() -> tuple[dict[str, Var], Var]:
    x = mb.placeholder("x", (2, 5, 4, 4))
    vectors = [mb.constant(normal(5, seed=i, shift=2.0, scale=0.1)) for i in range(4)]
    y, _, _ = F.batch_norm(x, *vectors, training=True)
    loss = F.sum(y * y * y)
    (dx,) = mb.gradients(loss, [x])
    return {"loss": loss, "dx": dx}, dx


def _kernels(graph: Graph) -> list[str]:
    return [node.op.kernel for node in graph.nodes]


def test_data_gradient_is_one_node() -> None:
    outputs, _ = _backward()
    kernels = _kernels(passes.run(Graph(outputs)))
    assert kernels.count("channel_affine_sum") == 1
    assert "channel_affine" not in kernels and "channel_scale" not in kernels


def test_a_part_that_is_fetched_is_not_fused() -> None:
    outputs, dx = _backward()
    part = dx.node.inputs[0]
    kernels = _kernels(passes.run(Graph({**outputs, "part": part})))
    assert "channel_affine_sum" not in kernels


def test_a_part_that_is_read_elsewhere_is_not_fused() -> None:
    outputs, dx = _backward()
    other = F.sum(dx.node.inputs[1] * 2.0)
    kernels = _kernels(passes.run(Graph({**outputs, "other": other})))
    assert "channel_affine_sum" not in kernels


def test_fused_and_plain_agree() -> None:
    outputs, _ = _backward()
    x = normal(2, 5, 4, 4, shift=3.0)
    plain = tuple(p for p in passes.PIPELINE if p is not passes.fuse)
    a = mb.compile(outputs)(x=x)
    b = mb.compile(outputs, pipeline=plain)(x=x)
    assert np.allclose(a["dx"], b["dx"], rtol=1e-5, atol=1e-5)


def _block(training: bool) -> tuple[dict[str, Var], dict[str, np.ndarray]]:
    """Two norms, ReLUs and a residual sum, as a residual network has them; gradients of inputs."""
    x, s = mb.placeholder("x", (3, 35, 6, 5)), mb.placeholder("s", (3, 35, 6, 5))
    vectors = [mb.constant(normal(35, seed=i, shift=2.0, scale=0.1)) for i in range(4)]
    inner = F.relu(F.batch_norm(x * 1.5, *vectors, training=training)[0])
    outer, _, _ = F.batch_norm(F.tanh(inner), *vectors, training=training)
    y = F.relu(outer + s)
    dx, ds = mb.gradients(F.sum(y * y * y), [x, s])
    feeds = {"x": normal(3, 35, 6, 5, shift=1.0), "s": normal(3, 35, 6, 5, seed=1)}
    return {"y": y, "dx": dx, "ds": ds}, feeds


def test_norm_sum_and_relu_are_one_node() -> None:
    kernels = _kernels(passes.run(Graph(_block(training=True)[0])))
    assert kernels.count("channel_normalise_joined") == 2
    assert kernels.count("channel_relu_normalise_sums") == 1
    assert kernels.count("channel_relu_affine_sum") == 1
    assert "channel_normalise" not in kernels and "relu" not in kernels
    assert kernels.count("channel_normalise_sums") == 1, "the sum's gradient is needed beside it"


def test_a_frozen_norms_scale_joins_the_relus_gradient() -> None:
    kernels = _kernels(passes.run(Graph(_block(training=False)[0])))
    assert kernels.count("channel_normalise_joined") == 2
    assert kernels.count("channel_scale") == 1, "behind the sum, whose gradient is needed too"


@pytest.mark.parametrize("training", [True, False])
def test_joined_norms_give_the_plain_values(training: bool) -> None:
    outputs, feeds = _block(training)
    plain = tuple(p for p in passes.PIPELINE if p not in (passes.fuse, passes.chain))
    a = mb.compile(outputs)(**feeds)
    b = mb.compile(outputs, pipeline=plain)(**feeds)
    assert a["y"].tobytes() == b["y"].tobytes()
    for name in ("dx", "ds"):
        np.testing.assert_allclose(a[name], b[name], rtol=1e-5, atol=1e-5)


def test_a_relus_gradient_that_is_fetched_stays() -> None:
    outputs, _ = _block(training=True)
    behind_norm = [n for n in Graph(outputs).nodes if n.op.kernel == "relu_grad"][-1]
    kernels = _kernels(passes.run(Graph({**outputs, "dz": behind_norm.outputs[0]})))
    assert "channel_relu_affine_sum" not in kernels
    assert kernels.count("channel_normalise_sums") == 2


def _convolved(channels: int, bias: bool) -> tuple[dict[str, Var], dict[str, np.ndarray]]:
    """relu(conv + bias) and the gradient of a sum of its squares."""
    x = mb.placeholder("x", (2, channels, 24, 24))
    w = mb.Parameter(normal(channels, channels, 3, 3, scale=0.05))
    b = mb.Parameter(normal(channels)) if bias else None
    y = F.relu(F.conv2d(x, w, b, padding=1))
    (dw,) = mb.gradients(F.sum(y * y), [w])
    return {"y": y, "dw": dw}, {"x": normal(2, channels, 24, 24)}


@pytest.mark.parametrize("bias", [False, True])
def test_relu_joins_a_winograd_convolution(bias: bool) -> None:
    outputs, fed = _convolved(64, bias)
    joined = mb.compile(outputs)
    plain = mb.compile(outputs, pipeline=[p for p in passes.PIPELINE if p is not passes.fuse])
    kernels = [step.kernel for step in joined.plan.instructions]
    assert "conv2d_winograd" in kernels and "relu" not in kernels
    assert "relu" in [step.kernel for step in plain.plan.instructions]
    for name, value in joined(**fed).items():
        np.testing.assert_array_equal(value, plain(**fed)[name])
    fed["x"][1, 3, 5, 7] = np.nan
    assert np.isnan(joined(**fed)["y"][1, :, 4:7, 6:9]).all()


def test_relu_stays_behind_a_direct_convolution() -> None:
    outputs, fed = _convolved(4, True)
    function = mb.compile({"y": outputs["y"]})
    assert [step.kernel for step in function.plan.instructions][:2] == ["conv2d", "relu"]
    fed["x"][1, 3, 5, 7] = np.nan
    assert np.isnan(function(**fed)["y"][1, :, 4:7, 6:9]).all()
