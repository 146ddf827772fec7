"""Values that programs exchange outside of a graph: what evaluation, checkpoints and logs need.

Every rank makes the same calls in the same order; where there is one rank they give back what they
got. EngineError when a rank does not come, or comes with something else.
"""

from __future__ import annotations

import functools
import pickle
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np

from megbrain_py import engine, ranks
from megbrain_py.dtypes import Array
from megbrain_py.errors import EngineError
from megbrain_py.parameter import Parameter


def all_gather_objects(value: Any) -> list[Any]:
    """What every rank gives, in the order of ranks. Anything that pickle takes."""
    if ranks.current().communicator is None:
        return [value]
    return [pickle.loads(text) for text in _exchange(value)]


def gather_objects(value: Any, root: int = 0) -> list[Any]:
    """On the rank `root` what every rank gives, in the order of ranks; nothing on the others."""
    world = ranks.current()
    if world.communicator is None:
        return [value]
    found = _exchange(value)
    return [pickle.loads(text) for text in found] if world.rank == root else []


def broadcast_object(value: Any, root: int = 0) -> Any:
    """What the rank `root` gives; the others' values are not looked at."""
    own = value if ranks.current().rank == root else None
    return all_gather_objects(own)[root]


def _exchange(value: Any) -> list[bytes]:
    """Every rank's value, pickled."""
    found: list[bytes]
    try:
        found = ranks.current().communicator.exchange(pickle.dumps(value))
    except engine.CommunicatorError as error:
        raise EngineError(f"exchange: {error}") from None
    return found


def barrier() -> None:
    """Returns when every rank has called it."""
    all_gather_objects(None)


def all_gather(array: Any) -> list[Array]:
    """Every rank's array, in the order of ranks; their shapes may differ."""
    return all_gather_objects(np.asarray(array))


def all_reduce(value: Any, reduction: Literal["sum", "max", "min"] = "sum") -> Array:
    """The sum (max, min) of a number or an array of one shape over all ranks, in their order.

    For counts and scores; what is large and frequent belongs into a graph (F.all_reduce).
    """
    fold = {"sum": np.add, "max": np.maximum, "min": np.minimum}[reduction]
    return np.asarray(functools.reduce(fold, all_gather(value)))


def broadcast_state(parameters: Iterable[Parameter], root: int = 0) -> None:
    """Give every rank the values that `root` has: weights, running statistics, optimiser state."""
    listed = list(parameters)
    values = broadcast_object([p.value for p in listed], root)
    if len(values) != len(listed):
        raise EngineError(
            f"broadcast_state: rank {root} has {len(values)} parameters, this rank {len(listed)}"
        )
    for parameter, value in zip(listed, values, strict=True):
        parameter.set(value)
