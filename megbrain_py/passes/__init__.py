"""PIPELINE and run(): every pass is a Graph -> Graph function, verified after each step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from megbrain_py import debug
from megbrain_py.graph import Graph, verify
from megbrain_py.passes.cse import cse
from megbrain_py.passes.fold import fold
from megbrain_py.passes.fuse import fuse
from megbrain_py.passes.layout import layout
from megbrain_py.printing import to_text

Pass: TypeAlias = Callable[[Graph], Graph]

# Dead code needs no pass: a Graph consists of what its outputs and updates need.
PIPELINE: tuple[Pass, ...] = (fold, cse, fuse, layout)
REQUIRED: tuple[Pass, ...] = (layout,)  # kernels rely on it: cannot be switched off


def run(graph: Graph, pipeline: Sequence[Pass] = PIPELINE) -> Graph:
    """Apply the passes in order, but those switched off by MB_PASSES; verify after each."""
    folder = debug.dump_folder()
    off = debug.passes_off()
    verify(graph)
    for number, one in enumerate(pipeline):
        if one.__name__ in off and one not in REQUIRED:
            continue
        graph = verify(one(graph), after=one.__name__)
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number}_{one.__name__}.txt").write_text(to_text(graph) + "\n")
    return graph
