"""PIPELINE and run(): every pass is a Graph -> Graph function, verified after each step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from megbrain_py import debug
from megbrain_py.errors import CompileError
from megbrain_py.graph import Graph, Node, take_wishes, verify
from megbrain_py.passes.chain import chain
from megbrain_py.passes.cse import cse
from megbrain_py.passes.fold import fold
from megbrain_py.passes.fuse import fuse
from megbrain_py.passes.layout import layout
from megbrain_py.printing import to_text

Pass: TypeAlias = Callable[[Graph], Graph]

# Dead code needs no pass: a Graph consists of what its outputs and updates need.
PIPELINE: tuple[Pass, ...] = (fold, cse, fuse, layout, chain)
REQUIRED: tuple[Pass, ...] = (layout,)  # kernels rely on it: cannot be switched off
FUSING: tuple[Pass, ...] = (fuse, chain)  # make operators that only the CPU has kernels for


def pipeline_for(device: str) -> tuple[Pass, ...]:
    """The passes for a device: on others than the CPU nothing is fused yet."""
    return (
        PIPELINE
        if device.startswith("cpu")
        else tuple(one for one in PIPELINE if one not in FUSING)
    )


def _switched_off() -> frozenset[str]:
    """Names in MB_PASSES; CompileError for one that is no pass or cannot be switched off."""
    off = debug.passes_off()
    optional = [one.__name__ for one in PIPELINE if one not in REQUIRED]
    for name in sorted(off.difference(optional)):
        known = ", ".join(f"-{one}" for one in optional)
        why = "cannot be switched off" if name in {r.__name__ for r in REQUIRED} else "is no pass"
        raise CompileError(f"MB_PASSES: expected some of {known}, found -{name}, which {why}")
    return off


def run(graph: Graph, pipeline: Sequence[Pass] = PIPELINE) -> Graph:
    """Apply the passes in order, but those switched off by MB_PASSES; verify after each."""
    folder = debug.dump_folder()
    off = _switched_off()
    known: set[Node] = set()
    graph = take_wishes(verify(graph, known=known))
    for number, one in enumerate(pipeline):
        if one.__name__ in off:
            continue
        graph = verify(one(graph), after=one.__name__, known=known)
        if folder is not None:
            (folder / f"{number}_{one.__name__}.txt").write_text(to_text(graph) + "\n")
    return graph
