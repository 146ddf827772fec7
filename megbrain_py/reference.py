"""Runs a graph with the operators' numpy references: the oracle of tests, slow and obvious."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from megbrain_py.dtypes import Array
from megbrain_py.graph import Constant, Graph, Placeholder, Var
from megbrain_py.parameter import Parameter


def evaluate(graph: Graph, feeds: Mapping[str, Array], *, double: bool = True) -> dict[str, Array]:
    """Outputs by name. `double`: float32 values are computed in float64. Updates are not made."""
    values: dict[Var, Array] = {}

    def widen(array: Array) -> Array:
        return array.astype(np.float64) if double and array.dtype == np.float32 else array

    for node in graph.nodes:
        if isinstance(node.op, Placeholder):
            values[node.outputs[0]] = widen(np.asarray(feeds[node.op.label]))
        elif isinstance(node.op, Constant):
            values[node.outputs[0]] = widen(node.op.value)
        elif isinstance(node.outputs[0], Parameter):
            values[node.outputs[0]] = widen(node.outputs[0].value)
        else:
            made = node.op.reference(*[values[v] for v in node.inputs])
            listed = made if isinstance(made, (tuple, list)) else [made]
            for var, value in zip(node.outputs, listed, strict=True):
                values[var] = np.asarray(value)
    return {name: values[v] for name, v in graph.outputs.items()}
