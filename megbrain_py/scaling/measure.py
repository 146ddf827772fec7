"""The link between ranks that are threads of this process, measured for the model."""

from __future__ import annotations

import numpy as np

from megbrain_py import distributed
from megbrain_py import functional as F
from megbrain_py.compiler import compile
from megbrain_py.parameter import Parameter
from megbrain_py.scaling.network import Link

_LARGE = 32 << 20  # bytes
_RUNS = 15


def local_link() -> Link:
    """From all-reduces of two ranks, a small and a large one: latency + m / bandwidth each."""
    small, large = (_all_reduce(nbytes) for nbytes in (4, _LARGE))
    return Link(small, _LARGE / (large - small))


def _all_reduce(nbytes: int) -> float:
    """Seconds, the median of some runs."""

    def program() -> float:
        w = Parameter(np.zeros(nbytes // 4, np.float32))
        step = compile({}, updates={w: F.all_reduce(w)})
        for _ in range(_RUNS):
            distributed.barrier()
            step(profile=True)
        return step.profile(last=_RUNS - 1).rows[0].seconds

    return distributed.run(program, 2, threads=1)[0]
