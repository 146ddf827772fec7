"""Chains: elementwise nodes between which no value is needed elsewhere become one node."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from megbrain_py.graph import Graph, Node, Placeholder, Var, make_node, rewrite
from megbrain_py.ops.fused import DTYPES, KERNELS, Fused, Step


@dataclass(frozen=True)
class _Readers:
    """Who reads what, and when in program order."""

    position: Mapping[Node, int]
    users: Mapping[Var, Sequence[Node]]
    results: frozenset[Var]

    def only(self, var: Var, group: set[Node]) -> bool:
        """Do only nodes of the group read this value?"""
        return var not in self.results and group.issuperset(self.users.get(var, ()))

    def stays(self, var: Var, root: Node, group: set[Node]) -> bool:
        """Is the value in memory when `root` runs, whatever the group does?"""
        op = var.node.op
        if var in self.results or (op.source and not isinstance(op, Placeholder)):
            return True
        others = (n for n in self.users[var] if n not in group)
        return any(self.position[n] >= self.position[root] for n in others)


def chain(graph: Graph) -> Graph:
    """Join elementwise nodes of one shape and layout into Fused nodes.

    A group grows upwards from its last node, its root, by nodes that only the group reads: so no
    value is computed twice, and every way out of the group leads through the root (no circle).
    """
    nodes = graph.nodes
    position = {node: at for at, node in enumerate(nodes)}
    readers = _Readers(position, graph.users(), frozenset(graph.results))
    groups: dict[Node, list[Node]] = {}  # root -> the group in program order
    taken: set[Node] = set()
    for root in reversed(nodes):
        if root not in taken and _can_be_step(root):
            group = _group_of(root, readers, taken)
            if len(group) > 1:
                groups[root] = sorted(group, key=lambda n: position[n])
                taken |= group
    now: dict[Var, Var] = {}

    def rewriter(node: Node, inputs: tuple[Var, ...]) -> Sequence[Var] | None:
        now.update(zip(node.inputs, inputs, strict=True))
        if node not in groups:
            return None  # what is inside a group has no reader any more
        outer, steps = _program(groups[node])
        return make_node(Fused(len(outer), steps), [now[v] for v in outer]).outputs

    return rewrite(graph, rewriter)


def _can_be_step(node: Node) -> bool:
    op = node.op
    if op.kernel not in KERNELS or not op.elementwise or not op.pure or len(node.outputs) != 1:
        return False
    return DTYPES.issuperset(v.dtype for v in (*node.inputs, *node.outputs))


def _group_of(root: Node, readers: _Readers, taken: set[Node]) -> set[Node]:
    """The root and what joins it, nearest first."""
    (y,) = root.outputs
    group = {root}
    refused: set[Node] = set()
    while len(group) < Fused.max_steps:
        around = [v for v in _inputs(group) if v.node not in refused]
        if not around:
            break
        node = max((v.node for v in around), key=lambda n: readers.position[n])
        fits = (
            node not in taken
            and _can_be_step(node)
            and node.outputs[0].shape == y.shape
            and node.outputs[0].type.layout == y.type.layout
            and readers.only(node.outputs[0], group)
            and len(_inputs(group | {node})) <= Fused.max_inputs
            and not _holds_more(node, root, group, readers)
        )
        if fits:
            group.add(node)
            refused.clear()  # other nodes may have lost their last reader outside
        else:
            refused.add(node)
    return group


def _inputs(group: Iterable[Node]) -> list[Var]:
    """What the group reads from outside."""
    made = {v for node in group for v in node.outputs}
    return list(dict.fromkeys(v for node in group for v in node.inputs if v not in made))


def _holds_more(node: Node, root: Node, group: set[Node], readers: _Readers) -> bool:
    """Would memory be held longer, were `node` to wait for the group?

    It costs nothing where all that the group reads is there when `node` runs: then the group can
    run in its place, and its output is held instead. Otherwise the inputs of `node` are.
    """
    size, at = node.outputs[0].type.nbytes, readers.position[node]
    own = {v for v in _inputs(group) if v.node is not node}
    there = all(v.node.op.source or readers.position[v.node] < at for v in own)
    if there and root.outputs[0].type.nbytes <= size:
        return False
    joined = group | {node}
    held = [v for v in dict.fromkeys(node.inputs) if v not in own]
    return sum(v.type.nbytes for v in held if not readers.stays(v, root, joined)) > size


def _program(group: Sequence[Node]) -> tuple[list[Var], tuple[Step, ...]]:
    """What the group reads from outside, and its steps, for nodes in program order."""
    outer = _inputs(group)
    number = {v: k for k, v in enumerate([*outer, *(node.outputs[0] for node in group)])}
    return outer, tuple(Step(n.op, tuple(number[v] for v in n.inputs)) for n in group)
