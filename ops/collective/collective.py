"""All-reduce, all-gather, reduce-scatter, broadcast: values of all ranks of a group."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from megbrain_py import ranks
from megbrain_py.dtypes import Array, DType, TensorType
from megbrain_py.errors import GraphError, require
from megbrain_py.node import Node, Operator, Var, make_node

ReductionName = Literal["sum", "max", "min"]

Pattern = Literal["all_reduce", "all_gather", "reduce_scatter", "broadcast"]

_REDUCE = {"sum": np.add, "max": np.maximum, "min": np.minimum}


@dataclass(frozen=True)
class Collective(Operator):
    """Base: ranks of equal `colors` (one for each rank) take part together.

    Gradients are those of the sum of all ranks' losses. `among` is the oracle: what each rank gets
    from what all ranks of its group give; `reference` is that of a group of one. `pattern`: who
    sends what to whom, which decides what a call costs.
    """

    pattern: ClassVar[Pattern]
    colors: tuple[int, ...]
    collective: ClassVar[bool] = True
    pure: ClassVar[bool] = False

    @abstractmethod
    def among(self, given: Sequence[Sequence[Array]]) -> Sequence[Sequence[Array]]:
        """Outputs of each rank of a group, from their inputs, in the order of ranks."""

    def message_bytes(self, inputs: Sequence[TensorType]) -> int:
        """Of what a rank gives."""
        return sum(x.nbytes for x in inputs)

    def reference(self, *inputs: Array) -> Array | Sequence[Array]:
        if len(self.colors) != 1:
            raise GraphError(
                f"{self.name}: its reference needs the values of {len(self.colors)} ranks"
            )
        (outputs,) = self.among([inputs])
        return outputs[0] if len(outputs) == 1 else outputs

    @property
    def group_size(self) -> int:
        """Ranks in each group; Mismatch when groups differ in size."""
        sizes = {self.colors.count(color) for color in self.colors}
        require(len(sizes) == 1, f"groups must be of one size, are of {sorted(sizes)} ranks")
        return sizes.pop()


@dataclass(frozen=True)
class AllReduce(Collective, kernel="all_reduce"):
    """Each output is the sum (max, min) of that input over the group.

    Several inputs travel together: where lowering can, they lie side by side, and one call moves
    them all.
    """

    pattern: ClassVar[Pattern] = "all_reduce"
    side_by_side: ClassVar[bool] = True
    reduction: ReductionName = "sum"

    def infer(self, *inputs: TensorType) -> Sequence[TensorType]:
        require(
            self.reduction in _REDUCE, f"reduction must be sum, max or min, is {self.reduction}"
        )
        require(len(inputs) > 0, "expected at least one input")
        for x in inputs:
            require(x.dtype != DType.bool, "bool values cannot be reduced")
            require(x.dtype == inputs[0].dtype, f"x must be {inputs[0].dtype}, is {x.dtype}")
        return inputs

    def may_overwrite(
        self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]
    ) -> Sequence[tuple[int, int]]:
        return [(i, i) for i in range(len(inputs))]

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        if self.reduction != "sum":
            raise GraphError(f"{self.name}: only a sum has a gradient\n  at {node.origin}")
        given = [d for d in dy if d is not None]
        summed = iter(all_reduce_together(given, ranks.Group(self.colors)))
        return [None if d is None else next(summed) for d in dy]

    def among(self, given: Sequence[Sequence[Array]]) -> Sequence[Sequence[Array]]:
        outputs = [
            _REDUCE[self.reduction].reduce(np.stack(values), axis=0, dtype=values[0].dtype)
            for values in zip(*given, strict=True)
        ]
        return [outputs] * len(given)


@dataclass(frozen=True)
class AllReduceLater(AllReduce, kernel="all_reduce_later"):
    """The same while other instructions run: a wait before the first reader ends it."""

    asynchronous: ClassVar[bool] = True


@dataclass(frozen=True)
class AllGather(Collective, kernel="all_gather"):
    """x of every rank of the group, joined along axis 0 in the order of ranks."""

    pattern: ClassVar[Pattern] = "all_gather"

    def infer(self, x: TensorType) -> TensorType:
        require(x.rank >= 1, "x must have rank >= 1, is a scalar")
        return TensorType((self.group_size * x.shape[0], *x.shape[1:]), x.dtype)

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        return [ReduceScatter(self.colors)(dy[0])]

    def among(self, given: Sequence[Sequence[Array]]) -> Sequence[Sequence[Array]]:
        return [[np.concatenate([x for (x,) in given])]] * len(given)


@dataclass(frozen=True)
class ReduceScatter(Collective, kernel="reduce_scatter"):
    """The sum of x over the group; each rank gets its part of axis 0."""

    pattern: ClassVar[Pattern] = "reduce_scatter"

    def infer(self, x: TensorType) -> TensorType:
        require(x.dtype != DType.bool, "bool values cannot be reduced")
        require(x.rank >= 1, "x must have rank >= 1, is a scalar")
        parts = self.group_size
        require(x.shape[0] % parts == 0, f"axis 0 of {x} must be a multiple of {parts} ranks")
        return TensorType((x.shape[0] // parts, *x.shape[1:]), x.dtype)

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        return [AllGather(self.colors)(dy[0])]

    def among(self, given: Sequence[Sequence[Array]]) -> Sequence[Sequence[Array]]:
        total = np.sum(np.stack([x for (x,) in given]), axis=0, dtype=given[0][0].dtype)
        return [[part] for part in np.split(total, len(given))]


@dataclass(frozen=True)
class Broadcast(Collective, kernel="broadcast"):
    """x of the group's rank `root`."""

    pattern: ClassVar[Pattern] = "broadcast"
    root: int

    def infer(self, x: TensorType) -> TensorType:
        smallest = min(self.colors.count(color) for color in self.colors)
        require(0 <= self.root < smallest, f"root must be in [0, {smallest}), is {self.root}")
        return x

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        return [ReduceToRoot(self.colors, self.root)(dy[0])]

    def among(self, given: Sequence[Sequence[Array]]) -> Sequence[Sequence[Array]]:
        return [given[self.root]] * len(given)


@dataclass(frozen=True)
class ReduceToRoot(Broadcast, kernel="reduce_to_root"):
    """The sum of x over the group on its rank `root`, zeros elsewhere: broadcast's gradient."""

    pattern: ClassVar[Pattern] = "all_reduce"

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        return [Broadcast(self.colors, self.root)(dy[0])]

    def among(self, given: Sequence[Sequence[Array]]) -> Sequence[Sequence[Array]]:
        total = np.sum(np.stack([x for (x,) in given]), axis=0, dtype=given[0][0].dtype)
        return [[total if r == self.root else np.zeros_like(total)] for r in range(len(given))]


def colors_of(group: ranks.Group | None) -> tuple[int, ...] | None:
    """The group's colors, all ranks' for None.

    None where the program is alone and names no group: then nothing is to be exchanged.
    """
    if group is None:
        return ranks.everyone().colors if ranks.current().size > 1 else None
    return group.colors


def all_reduce(x: Var, reduction: ReductionName = "sum", group: ranks.Group | None = None) -> Var:
    """The sum (or "max", "min") of x over the ranks of the group (None: all).

    x: any shape, the same on every rank; no bool. Sums add in the order of ranks.
    """
    colors = colors_of(group)
    return x if colors is None else make_node(AllReduce(colors, reduction), [x]).outputs[0]


def all_reduce_together(
    values: Sequence[Var], group: ranks.Group | None = None, *, overlap: bool = False
) -> list[Var]:
    """Sums of several values of one element type over the group, in one collective.

    overlap: it goes on while other instructions run, until something reads a sum. The same bits.
    """
    colors = colors_of(group)
    if colors is None or not values:
        return list(values)
    kind = AllReduceLater if overlap else AllReduce
    return list(make_node(kind(colors), values).outputs)


def all_gather(x: Var, group: ranks.Group | None = None) -> Var:
    """x `[n, ...]` of every rank of the group, joined along axis 0: `[ranks * n, ...]`."""
    colors = colors_of(group)
    return x if colors is None else make_node(AllGather(colors), [x]).outputs[0]


def reduce_scatter(x: Var, group: ranks.Group | None = None) -> Var:
    """Sum of x `[ranks * n, ...]` over the group, of which each rank gets its `[n, ...]`."""
    colors = colors_of(group)
    return x if colors is None else make_node(ReduceScatter(colors), [x]).outputs[0]


def broadcast(x: Var, root: int = 0, group: ranks.Group | None = None) -> Var:
    """x of the group's rank `root`, on all its ranks."""
    colors = colors_of(group)
    return x if colors is None else make_node(Broadcast(colors, root), [x]).outputs[0]
