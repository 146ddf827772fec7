"""Gives every value of rank 4 its memory layout and inserts visible Relayout nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from megbrain_py.dtypes import Layout, TensorType
from megbrain_py.graph import Graph, Node, Placeholder, Var, make_node, rewrite
from megbrain_py.ops.relayout import Relayout


def layout(graph: Graph) -> Graph:
    """Operators say what they want (`Operator.layouts`); mismatches become Relayout nodes.

    A placeholder that would only be relaid out takes the new layout itself: feeds are copied
    anyway, and the copy changes the layout on its way.
    """
    return _assign(graph, _read_in_channels_last(graph))


def _read_in_channels_last(graph: Graph) -> frozenset[str]:
    """The placeholders that some operator wants in channels_last."""
    found: set[str] = set()
    types: dict[Var, TensorType] = {}  # with the layouts that _assign will give
    for node in graph.nodes:
        op = node.op
        if op.source:
            types.update((v, v.type) for v in node.outputs)
            continue
        taken = [types[v] for v in node.inputs]
        wanted, given = op.layouts(taken)
        for v, now, to in zip(node.inputs, taken, wanted, strict=True):
            if isinstance(v.node.op, Placeholder) and now.layout != to == "channels_last":
                found.add(v.node.op.label)
        types.update((v, v.type.with_layout(to)) for v, to in zip(node.outputs, given, strict=True))
    return frozenset(found)


def _assign(graph: Graph, channels_last: frozenset[str]) -> Graph:
    """One walk; placeholders named in `channels_last` have that layout."""
    copies: dict[tuple[Var, Layout], Var] = {}

    def in_layout(var: Var, to: Layout) -> Var:
        if var.type.layout == to:
            return var
        if isinstance(var.node.op, Relayout) and var.node.inputs[0].type.layout == to:
            return var.node.inputs[0]
        if (var, to) not in copies:
            copies[var, to] = make_node(Relayout(to), (var,)).outputs[0]
        return copies[var, to]

    def rewriter(node: Node, inputs: tuple[Var, ...]) -> Sequence[Var] | None:
        op = node.op
        if isinstance(op, Placeholder):
            if op.label not in channels_last:
                return None
            return make_node(replace(op, type=op.type.with_layout("channels_last")), ()).outputs
        if op.source:
            return None
        wanted, given = op.layouts([v.type for v in inputs])
        fixed = tuple(in_layout(v, to) for v, to in zip(inputs, wanted, strict=True))
        unchanged = all(a is b for a, b in zip(fixed, node.inputs, strict=True))
        if unchanged and all(to == "rows" for to in given):
            return None
        return make_node(op, fixed).outputs

    placed = rewrite(graph, rewriter)
    updates = {parameter: in_layout(new, "rows") for parameter, new in placed.updates.items()}
    return Graph(placed.outputs, updates, placed.wishes)
