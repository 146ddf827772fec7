"""Fusion: applies the rewrites that operators offer for small groups of nodes."""

from __future__ import annotations

from collections.abc import Sequence

from megbrain_py.graph import Graph, rewrite
from megbrain_py.node import Node, Var, make_node


def fuse(graph: Graph) -> Graph:
    """Replace nodes by what the first fitting `Operator.rewrites` function gives.

    A rewrite `(node, inputs) -> outputs or None` matches a node and nodes above it and is named by
    the room of the operators it joins. It is taken only where it saves something: every value that
    it swallows has no reader outside the group and is no result of the graph.
    """
    found = dict.fromkeys(f for node in graph.nodes for f in type(node.op).rewrites)
    if not found:
        return graph
    users = graph.users()
    results = set(graph.results)
    old: dict[Var, Var] = {}  # a rebuilt Var -> the Var of `graph` it stands for

    def private(var: Var, group: set[Node]) -> bool:
        """Do only nodes of the group read this value?"""
        before = old.get(var)
        if before is None:
            return True  # made inside an earlier fusion
        return before not in results and set(users[before]) <= group

    def swallows_only_private(node: Node, inputs: Sequence[Var], kept: set[Var]) -> bool:
        group = {node}
        stack = [v for v in inputs if v not in kept]
        while stack:
            var = stack.pop()
            if var.node.op.source or not private(var, group):
                return False
            before = old.get(var)
            if before is not None:
                group.add(before.node)
            stack.extend(v for v in var.node.inputs if v not in kept)
        return True

    def fused(node: Node, inputs: tuple[Var, ...]) -> Sequence[Var] | None:
        for function in found:
            outputs = function(node, inputs)
            if outputs is None:
                continue
            kept = {v for made in outputs for v in made.node.inputs}
            same_types = all(a.type == b.type for a, b in zip(outputs, node.outputs, strict=True))
            if same_types and swallows_only_private(node, inputs, kept):
                return outputs
        return None

    def rewriter(node: Node, inputs: tuple[Var, ...]) -> Sequence[Var] | None:
        outputs = fused(node, inputs)
        if outputs is None:
            same = all(a is b for a, b in zip(inputs, node.inputs, strict=True))
            outputs = node.outputs if same else make_node(node.op, inputs).outputs
        old.update(zip(outputs, node.outputs, strict=True))
        return outputs

    return rewrite(graph, rewriter)
