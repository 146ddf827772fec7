"""Training steps with the chosen convolution algorithms against all direct ones, in pairs.

python benchmarks/winograd.py [resnet50 | detector] [--pairs 15]     ("megbrain bench conv": single
convolutions)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fusion import by_kernel, compared

from megbrain_py import passes
from megbrain_py.graph import Graph, Node, Var, make_node, rewrite
from megbrain_py.ops.conv.conv import Convolution


def direct(graph: Graph) -> Graph:
    """A pass: every convolution by the direct kernel."""

    def rewriter(node: Node, inputs: tuple[Var, ...]) -> Sequence[Var] | None:
        if not isinstance(node.op, Convolution) or node.op.algorithm == "direct":
            return None
        return make_node(replace(node.op, algorithm="direct"), inputs).outputs

    return rewrite(graph, rewriter)


def main() -> None:
    """Print verdicts, memory and the convolutions' time."""
    for ours, theirs, feeds in compared(__doc__, "direct", (direct, *passes.PIPELINE)):
        for side, step in (("chosen", ours), ("direct", theirs)):
            times = by_kernel(step, feeds)
            found = [f"{k} {t:.0f} ms" for k, t in sorted(times.items()) if k.startswith("conv2d")]
            print(f"  {side}: {sum(times.values()):.0f} ms, of it {', '.join(found)}")


if __name__ == "__main__":
    main()
