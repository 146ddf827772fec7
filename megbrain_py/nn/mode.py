"""train_mode: what modules do while a training graph is built (batch moments, dropout)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from megbrain_py import functional as F
from megbrain_py.graph import Var
from megbrain_py.parameter import Parameter


@dataclass
class TrainMode:
    """One training graph under construction.

    updates: new values of running statistics. key: int64[n] for operators that draw, or None.
    momentum: of all running statistics, instead of the layers' own.
    """

    key: Var | None = None
    updates: dict[Parameter, Var] = field(default_factory=dict)
    momentum: float | None = None
    _salts: int = 0

    def next_salt(self) -> int:
        """A number for each operator that draws, in the order in which they are built."""
        self._salts += 1
        return self._salts


_mode: ContextVar[TrainMode | None] = ContextVar("megbrain_py_train_mode", default=None)


def current_mode() -> TrainMode | None:
    """The TrainMode in force, or None while a graph for evaluation is built."""
    return _mode.get()


@contextmanager
def train_mode(
    key: Var | None = None, *, momentum: float | None = None
) -> Iterator[dict[Parameter, Var]]:
    """`with train_mode() as updates:` modules build their training behaviour.

    Batch norms use the batch's moments and put their new running statistics into `updates`, to be
    passed on to `compile`. `key` (int64[batch] or int64[1], see random.keys) is what dropout draws
    from; without it a dropout of p > 0 raises GraphError. `momentum` stands for the layers' own:
    with 1 the new statistics are the batch's moments alone.
    """
    mode = TrainMode(key, momentum=momentum)
    token = _mode.set(mode)
    try:
        yield mode.updates
    finally:
        _mode.reset(token)


def over_ranks(count: Var) -> Var:
    """The sum of a count over all ranks while a training graph is built; otherwise this rank's own.

    What a loss is divided by: then each rank's loss is its share of the whole batch's, however
    unequal the ranks' counts are. Evaluation does not wait for other ranks.
    """
    return count if current_mode() is None else F.all_reduce(count)
