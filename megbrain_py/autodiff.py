"""Symbolic reverse-mode differentiation: a graph in, a larger graph out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from megbrain_py.errors import GraphError
from megbrain_py.graph import Node, Var, constant, nodes_of, user_origin
from megbrain_py.ops.binary import add
from megbrain_py.origins import gradient_of


def gradients(target: Var, wrt: Sequence[Var]) -> list[Var]:
    """d target / d v for each v of `wrt`: a Var of v's shape and type each.

    `target` is a float scalar (shape `()`). A v that the target does not depend on gets zeros.
    The result is ordinary graph: it can be printed, differentiated again and compiled.
    Raises GraphError for a target that is no float scalar, for a v that is not a float, and when
    an operator on the way has no gradient. Source: reverse accumulation (Linnainmaa, 1970).
    """
    if target.shape != () or not target.dtype.is_float:
        raise GraphError(
            f"gradients: target must be a float scalar, is {target.type}\n  at {user_origin()}"
        )
    for v in wrt:
        if not v.dtype.is_float:
            raise GraphError(
                f"gradients: only float values have gradients, {v!r} has none\n  at {user_origin()}"
            )
    nodes = nodes_of([target])
    needed = _nodes_that_depend_on(nodes, wrt)
    total: dict[Var, Var] = {target: constant(np.ones((), target.dtype.numpy))}
    for node in reversed(nodes):
        if node not in needed:
            continue
        dy = [total.get(v) for v in node.outputs]
        if all(d is None for d in dy):
            continue
        with gradient_of(node):
            _accumulate(node, node.op.grad(node, *dy), needed, set(wrt), total)
    return [total[v] if v in total else _zeros(v) for v in wrt]


def _nodes_that_depend_on(nodes: Sequence[Node], wrt: Sequence[Var]) -> set[Node]:
    """Nodes through which the target depends on some v of `wrt`."""
    reached = set(wrt)
    needed: set[Node] = set()
    for node in nodes:
        if any(v in reached for v in node.inputs):
            needed.add(node)
            reached.update(node.outputs)
    return needed


def _accumulate(
    node: Node,
    grads: Sequence[Var | None],
    needed: set[Node],
    wrt: set[Var],
    total: dict[Var, Var],
) -> None:
    """Add a node's input gradients to the totals."""
    if len(grads) != len(node.inputs):
        raise GraphError(
            f"{node.op.name}: gradient has {len(grads)} values for {len(node.inputs)} inputs\n"
            f"  at {node.origin}"
        )
    for v, g in zip(node.inputs, grads, strict=True):
        if g is None or not (v in wrt or v.node in needed):
            continue
        if g.type != v.type:
            raise GraphError(
                f"{node.op.name}: gradient of an input {v.type} has type {g.type}\n"
                f"  at {node.origin}"
            )
        total[v] = add(total[v], g) if v in total else g


def _zeros(v: Var) -> Var:
    return constant(np.zeros(v.shape, v.dtype.numpy))
