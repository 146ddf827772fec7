"""Fusion: applies the rewrites that operators offer for small groups of nodes."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence

from megbrain_py.graph import Graph, rewrite
from megbrain_py.node import Node, Rewriter, Var, make_node


def fuse(graph: Graph) -> Graph:
    """Replace nodes by what the first fitting `Operator.rewrites` function gives.

    A rewrite `(node, inputs) -> outputs or None` matches a node and nodes above it and is named by
    the room of the operators it joins. It is taken only where it saves something: every value that
    it swallows has no reader outside the group and is no result of the graph. `Operator.absorbs`
    are the exception: see `_absorb`.
    """
    return _absorb(_join(graph))


def _join(graph: Graph) -> Graph:
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
            if var.node.op.source:
                continue  # it costs nothing
            if not private(var, group):
                return False
            before = old.get(var)
            if before is not None:
                group.add(before.node)
            stack.extend(v for v in var.node.inputs if v not in kept)
        return True

    def rewriter(node: Node, inputs: tuple[Var, ...]) -> Sequence[Var] | None:
        for outputs in _offers(found, node, inputs):
            if swallows_only_private(node, inputs, _read_by(outputs, old)):
                break
        else:
            same = all(a is b for a, b in zip(inputs, node.inputs, strict=True))
            outputs = node.outputs if same else make_node(node.op, inputs).outputs
        old.update(zip(outputs, node.outputs, strict=True))
        return outputs

    return rewrite(graph, rewriter)


def _offers(
    functions: Iterable[Rewriter], node: Node, inputs: tuple[Var, ...]
) -> Iterable[Sequence[Var]]:
    """What the functions give for this node, of the right types."""
    for function in functions:
        outputs = function(node, inputs)
        if outputs is not None and all(
            a.type == b.type for a, b in zip(outputs, node.outputs, strict=True)
        ):
            yield outputs


def _read_by(outputs: Sequence[Var], known: Container[Var]) -> set[Var]:
    """The known values that the nodes of a rewrite read."""
    read: set[Var] = set()
    stack = [v.node for v in outputs]
    while stack:
        for v in stack.pop().inputs:
            if v in known:
                read.add(v)
            else:
                stack.append(v.node)
    return read


def _absorb(graph: Graph) -> Graph:
    """Drop values all of whose readers can do without, by doing a part of the work themselves.

    `Operator.absorbs` functions are rewrites that repeat the work of an input's node; what is saved
    is the value between them. One reader that needs it is enough to keep it.
    """
    found = dict.fromkeys(f for node in graph.nodes for f in type(node.op).absorbs)
    if not found:
        return graph
    results = set(graph.results)
    taken: set[Node] = set()  # nodes that will be rewritten
    users = graph.users()
    for var, readers in users.items():
        if var.node.op.source or var in results or not taken.isdisjoint(readers):
            continue
        offers = [next(iter(_offers(found, node, node.inputs)), None) for node in readers]
        if all(made is not None and var not in _read_by(made, users) for made in offers):
            taken.update(readers)

    def rewriter(node: Node, inputs: tuple[Var, ...]) -> Sequence[Var] | None:
        return next(iter(_offers(found, node, inputs)), None) if node in taken else None

    return rewrite(graph, rewriter)
