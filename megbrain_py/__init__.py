"""MegBrain as a small static-graph framework: define a graph, differentiate it, compile it."""

from __future__ import annotations

from collections.abc import Sequence

from megbrain_py import functional as functional
from megbrain_py.autodiff import gradients as gradients
from megbrain_py.compiler import Function as Function
from megbrain_py.compiler import compile as compile
from megbrain_py.compiler import function as function
from megbrain_py.dtypes import DType as DType
from megbrain_py.dtypes import DTypeLike
from megbrain_py.dtypes import TensorType as TensorType
from megbrain_py.dtypes import tensor_type as tensor_type
from megbrain_py.errors import CompileError as CompileError
from megbrain_py.errors import DataError as DataError
from megbrain_py.errors import EngineError as EngineError
from megbrain_py.errors import GraphError as GraphError
from megbrain_py.errors import MegBrainError as MegBrainError
from megbrain_py.functional import recompute_hint as recompute_hint
from megbrain_py.graph import Graph as Graph
from megbrain_py.graph import Node as Node
from megbrain_py.graph import Operator as Operator
from megbrain_py.graph import Var as Var
from megbrain_py.graph import constant as constant
from megbrain_py.graph import placeholder as _placeholder
from megbrain_py.graph import user_origin
from megbrain_py.instruments.trace import trace as trace
from megbrain_py.library import include_dir as include_dir
from megbrain_py.library import load_library as load_library
from megbrain_py.parameter import Parameter as Parameter
from megbrain_py.printing import to_dot as to_dot
from megbrain_py.printing import to_text as to_text
from megbrain_py.tradeoff import pareto as pareto

__version__ = "0.1.0"


def placeholder(name: str, shape: Sequence[int], dtype: DTypeLike = DType.float32) -> Var:
    """An input of the program: a Var of this shape and element type, fed by this name.

    Raises GraphError for a negative size and for an element type that is not supported.
    """
    try:
        return _placeholder(name, tensor_type(shape, dtype))
    except (ValueError, TypeError) as error:
        raise GraphError(f"placeholder {name}: {error}\n  at {user_origin()}") from None
