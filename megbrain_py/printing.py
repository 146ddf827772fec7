"""Graph -> text and Graphviz dot; tables as text."""

from __future__ import annotations

from collections.abc import Sequence

from megbrain_py.graph import Graph, Var
from megbrain_py.parameter import Parameter


def _names(graph: Graph) -> dict[Var, str]:
    names: dict[Var, str] = {}
    for node in graph.nodes:
        for var in node.outputs:
            is_named = isinstance(var, Parameter) and var.name
            names[var] = f"%{var.name}" if is_named else f"%{len(names)}"  # type: ignore[attr-defined]
    return names


def to_text(graph: Graph) -> str:
    """One line a node: outputs, types, operator, inputs, the user's line."""
    names = _names(graph)
    lines = []
    for node in graph.nodes:
        left = ", ".join(f"{names[v]}: {v.type}" for v in node.outputs)
        right = ", ".join(names[v] for v in node.inputs)
        lines.append(f"{left} = {node.op} {right}".rstrip() + f"   # {node.origin}")
    for name, var in graph.outputs.items():
        lines.append(f"output {name} = {names[var]}")
    for parameter, new in graph.updates.items():
        lines.append(f"update {names[parameter]} = {names[new]}")
    return "\n".join(lines)


def to_dot(graph: Graph) -> str:
    """Graphviz source; `dot -Tsvg` draws it. Edges carry the types."""
    number = {node: index for index, node in enumerate(graph.nodes)}
    lines = ["digraph {", '  node [shape=box, fontname="monospace"];']
    for node, index in number.items():
        label = f"{node.op}\\n{node.origin}".replace('"', "'")
        lines.append(f'  n{index} [label="{label}"];')
        lines += [f'  n{number[v.node]} -> n{index} [label="{v.type}"];' for v in node.inputs]
    for name, var in graph.outputs.items():
        shown = name.replace('"', "'")
        lines.append(f'  "{shown}" [shape=ellipse]; n{number[var.node]} -> "{shown}";')
    for k, (parameter, new) in enumerate(graph.updates.items()):
        lines.append(f'  u{k} [label="update", shape=ellipse]; n{number[new.node]} -> u{k};')
        lines.append(f"  u{k} -> n{number[parameter.node]} [style=dashed, constraint=false];")
    return "\n".join([*lines, "}"])


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of cells right-aligned in columns; a row may end early."""
    width = max(map(len, rows))
    widths = [max(len(row[at]) for row in rows if len(row) > at) for at in range(width)]
    return [
        "  ".join(cell.rjust(wide) for cell, wide in zip(row, widths, strict=False)) for row in rows
    ]
