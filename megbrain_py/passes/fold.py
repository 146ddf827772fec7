"""Constant folding, and the simplifications that operators offer for themselves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from megbrain_py.graph import Constant, Graph, Node, Var, constant, rewrite

LARGEST = 65536  # elements; a larger constant would cost more memory than its computation


def fold(graph: Graph) -> Graph:
    """Replace pure nodes of constants by their value, and nodes by what `simplify` gives."""

    def rewriter(node: Node, inputs: tuple[Var, ...]) -> Sequence[Var] | None:
        op = node.op
        if op.source or not op.pure or op.random:
            return None
        simpler = op.simplify(*inputs)
        if simpler is not None:
            return simpler
        is_constant = [isinstance(v.node.op, Constant) for v in inputs]
        if not all(is_constant):  # also where there is no input: a table, such as anchors
            return None
        if sum(v.type.count for v in node.outputs) > LARGEST:
            return None
        values = op.reference(*[v.node.op.value for v in inputs])  # type: ignore[attr-defined]
        listed = values if isinstance(values, (tuple, list)) else [values]
        typed = zip(listed, node.outputs, strict=True)
        return [constant(np.asarray(value), v.dtype) for value, v in typed]

    return rewrite(graph, rewriter)
