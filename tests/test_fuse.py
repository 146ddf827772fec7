"""passes/fuse.py: batch norm's data gradient becomes one node, and only where that is right."""

from __future__ import annotations

import numpy as np

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
