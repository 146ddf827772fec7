"""The graph: its sources, Graph itself, and how graphs are rewritten and verified."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from megbrain_py.dtypes import Array, DType, Layout, TensorType
from megbrain_py.errors import CompileError, GraphError
from megbrain_py.node import Node as Node
from megbrain_py.node import Operator as Operator
from megbrain_py.node import Rewriter as Rewriter
from megbrain_py.node import Var as Var
from megbrain_py.node import VarLike as VarLike
from megbrain_py.node import describe as describe
from megbrain_py.node import make_node as make_node
from megbrain_py.node import register_sugar as register_sugar
from megbrain_py.origins import origin_of as origin_of
from megbrain_py.origins import taking_place_of as taking_place_of
from megbrain_py.origins import user_origin as user_origin

if TYPE_CHECKING:
    import networkx

# --- sources --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Placeholder(Operator):
    """An input of the program, fed at each run."""

    label: str
    type: TensorType
    source: ClassVar[bool] = True

    def infer(self) -> TensorType:
        return self.type.with_layout("rows")

    def layouts(self, inputs: Sequence[TensorType]) -> tuple[Sequence[Layout], Sequence[Layout]]:
        return (), (self.type.layout,)

    def __str__(self) -> str:
        return f"placeholder({self.label})"


@dataclass(frozen=True, eq=False)
class Constant(Operator):
    """A value known while the graph is built. Equal when type and bytes are equal."""

    value: Array
    source: ClassVar[bool] = True

    def infer(self) -> TensorType:
        return TensorType(self.value.shape, DType(self.value.dtype.name))

    def reference(self) -> Array:
        return self.value

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        return ()

    def _key(self) -> tuple[Any, ...]:
        return (self.value.dtype.name, self.value.shape, self.value.tobytes())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Constant) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __str__(self) -> str:
        if self.value.size <= 4:
            return f"constant({self.value.tolist()})"
        return f"constant(<{self.value.size} values>)"


def placeholder(label: str, type: TensorType) -> Var:
    """An input Var of this type; its name is the keyword it is fed by."""
    return make_node(Placeholder(label, type), ()).outputs[0]


def constant(value: Any, dtype: DType | None = None) -> Var:
    """A Var with this value. Python floats become float32, Python integers int64."""
    array = np.asarray(value)
    if dtype is not None:
        array = _converted(array, dtype)
    elif not isinstance(value, (np.ndarray, np.generic)) and array.dtype == np.float64:
        array = array.astype(np.float32)
    array = np.array(array, order="C")  # a copy: nobody else may change it
    array.setflags(write=False)
    try:
        DType(array.dtype.name)
    except ValueError:
        raise GraphError(
            f"constant: element type {array.dtype} is not supported\n  at {user_origin()}"
        ) from None
    return make_node(Constant(array), ()).outputs[0]


def _converted(array: Array, dtype: DType) -> Array:
    """`array` in an element type that can hold its values: only floats may be rounded."""
    number = array.dtype.kind in "biuf"
    with np.errstate(invalid="ignore", over="ignore"):
        converted = array.astype(dtype.numpy) if number else array
    if not number or not (dtype.is_float or np.array_equal(converted, array)):
        shown = repr(array.item()) if array.size == 1 else f"{array.dtype}{list(array.shape)}"
        raise GraphError(f"constant: expected {dtype}, found {shown}\n  at {user_origin()}")
    return converted


# --- graphs ---------------------------------------------------------------------------------------


def nodes_of(outputs: Iterable[Var]) -> list[Node]:
    """Every node that the outputs need, inputs before users, in creation order where free."""
    found: dict[Node, None] = {}
    stack = [v.node for v in outputs]
    while stack:
        node = stack.pop()
        if node not in found:
            found[node] = None
            stack.extend(v.node for v in node.inputs)
    return sorted(found, key=lambda n: n.order)


@dataclass(frozen=True)
class Graph:
    """Outputs by name, and parameter updates; immutable. Passes return new graphs.

    updates: parameter's Var -> new. wishes: "again" or "keep" by value, for memory planning.
    """

    outputs: Mapping[str, Var]
    updates: Mapping[Var, Var] = dataclasses.field(default_factory=dict)
    wishes: Mapping[Var, str] = dataclasses.field(default_factory=dict)

    @property
    def results(self) -> list[Var]:
        """All values that must be computed: outputs, then updates."""
        return [*self.outputs.values(), *self.updates.values()]

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """In creation order, which is a topological order."""
        return tuple(nodes_of([*self.results, *self.updates.keys()]))

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    @property
    def placeholders(self) -> dict[str, Var]:
        found = (n for n in self.nodes if isinstance(n.op, Placeholder))
        return {n.op.label: n.outputs[0] for n in found}  # type: ignore[attr-defined]

    def users(self) -> dict[Var, list[Node]]:
        """Which nodes read each Var (once each, in order)."""
        users: dict[Var, list[Node]] = {}
        for node in self.nodes:
            for var in dict.fromkeys(node.inputs):
                users.setdefault(var, []).append(node)
        return users

    def to_networkx(self) -> networkx.MultiDiGraph:
        """Nodes are Node objects (`op`, `origin`), edges carry `var` and the input's index."""
        import networkx

        graph = networkx.MultiDiGraph()
        for node in self.nodes:
            graph.add_node(node, op=node.op, origin=node.origin)
            for index, var in enumerate(node.inputs):
                graph.add_edge(var.node, node, var=var, index=index)
        return graph


def rewrite(graph: Graph, rewriter: Rewriter) -> Graph:
    """Rebuild a graph bottom-up.

    `rewriter(node, new_inputs)` returns the Vars that stand for the node's outputs, or None to
    keep the node (rebuilt only when an input changed). New nodes inherit the node's origin.
    """
    replaced: dict[Var, Var] = {}
    for node in graph.nodes:
        inputs = tuple(replaced.get(v, v) for v in node.inputs)
        with taking_place_of(node), origin_of(node):
            outputs = rewriter(node, inputs)
            if outputs is None:
                same = all(a is b for a, b in zip(inputs, node.inputs, strict=True))
                outputs = node.outputs if same else make_node(node.op, inputs).outputs
        for old, new in zip(node.outputs, outputs, strict=True):
            if old.type.with_layout("rows") != new.type.with_layout("rows"):
                raise CompileError(f"rewrite: {node}: {old.type} was replaced by {new.type}")
            replaced[old] = new
    return Graph(
        {name: replaced[v] for name, v in graph.outputs.items()},
        {replaced[p]: replaced[v] for p, v in graph.updates.items()},
        {replaced[v]: wish for v, wish in graph.wishes.items() if v in replaced},
    )


def take_wishes(graph: Graph) -> Graph:
    """Without its hints (`Operator.wish`), which would stand between operators that can be joined:
    what they say is in `wishes`."""
    if not any(node.op.wish() for node in graph.nodes):
        return graph
    found: dict[Var, str] = {}

    def rewriter(node: Node, inputs: tuple[Var, ...]) -> Sequence[Var] | None:
        if not node.op.wish():
            return None
        found[inputs[0]] = node.op.wish()
        return inputs

    done = rewrite(graph, rewriter)
    return Graph(done.outputs, done.updates, found)


def verify(graph: Graph, after: str = "building", known: set[Node] | None = None) -> Graph:
    """Check the invariants of a graph; CompileError names the pass that broke one.

    known: nodes whose types were checked before, which are not inferred again; the others join.
    """
    known = set() if known is None else known
    before: set[Node] = set()
    labels: set[str] = set()
    for node in graph.nodes:
        for var in node.inputs:
            if var.node.outputs[var.index] is not var:
                raise CompileError(f"{after}: a Var of {node} is not its node's output")
            if var.node not in before:
                raise CompileError(f"{after}: {node} comes before its input")
        before.add(node)
        if isinstance(node.op, Placeholder):
            if node.op.label in labels:
                raise CompileError(f"{after}: two inputs are named {node.op.label}")
            labels.add(node.op.label)
        if node not in known:
            _verify_types(node, after)
    known |= before
    for parameter, new in graph.updates.items():
        if not parameter.node.op.source:
            raise CompileError(f"{after}: {parameter} is updated but is no parameter")
        if parameter.type != new.type:
            raise CompileError(f"{after}: update of {parameter.type} with {new.type}")
    return graph


def _verify_types(node: Node, after: str) -> None:
    taken = [v.type for v in node.inputs]
    for var, t in zip(node.outputs, node.op.output_types(taken), strict=True):
        if var.type.with_layout("rows") != t:
            raise CompileError(f"{after}: {node}: type {var.type}, inferred {t}")
    layouts = [v.type.layout for v in node.inputs], [v.type.layout for v in node.outputs]
    if any(layout != "rows" for layout in (*layouts[0], *layouts[1])):
        wanted, given = node.op.layouts(taken)
        if layouts != (list(wanted), list(given)):
            raise CompileError(f"{after}: {node}: layouts do not fit")
