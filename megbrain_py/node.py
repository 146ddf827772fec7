"""Operator, Node, Var: what a program consists of, and how its nodes are made."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, ClassVar, TypeAlias

import numpy as np

from megbrain_py.dtypes import Array, DType, Layout, TensorType
from megbrain_py.errors import GraphError, Mismatch
from megbrain_py.origins import in_gradient, next_order
from megbrain_py.origins import user_origin as user_origin

VarLike: TypeAlias = "Var | float | int | bool | Array"

Rewriter: TypeAlias = "Callable[[Node, tuple[Var, ...]], Sequence[Var] | None]"

_by_kernel: dict[str, list[type[Operator]]] = {}


def operators_of(kernel: str) -> list[type[Operator]]:
    """The operators with this kernel, the first that was defined first."""
    return list(_by_kernel.get(kernel, ()))


class Operator(ABC):
    """What a node does. A subclass is a frozen dataclass: its fields are its attributes.

    Equal operators are equal, so common nodes are found by comparison and printing is free.
    Facts that others need are class attributes or small methods with safe defaults:
    """

    kernel: ClassVar[str] = ""  # name under which the kernel is registered
    variants: ClassVar[Sequence[str]] = ()  # other kernels of it, which kernel_for may choose
    pure: ClassVar[bool] = True  # no effect but its outputs: may be removed, merged, repeated
    elementwise: ClassVar[bool] = False  # each output element needs only its own input elements
    collective: ClassVar[bool] = False  # talks to other ranks: order fixed, never repeated
    once: ClassVar[bool] = False  # a memory plan keeps its small results, never makes them again
    side_by_side: ClassVar[bool] = False  # inputs should lie in one piece, in their order
    asynchronous: ClassVar[bool] = False  # its work may go on while later instructions run
    random: ClassVar[bool] = False  # draws from a counter: a repeated node draws the same numbers
    source: ClassVar[bool] = False  # has no instruction: a placeholder, a parameter, a constant
    rewrites: ClassVar[Sequence[Rewriter]] = ()  # fusions that passes/fuse.py tries
    absorbs: ClassVar[Sequence[Rewriter]] = ()  # those that repeat an input's work, tried after it

    def __init_subclass__(
        cls, *, kernel: str | None = None, variants: Sequence[str] = (), **kwargs: Any
    ) -> None:
        super().__init_subclass__(**kwargs)
        if kernel is not None:
            cls.kernel, cls.variants = kernel, variants
            for name in (kernel, *variants):
                _by_kernel.setdefault(name, []).append(cls)

    @property
    def name(self) -> str:
        """What the user reads in messages and prints."""
        return self.kernel or type(self).__name__.lower()

    def wish(self) -> str:
        """Of a hint: what its user wants for its input, made "again" or "keep"; else nothing."""
        return ""

    @property
    def repeatable(self) -> bool:
        """Would nobody notice if it ran once more?"""
        return self.pure and not self.collective

    # Subclasses name their inputs; mypy allows that under a signature of Any only.
    @abstractmethod
    def infer(self, *inputs: Any, **_: Any) -> TensorType | Sequence[TensorType]:
        """Output types; `require(...)` what the operator needs. The only shape rule there is."""

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        """For each input its gradient, or None where it has none.

        `dy` holds one Var for each output; of several outputs those without a gradient are None.
        """
        raise GraphError(f"{self.name}: has no gradient\n  at {node.origin}")

    def reference(self, *inputs: Any, **_: Any) -> Array | Sequence[Array]:
        """Slow, obvious numpy. Works in the element type of its inputs (float64 in tests)."""
        raise GraphError(f"{self.name}: has no reference")

    def simplify(self, *inputs: Var) -> Sequence[Var] | None:
        """Cheaper Vars with the same values (x * 1 is x), or None; applied by passes/fold.py."""
        return None

    def step_values(self) -> Sequence[float]:
        """Numbers that its step in a fused program needs (ops/fused/steps.h), such as a slope."""
        return ()

    def attrs(self) -> dict[str, Any]:
        """What the kernel gets: the dataclass fields, without those that are None."""
        values: dict[str, Any] = {}
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if value is not None:
                values[field.name] = _plain(value)
        return values

    def kernel_for(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> str:
        """The kernel that `lower` takes for these types: `kernel`, or one of the variants.

        It depends on operator and types only, so that equal nodes give equal bits.
        """
        return self.kernel

    def layouts(self, inputs: Sequence[TensorType]) -> tuple[Sequence[Layout], Sequence[Layout]]:
        """The layouts this operator wants for its inputs, and gives its outputs.

        `inputs` carry the layouts they have now. The default is rows everywhere; an elementwise
        operator follows its full-sized inputs. Only 4-d values can be channels_last. Who gives
        channels_last must want it for an input (but Relayout): graphs start as rows throughout.
        """
        outputs = self.output_types(inputs)
        want: Layout = "rows"
        if self.elementwise and outputs[0].rank == 4:
            full = [t for t in inputs if t.shape == outputs[0].shape]
            if any(t.layout == "channels_last" for t in full):
                want = "channels_last"
        wanted: list[Layout] = []
        for t in inputs:
            if not self.elementwise:
                wanted.append("rows")
            elif t.shape == outputs[0].shape:
                wanted.append(want)
            else:
                wanted.append(t.layout)  # a broadcast operand is read through its own strides
        given: list[Layout] = [want if t.rank == 4 else "rows" for t in outputs]
        return wanted, given

    def alias(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> int | None:
        """Index of the input whose storage output 0 *is* (a view, no instruction), or None."""
        return None

    def may_overwrite(
        self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]
    ) -> Sequence[tuple[int, int]]:
        """Pairs (output, input): the output may be written into that input's dead storage.

        The default for elementwise operators: every input of the output's type and layout.
        """
        if not self.elementwise:
            return ()
        return [
            (o, i)
            for o, out in enumerate(outputs)
            for i, t in enumerate(inputs)
            if t.shape == out.shape
            and t.layout == out.layout
            and t.dtype.itemsize == out.dtype.itemsize
        ]

    def flops(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> int:
        """Arithmetic of a call, for profiles: additions and multiplications count one each.

        The default is one for each output element of an elementwise operator, and 0 for others:
        what they cost is their traffic.
        """
        return sum(t.count for t in outputs if t.dtype.is_float) if self.elementwise else 0

    def typical(self, inputs: Sequence[TensorType]) -> Sequence[Array | None]:
        """Elements to time a call with, for inputs whose values decide what it costs: boxes, say.

        In the order of memory; None: random floats, zeros for others (costs.py).
        """
        return [None] * len(inputs)

    def output_types(self, inputs: Sequence[TensorType]) -> tuple[TensorType, ...]:
        """`infer` as a tuple, in rows layout."""
        return _inferred(self, tuple(t.with_layout("rows") for t in inputs))

    def __call__(self, *inputs: Var) -> Any:
        """Apply to Vars: one Var, or a tuple of them when there are several outputs."""
        node = make_node(self, inputs)
        return node.outputs[0] if len(node.outputs) == 1 else node.outputs

    def __str__(self) -> str:
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        shown = [f"{f.name}={getattr(self, f.name)!r}" for f in fields if f.repr]
        return f"{self.name}({', '.join(shown)})" if shown else self.name


@lru_cache(maxsize=1 << 14)  # compiling asks several times, and large models repeat their layers
def _inferred(op: Operator, inputs: tuple[TensorType, ...]) -> tuple[TensorType, ...]:
    types = op.infer(*inputs)
    return (types,) if isinstance(types, TensorType) else tuple(types)


def _plain(value: Any) -> Any:
    """An attribute as the engine reads it: no enums, no numpy scalars."""
    if isinstance(value, DType):
        return value.value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, tuple):
        return tuple(_plain(item) for item in value)
    return value


class Node:
    """An operator applied to Vars, and the user's line that did it."""

    __slots__ = ("backward", "inputs", "op", "order", "origin", "outputs")

    def __init__(
        self, op: Operator, inputs: tuple[Var, ...], types: Sequence[TensorType], origin: str
    ) -> None:
        self.op = op
        self.inputs = inputs
        self.origin = origin
        self.backward = in_gradient()
        self.order = next_order(v.node for v in inputs)
        self.outputs = tuple(Var(self, index, t) for index, t in enumerate(types))

    def __repr__(self) -> str:
        return f"<Node {self.op} at {self.origin}>"


class Var:
    """One value in a program: its type, the node that makes it, which output. No storage."""

    __slots__ = ("index", "node", "type")

    def __init__(self, node: Node, index: int, type: TensorType) -> None:
        self.node = node
        self.index = index
        self.type = type

    @property
    def shape(self) -> tuple[int, ...]:
        return self.type.shape

    @property
    def dtype(self) -> DType:
        return self.type.dtype

    @property
    def rank(self) -> int:
        return self.type.rank

    def __repr__(self) -> str:
        return f"<Var {self.type} = {self.node.op}[{self.index}] at {self.node.origin}>"

    def __bool__(self) -> bool:
        raise GraphError(
            "Var: has no truth value while the graph is built; use functional.where\n"
            f"  at {user_origin()}"
        )

    __hash__ = object.__hash__

    # Arithmetic is written in functional.py, above this module: it registers the functions.
    def __add__(self, other: VarLike) -> Var:
        return _sugar("add", self, other)

    def __radd__(self, other: VarLike) -> Var:
        return _sugar("add", other, self)

    def __sub__(self, other: VarLike) -> Var:
        return _sugar("sub", self, other)

    def __rsub__(self, other: VarLike) -> Var:
        return _sugar("sub", other, self)

    def __mul__(self, other: VarLike) -> Var:
        return _sugar("mul", self, other)

    def __rmul__(self, other: VarLike) -> Var:
        return _sugar("mul", other, self)

    def __truediv__(self, other: VarLike) -> Var:
        return _sugar("div", self, other)

    def __rtruediv__(self, other: VarLike) -> Var:
        return _sugar("div", other, self)

    def __pow__(self, other: VarLike) -> Var:
        return _sugar("pow", self, other)

    def __matmul__(self, other: Var) -> Var:
        return _sugar("matmul", self, other)

    def __neg__(self) -> Var:
        return _sugar("neg", self)

    def __lt__(self, other: Any) -> Var:
        return _sugar("less", self, other)

    def __le__(self, other: Any) -> Var:
        return _sugar("less_equal", self, other)

    def __gt__(self, other: Any) -> Var:
        return _sugar("greater", self, other)

    def __ge__(self, other: Any) -> Var:
        return _sugar("greater_equal", self, other)

    def __getitem__(self, index: Any) -> Var:
        return _sugar("getitem", self, index)


_SUGAR: dict[str, Callable[..., Var]] = {}


def register_sugar(**functions: Callable[..., Var]) -> None:
    """Give the arithmetic of Var its meaning; called once, by functional.py."""
    _SUGAR.update(functions)


def _sugar(name: str, *operands: Any) -> Var:
    return _SUGAR[name](*operands)


# --- making nodes ---------------------------------------------------------------------------------


def describe(var: Var) -> str:
    """One line about a Var for an error message."""
    return f"{var.type}   {var.node.op} from {var.node.origin}"


def make_node(op: Operator, inputs: Sequence[Var]) -> Node:
    """Check, infer, remember the user's line. Raises GraphError in the shape of docs/errors.md."""
    origin = user_origin()
    for value in inputs:
        if not isinstance(value, Var):
            raise GraphError(
                f"{op.name}: expected a Var, found {type(value).__name__}\n  at {origin}"
            )
    types = [v.type for v in inputs]
    try:
        outputs = op.output_types(types)
    except (Mismatch, TypeError) as error:
        if isinstance(error, TypeError) and "positional argument" not in str(error):
            raise
        lines = [f"{op.name}: {error}", *(f"  {describe(v)}" for v in inputs), f"  at {origin}"]
        raise GraphError("\n".join(lines)) from None
    wanted, given = op.layouts(types)
    if [t.layout for t in types] == list(wanted):  # otherwise the layout pass has not come by yet
        outputs = tuple(t.with_layout(g) for t, g in zip(outputs, given, strict=True))
    return Node(op, tuple(inputs), outputs, origin)
