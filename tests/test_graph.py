"""Graphs: construction, errors, rewriting, verification, printing, networkx."""

from __future__ import annotations

import networkx
import numpy as np
import pytest

import megbrain_py as mb
from megbrain_py import functional as F
from megbrain_py.graph import Graph, Placeholder, rewrite, verify


def test_error_has_operator_inputs_and_the_users_line() -> None:
    x = mb.placeholder("x", (3, 4))
    w = mb.Parameter(np.zeros((5,), np.float32), "layer.weight")
    with pytest.raises(mb.GraphError) as caught:
        F.add(x, w)
    first, about_x, about_w, last = str(caught.value).splitlines()
    assert first == "add: shapes (3, 4) and (5,) do not broadcast"
    assert about_x.startswith("  float32[3,4]   placeholder") and "test_graph.py" in about_x
    assert "parameter(layer.weight)" in about_w
    assert last.startswith("  at ") and "tests/test_graph.py:" in last


def test_a_var_has_no_truth_value() -> None:
    with pytest.raises(mb.GraphError, match="no truth value"):
        bool(mb.placeholder("x", ()))


def test_gradient_nodes_inherit_the_forward_line() -> None:
    x = mb.placeholder("x", (3,))
    y = x * x  # the line that the gradient must name
    line = y.node.origin
    (dx,) = mb.gradients(F.sum(y), [x])
    assert dx.node.origin == line


def test_unused_inputs_get_zero_gradients() -> None:
    x, z = mb.placeholder("x", (3,)), mb.placeholder("z", (2, 2))
    dx, dz = mb.gradients(F.sum(x * 2.0), [x, z])
    function = mb.compile({"dx": dx, "dz": dz}, inputs=[x, z])  # listed: may be fed though unused
    result = function(x=np.ones(3), z=np.ones((2, 2)))
    assert np.array_equal(result["dx"], [2, 2, 2])
    assert np.array_equal(result["dz"], np.zeros((2, 2)))


def test_gradients_of_gradients() -> None:
    x = mb.placeholder("x", (4,))
    (first,) = mb.gradients(F.sum(x * x * x), [x])
    (second,) = mb.gradients(F.sum(first), [x])
    value = np.array([1.0, -2.0, 0.5, 3.0], np.float32)
    np.testing.assert_allclose(mb.compile(second)(x=value)["output"], 6 * value, rtol=1e-6)


@pytest.mark.parametrize("target", [mb.placeholder("x", (3,)), mb.placeholder("x", (), "int64")])
def test_gradients_need_a_float_scalar(target: mb.Var) -> None:
    with pytest.raises(mb.GraphError, match="gradients: target must be a float scalar"):
        mb.gradients(target, [target])


def test_text_and_dot_show_every_node() -> None:
    x = mb.placeholder("x", (2,))
    w = mb.Parameter(np.ones(2, np.float32), "w")
    graph = Graph({"y": x * w}, {w: w - x})
    text = mb.to_text(graph)
    assert "mul" in text and "output y" in text and "update %w" in text and "float32[2]" in text
    dot = mb.to_dot(graph)
    assert dot.startswith("digraph {") and dot.count("->") >= 5
    assert networkx.is_directed_acyclic_graph(graph.to_networkx())
    assert graph.to_networkx().number_of_edges() == 4


def test_rewrite_returns_a_new_graph_and_keeps_the_old() -> None:
    x = mb.placeholder("x", (2,))
    old = Graph({"y": (x + 1.0) * 2.0})

    def add_becomes_sub(node: mb.Node, inputs: tuple[mb.Var, ...]) -> list[mb.Var] | None:
        return [F.sub(*inputs)] if node.op.name == "add" else None

    new = rewrite(old, add_becomes_sub)
    assert [n.op.name for n in old.nodes if not n.op.source] == ["add", "mul"]
    assert [n.op.name for n in new.nodes if not n.op.source] == ["sub", "mul"]
    assert new.nodes[-1].origin == old.nodes[-1].origin


def test_verify_names_the_pass_that_broke_the_graph() -> None:
    x = mb.placeholder("x", (2,))
    y = x + 1.0
    y.type = mb.TensorType((3,), mb.DType.float32)
    with pytest.raises(mb.CompileError, match=r"my_pass: .*inferred"):
        verify(Graph({"y": y}), after="my_pass")


def test_two_inputs_of_one_name_are_refused() -> None:
    both = mb.placeholder("x", (2,)) + mb.placeholder("x", (2,))
    with pytest.raises(mb.CompileError, match="two inputs are named x"):
        mb.compile(both)


def test_equal_operators_are_equal() -> None:
    type = mb.TensorType((2,), mb.DType.float32)
    assert Placeholder("x", type) == Placeholder("x", type)
    assert mb.constant([1.0, 2.0]).node.op == mb.constant([1.0, 2.0]).node.op
    assert mb.constant([1.0, 2.0]).node.op != mb.constant([1.0, 3.0]).node.op
