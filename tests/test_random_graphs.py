"""Random graphs: each pass alone, all of them and none give the references' values."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import megbrain_py as mb
from megbrain_py import functional as F
from megbrain_py import passes, reference
from megbrain_py.graph import Graph

OPTIONAL = tuple(p for p in passes.PIPELINE if p not in passes.REQUIRED)
PIPELINES = {
    "none": passes.REQUIRED,
    **{
        p.__name__: tuple(q for q in passes.PIPELINE if q is p or q in passes.REQUIRED)
        for p in OPTIONAL
    },
    "all": passes.PIPELINE,
}

Make = Callable[[np.random.Generator, mb.Var, mb.Var], mb.Var]


def _binary(rng: np.random.Generator, x: mb.Var, y: mb.Var) -> mb.Var:
    f = [F.add, F.sub, F.mul, F.maximum, F.minimum][rng.integers(5)]
    z: mb.Var = f(x, y)
    return z


def _unary(rng: np.random.Generator, x: mb.Var, y: mb.Var) -> mb.Var:
    f = [F.relu, F.sigmoid, F.tanh, F.gelu, F.abs][rng.integers(5)]
    z: mb.Var = f(x)
    return z


def _neutral(rng: np.random.Generator, x: mb.Var, y: mb.Var) -> mb.Var:
    """What `fold` may remove."""
    if rng.integers(2):
        return x * 1.0 + 0.0
    two = mb.constant(np.full(x.shape, 1.5, np.float32)) + 0.5
    return x * two


def _movement(rng: np.random.Generator, x: mb.Var, y: mb.Var) -> mb.Var:
    if x.rank != 4:
        return F.reshape(x, (2, 4, 5, 5)) if x.type.count == 200 else x
    kind = rng.integers(4)
    if kind == 0:
        return F.transpose(F.transpose(x, (0, 2, 3, 1)), (0, 3, 1, 2))
    if kind == 1:
        return F.reshape(F.reshape(x, (-1,)), x.shape)
    if kind == 2:
        return F.concat([x[:, 2:], y[:, :2] if y.rank == 4 else x[:, :2]], 1)
    return F.where(F.greater(x, 0.1), x, y)


def _chain(rng: np.random.Generator, x: mb.Var, y: mb.Var) -> mb.Var:
    """What `chain` joins: comparisons, a choice, broadcast operands."""
    row = mb.constant(np.linspace(-1, 1, x.shape[-1] if x.rank else 1, dtype=np.float32))
    bounded = F.clip(x * row + y, -2.0, 2.0)
    inside = F.logical_and(F.greater(x, -0.5), F.less(bounded, 1.5))
    return F.where(inside, F.square(bounded), F.leaky_relu(y, 0.1) * 0.5)


def _reduction(rng: np.random.Generator, x: mb.Var, y: mb.Var) -> mb.Var:
    axes = (1,) if rng.integers(2) else (0, 2, 3)
    return x - F.mean(x, axes, keepdims=True)


WEIGHT = np.random.default_rng(3).normal(0, 0.2, (4, 4, 3, 3)).astype(np.float32)


def _vector(seed: int) -> mb.Var:
    return mb.constant(np.random.default_rng(seed).uniform(0.5, 1.5, 4).astype(np.float32))


def _image(rng: np.random.Generator, x: mb.Var, y: mb.Var) -> mb.Var:
    kind = rng.integers(5)
    if kind == 0:
        return F.conv2d(x, mb.constant(WEIGHT), padding=1)
    if kind >= 3:  # what `fuse` joins: a norm, perhaps a convolution above, a sum and a ReLU below
        h = F.conv2d(x, mb.constant(WEIGHT), padding=1) if rng.integers(2) else x
        vectors = [_vector(k) for k in range(4)]
        h, _, _ = F.batch_norm(h, *vectors, training=kind == 3)
        return F.relu(h + y if rng.integers(2) else h)
    if kind == 1:
        return F.max_pool2d(x, 3, 1, 1)
    return F.softmax(x, 1)


MAKERS: list[Make] = [
    _binary,
    _binary,
    _unary,
    _neutral,
    _movement,
    _reduction,
    _image,
    _image,
    _chain,
]


def random_graph(seed: int) -> tuple[Graph, dict[str, np.ndarray]]:
    """About 15 operators on (2, 4, 5, 5) values, their gradients and an update."""
    rng = np.random.default_rng(seed)
    a = mb.placeholder("a", (2, 4, 5, 5))
    b = mb.placeholder("b", (4, 1, 1))
    p = mb.Parameter(rng.standard_normal((2, 4, 5, 5)).astype(np.float32), "p")
    pool = [a, p, a + b]
    for _ in range(15):
        x, y = (pool[i] for i in rng.integers(0, len(pool), 2))
        made = MAKERS[rng.integers(len(MAKERS))](rng, x, y)
        pool.append(made)
        if rng.integers(4) == 0:  # a common subexpression
            pool.append(F.tanh(made) * F.tanh(made))
    kept = [pool[i] for i in rng.integers(3, len(pool), 3)]
    loss = F.sum(sum((F.tanh(k) for k in kept[1:]), F.tanh(kept[0])))
    da, db, dp = mb.gradients(loss, [a, b, p])
    outputs = {"loss": loss, "da": da, "db": db, "inner": kept[0]}
    feeds = {
        "a": rng.standard_normal((2, 4, 5, 5)).astype(np.float32),
        "b": rng.standard_normal((4, 1, 1)).astype(np.float32),
    }
    return Graph(outputs, {p: p - 0.1 * dp}), feeds


@pytest.mark.parametrize("seed", range(40))
def test_every_pipeline_gives_the_references_values(seed: int) -> None:
    graph, feeds = random_graph(seed)
    (p,) = graph.updates
    assert isinstance(p, mb.Parameter)
    start = p.value.copy()
    expected = reference.evaluate(Graph({**graph.outputs, "p": graph.updates[p]}), feeds)
    for name, pipeline in PIPELINES.items():
        p.set(start)
        a, b = mb.placeholder("a", (2, 4, 5, 5)), mb.placeholder("b", (4, 1, 1))
        function = mb.compile(
            graph.outputs, inputs=[a, b], updates=graph.updates, pipeline=pipeline
        )
        found = {**function(**feeds), "p": p.value}
        for output, value in expected.items():
            # below 1 absolute: a gradient may be a sum of about 100 values that cancel
            error = np.abs(found[output] - value).max() / max(np.abs(value).max(), 1.0)
            assert error < 2e-5, f"pipeline {name}: {output} off by {error:.1e}"
