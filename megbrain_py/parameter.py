"""Parameter: a Var whose value outlives the run, shared by every compiled function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from megbrain_py.dtypes import Array, TensorType, as_dtype
from megbrain_py.errors import EngineError, GraphError
from megbrain_py.graph import Node, Operator, Var, user_origin

_ALIGNMENT = 64  # bytes: a cache line, and the widest vector register


def aligned_copy(value: Array) -> Array:
    """A C-contiguous copy at a 64-byte address that stays where it is: kernels are bound to it."""
    block = np.empty(value.nbytes + _ALIGNMENT, np.uint8)
    start = -block.ctypes.data % _ALIGNMENT
    copy = block[start : start + value.nbytes].view(value.dtype).reshape(value.shape)
    copy[...] = value
    return copy


@dataclass(frozen=True, eq=False)
class ParameterSource(Operator):
    """The node behind a Parameter; equal only to itself."""

    type: TensorType
    label: str
    source: ClassVar[bool] = True

    def infer(self) -> TensorType:
        return self.type

    def __str__(self) -> str:
        return f"parameter({self.label})" if self.label else "parameter"


class Parameter(Var):
    """A value with storage: weights (`trainable`), running statistics and optimiser state (not).

    `parameter.value` is the live array; assigning to it, or `parameter.set(array)`, writes into it.
    A compiled function reads and updates this same memory, so training and evaluation share it
    without copies.
    """

    __slots__ = ("_value", "name", "trainable")

    def __init__(self, value: Any, name: str = "", *, trainable: bool = True) -> None:
        array = np.asarray(value)
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        try:
            type = TensorType(array.shape, as_dtype(array.dtype))
        except ValueError as error:
            raise GraphError(f"parameter {name}: {error}\n  at {user_origin()}") from None
        self._value = aligned_copy(array)
        self.name = name
        self.trainable = trainable
        node = Node(ParameterSource(type, name), (), [type], user_origin())
        super().__init__(node, 0, type)
        node.outputs = (self,)

    @property
    def value(self) -> Array:
        """The live array, to which kernels are bound."""
        return self._value

    @value.setter
    def value(self, value: Any) -> None:
        self.set(value)

    def set(self, value: Any) -> None:
        """Write a new value of the same shape in place."""
        array = np.asarray(value)
        if array.shape != self.shape:
            raise EngineError(
                f"parameter {self.name}: shape is {self.shape}, the new value has {array.shape}"
            )
        if array.dtype.kind not in "biuf":
            raise EngineError(
                f"parameter {self.name}: expected {self.dtype}, the new value has {array.dtype}"
            )
        self._value[...] = array

    def rename(self, name: str) -> None:
        """Set the name that prints, plans and checkpoints show."""
        self.name = name
        self.node.op = ParameterSource(self.type, name)

    def __repr__(self) -> str:
        return f"<Parameter {self.name} {self.type}>"
