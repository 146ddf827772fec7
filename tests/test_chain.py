"""passes/chain.py: elementwise chains become one node, with the same bits, and only where right."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import megbrain_py as mb
from megbrain_py import engine, passes
from megbrain_py import functional as F
from megbrain_py.graph import Graph, Node
from megbrain_py.op_testing import channels_last, normal
from megbrain_py.ops.fused import KERNELS, Fused
from megbrain_py.plan import Instruction, Plan, Slot

PLAIN = tuple(p for p in passes.PIPELINE if p is not passes.chain)


def fused_nodes(graph: Graph) -> list[Node]:
    return [n for n in graph.nodes if isinstance(n.op, Fused)]


def kernels(function: mb.Function) -> list[str]:
    return [step.kernel for step in function.plan.instructions]


def _gelu_by_hand(x: mb.Var, y: mb.Var) -> mb.Var:
    return x * 0.5 * (1.0 + F.erf(x * 0.7071)) + y


def _masked(x: mb.Var, y: mb.Var) -> mb.Var:
    return F.where(F.logical_and(F.greater(x, 0.1), F.less(y, 0.9)), F.exp(x) - y, F.tanh(y))


def _diamond(x: mb.Var, y: mb.Var) -> mb.Var:
    a = F.sigmoid(x + y)
    return a * (1.0 - a) + F.square(a)


def _gradient(x: mb.Var, y: mb.Var) -> mb.Var:
    return mb.gradients(F.sum(F.silu(F.gelu(x) * y) + F.softplus(x - y)), [x])[0]


CHAINS: dict[str, Callable[[mb.Var, mb.Var], mb.Var]] = {
    "gelu": _gelu_by_hand, "masked": _masked, "diamond": _diamond, "gradient": _gradient,
}  # fmt: skip
SHAPES = {
    "same": ((2, 35, 9, 7), (2, 35, 9, 7)),
    "same_channels_last": ((2, 35, 9, 7), (2, 35, 9, 7)),
    "channels": ((2, 35, 9, 7), (35, 1, 1)),
    "channels_last": ((2, 35, 9, 7), (35, 1, 1)),
    "scalar": ((3, 1025), ()),
    "row": ((37, 129), (129,)),
    "column": ((37, 129), (37, 1)),
    "single": ((1,), (1,)),
    "empty": ((0, 5), (5,)),
    "tiles": ((70001,), (70001,)),
}


def _special(*shape: int) -> np.ndarray:
    """Normal numbers, with NaN, infinities, zeros and denormals among them."""
    x = normal(*shape)
    flat = x.reshape(-1)
    for at, value in enumerate([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-40, 3e38]):
        flat[at * 5 + 1 :: 83] = value
    return x


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_gives_the_same_bits(name: str, shape: str) -> None:
    of_x, of_y = SHAPES[shape]
    x, y = mb.placeholder("x", of_x), mb.placeholder("y", of_y)
    z = CHAINS[name](channels_last(x) if "last" in shape else x, y)
    feeds = {"x": _special(*of_x), "y": _special(*of_y)}
    joined, plain = mb.compile(z), mb.compile(z, pipeline=PLAIN)
    assert "fused" in kernels(joined)
    assert len(kernels(joined)) < len(kernels(plain))
    a, b = joined(**feeds)["output"], plain(**feeds)["output"]
    np.testing.assert_array_equal(np.isnan(a), np.isnan(b))
    assert np.nan_to_num(a).tobytes() == np.nan_to_num(b).tobytes()  # a NaN's sign is nobody's


@pytest.mark.parametrize(
    ("attrs", "message"),
    [
        ({"values": (0.0,) * 4}, "a program of 2 steps reads 3 values"),
        ({"reads": (0, 2, -1)}, "step 0 reads value 2"),
        ({"names": "softmax"}, "no step softmax for 2 operands"),
        ({"names": "relu"}, "no step relu for 2 operands"),
        ({"names": "less"}, "the last step gives bool"),
        ({"values": ()}, "a program of 2 inputs and 0 steps"),
    ],
)
def test_a_program_that_is_wrong_is_refused_at_load(
    attrs: dict[str, object], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "check_plan", lambda plan: None)  # the kernel's own checks
    right = {"names": "add", "reads": (0, 1, -1), "values": (0.0, 0.0)}
    vector = mb.TensorType((8,), mb.DType.float32)
    slots = tuple(Slot(vector, "scratch", at, 0, 1) for at in (0, 64, 128))
    step = Instruction("fused", (0, 1), (2,), {**right, **attrs}, "hand.py:1")
    plan = Plan(slots, (step,), {"a": 0, "b": 1}, {"c": 2}, (), 192, 192)
    with pytest.raises(mb.EngineError, match=message):
        engine.Executable(plan)


def test_the_kernels_table_is_the_operators() -> None:
    table = (Path(__file__).parent.parent / "ops" / "fused" / "steps.h").read_text()
    assert set(re.findall(r'^    \w+<.*>\("(\w+)"\),', table, re.MULTILINE)) == KERNELS


def test_a_chain_is_one_instruction_in_place() -> None:
    x = mb.placeholder("x", (1024,))
    function = mb.compile(((x * 2.0 + 1.0) * 3.0 - 5.0) * 0.5)
    assert kernels(function) == ["fused"]
    assert function.peak_bytes == 1024 * 4


def test_the_text_shows_the_program_and_the_last_line() -> None:
    x = mb.placeholder("x", (8,))
    y = F.exp(x)
    z = F.relu(y - 1.0)
    graph = passes.run(Graph({"z": z}))
    (node,) = fused_nodes(graph)
    assert str(node.op) == "fused(t2 = exp(x0); t3 = sub(t2, x1); relu(t3))"
    assert node.origin == z.node.origin


def test_a_value_with_another_reader_ends_the_chain() -> None:
    x = mb.placeholder("x", (8, 8))
    a = F.exp(x) * 2.0
    b = F.tanh(a) + 1.0
    graph = passes.run(Graph({"b": b, "sum": F.sum(a)}))
    assert [len(n.op.steps) for n in fused_nodes(graph)] == [2, 2]  # type: ignore[attr-defined]


def test_a_fetched_value_is_computed_once() -> None:
    x = mb.placeholder("x", (8,))
    a = F.exp(x) * 2.0
    function = mb.compile({"a": a, "b": F.tanh(a) + 1.0})
    assert kernels(function) == ["fused", "fused"]


def test_what_prints_stays_as_it_is() -> None:
    x = mb.placeholder("x", (8,))
    graph = passes.run(Graph({"y": F.print_value(F.exp(x) * 2.0) + 1.0}))
    assert "print_value" in [n.op.kernel for n in graph.nodes]


def test_large_programs_are_split() -> None:
    y = x = mb.placeholder("x", (64,))
    others = [mb.placeholder(f"p{k}", (64,)) for k in range(20)]
    for other in others:
        y = F.tanh(y + other)
    graph = passes.run(Graph({"y": y}))
    for node in fused_nodes(graph):
        assert len(node.inputs) <= Fused.max_inputs
        assert len(node.op.steps) <= Fused.max_steps  # type: ignore[attr-defined]
    feeds = {v.node.op.label: normal(64, seed=k) for k, v in enumerate([x, *others])}  # type: ignore[attr-defined]
    a = mb.compile(y)(**feeds)["output"]
    b = mb.compile(y, pipeline=PLAIN)(**feeds)["output"]
    assert a.tobytes() == b.tobytes()


def test_nothing_large_waits_for_a_late_chain() -> None:
    """A mask made early is a quarter of its input: the chain leaves it there."""
    x, w = mb.placeholder("x", (64, 64)), mb.placeholder("w", (64, 64))
    mask = F.greater(x * x, 0.5)
    late = F.softmax(x, 0)
    for _ in range(3):
        late = F.matmul(F.softmax(late, 1), w)
    function = mb.compile(F.where(mask, late, 0.0) * 2.0)
    plain = mb.compile(F.where(mask, late, 0.0) * 2.0, pipeline=PLAIN)
    assert function.peak_bytes <= plain.peak_bytes
    assert "greater" not in kernels(function), "the mask's own chain is joined"
    assert kernels(function).index("fused") < kernels(function).index("matmul")


def test_a_mask_is_not_held_as_floats() -> None:
    """All that the late chain reads is there early, but a mask is the smallest that can wait."""
    x, w = mb.placeholder("x", (256, 256)), mb.placeholder("w", (256, 256))
    h = F.matmul(x, w)
    mask = F.greater(h, 0.5)
    late = F.matmul(F.softmax(F.matmul(F.softmax(h, 1), w), 1), w)
    weight = F.where(mask, 1.0, 0.5)
    outputs = {"y": F.sum(F.matmul(late, w) * 2.0, 1), "z": F.sum(F.matmul(weight, late), 1)}
    function = mb.compile(outputs)
    assert "greater" in kernels(function)
    assert function.peak_bytes <= mb.compile(outputs, pipeline=PLAIN).peak_bytes


def test_an_update_is_one_instruction() -> None:
    p = mb.Parameter(np.array([1, 2], np.float32), "p")
    g = mb.placeholder("g", (2,))
    step = mb.compile({}, updates={p: p - 0.1 * (g + 0.5 * p)})
    assert kernels(step) == ["fused"]
    step(g=[1, 1])
    np.testing.assert_allclose(p.value, [0.85, 1.8], rtol=1e-6)
