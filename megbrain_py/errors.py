"""The three errors a user can meet, one for each moment: building, compiling, running."""

from __future__ import annotations


class MegBrainError(Exception):
    """Base of all errors that this package raises on purpose."""


class GraphError(MegBrainError):
    """A graph cannot be built: shapes, element types or attributes do not fit."""


class CompileError(MegBrainError):
    """A pass or the planner refuses the graph."""


class EngineError(MegBrainError):
    """A plan cannot be loaded or run, or it was fed with the wrong arrays."""


class DataError(MegBrainError):
    """A data set, picture, configuration or checkpoint file is not what it should be."""


class Mismatch(ValueError):
    """Raised by `require` inside `Operator.infer`; the graph turns it into a GraphError."""


def require(condition: bool, message: str) -> None:
    """Raise `Mismatch` unless `condition` holds; for use in `Operator.infer` and friends."""
    if not condition:
        raise Mismatch(message)
