"""The compiled parts of a training: a step that updates, and losses that do not."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any, Protocol

import numpy as np

from megbrain_py import distributed, nn, random
from megbrain_py import functional as F
from megbrain_py.autodiff import gradients
from megbrain_py.compiler import SpecializedFunction
from megbrain_py.dtypes import Array, TensorType, tensor_type
from megbrain_py.graph import Var
from megbrain_py.optim import clip_by_global_norm, clip_by_value
from megbrain_py.parameter import Parameter
from megbrain_py.training.ema import Average

Batch = Mapping[str, Array]
Updates = dict[Parameter, Var]
_NOT_FED = ("image_ids", "original_sizes")  # of a batch: for people and for evaluation
NORM = "grad_norm"  # of the values of a step: the gradients' norm before it is clipped


class Detector(Protocol):
    """What is trained: a Module whose `losses` builds scalars from a batch and its keys."""

    def losses(self, **inputs: Var) -> Mapping[str, Var]:
        """Scalar losses by name; their sum is what training makes small.

        Where ranks share a batch these are the rank's shares: its own terms, divided by the count
        of all ranks' terms (nn.over_ranks).
        """

    def parameters(self) -> list[Parameter]:
        """The trainable Parameters."""

    def named_state(self) -> dict[str, Parameter]:
        """Every Parameter by name."""

    def named_modules(self) -> Iterator[tuple[str, nn.Module]]:
        """(dotted name, module) of itself and of every part."""


class Optimizer(Protocol):
    """An optimiser as `optim` has them."""

    def updates(self, loss: Any, lr: Var) -> Updates:
        """New values of the parameters and of the optimiser's own state."""

    def state_dict(self) -> dict[str, Array]:
        """Its state by name."""

    def load_state_dict(self, state: Mapping[str, Array]) -> Any:
        """Take the state over."""


@dataclass(frozen=True)
class StepOptions:
    """clip_value, clip_norm: limits of the gradients, in this order; 0: none. accumulate: batches
    whose gradients make one step."""

    clip_norm: float = 0.0
    clip_value: float = 0.0
    accumulate: int = 1


def feeds_of(batch: Batch, seed: int, step: int) -> dict[str, Array]:
    """What a compiled step is fed: the batch and a key for each picture."""
    fed = {name: array for name, array in batch.items() if name not in _NOT_FED}
    return {**fed, "key": random.keys(seed, step, batch["image_ids"])}


def types_of(feeds: Mapping[str, Any]) -> dict[str, TensorType]:
    """The types of what a function is fed."""
    return {name: tensor_type(array.shape, array.dtype) for name, array in feeds.items()}


def shape_of(batch: Batch) -> str:
    """A batch's shape for people."""
    pictures = "x".join(map(str, batch["images"].shape))
    return f"pictures {pictures}, {batch['labels'].shape[1]} rows of boxes"


def _total(losses: Mapping[str, Var]) -> Var:
    return functools.reduce(F.add, losses.values())


def _shown(losses: Mapping[str, Var]) -> dict[str, Var]:
    """The losses of all ranks, their sum as "loss" first."""
    every = dict(zip(losses, F.all_reduce_together(list(losses.values())), strict=True))
    return {"loss": _total(every), **every}


class TrainStep:
    """One optimiser step on one batch, or on several whose gradients are averaged.

    Where ranks share the batches, each has its own rows of them, gradients are summed over ranks
    before anything else is done to them, and so all make the same step.
    One batch: losses, gradients, clipping and the update are one function, compiled once for each
    size of batch. Several: such a function only adds the gradients up, and a last one, compiled
    once, clips their mean and updates. Sums are zero between steps, so no checkpoint holds them.
    """

    def __init__(
        self,
        model: Detector,
        optimizer: Optimizer,
        options: StepOptions | None = None,
        *,
        average: Average | None = None,
        signatures: int = 8,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.options = options or StepOptions()
        self.average = average
        self._weights = model.parameters()
        several = self.options.accumulate > 1
        self.function = SpecializedFunction(self._add_up if several else self._whole, signatures)
        self._last = SpecializedFunction(self._update_from_sums, 1)
        self._sums = [
            Parameter(np.zeros(p.shape, np.float32), f"{p.name}.sum", trainable=False)
            for p in (self._weights if several else ())
        ]
        self.peak_bytes = 0  # scratch memory of the last batch's function
        self.news: list[str] = []  # about functions compiled since the reader emptied it

    # --- graphs ---

    def _losses(self, inputs: Mapping[str, Var]) -> tuple[dict[str, Var], list[Var], Updates]:
        """The losses to show, this rank's gradients, and the new running statistics."""
        with nn.train_mode(inputs.get("key")) as statistics:
            losses = dict(self.model.losses(**inputs))
        return _shown(losses), gradients(_total(losses), self._weights), statistics

    def _whole(
        self, lr: Var, share: Var | None = None, **inputs: Var
    ) -> tuple[dict[str, Var], Updates]:
        losses, own, statistics = self._losses(inputs)
        goal, norm = self._clipped(distributed.data_parallel(own))
        updates = {**statistics, **self.optimizer.updates(goal, lr)}
        return {**losses, **norm}, self._averaged(updates, share)

    def _add_up(self, **inputs: Var) -> tuple[dict[str, Var], Updates]:
        losses, own, statistics = self._losses(inputs)
        sums = {total: total + g for total, g in zip(self._sums, own, strict=True)}
        return losses, {**statistics, **sums}

    def _update_from_sums(
        self, lr: Var, share: Var | None = None
    ) -> tuple[dict[str, Var], Updates]:
        means = [total * (1.0 / self.options.accumulate) for total in self._sums]
        goal, norm = self._clipped(distributed.data_parallel(means))
        return norm, self._averaged(self.optimizer.updates(goal, lr), share)

    def _clipped(self, found: list[Var]) -> tuple[dict[Parameter, Var], dict[str, Var]]:
        """Gradients as the optimiser takes them; and their norm where it is limited."""
        limit, each = self.options.clip_norm, self.options.clip_value
        if each:
            found = clip_by_value(found, each)
        norm = {}
        if limit:
            found, norm[NORM] = clip_by_global_norm(found, limit)
        return dict(zip(self._weights, found, strict=True)), norm

    def _averaged(self, updates: Updates, share: Var | None) -> Updates:
        if self.average is None or share is None:
            return updates
        return {**updates, **self.average.updates(updates, share)}

    # --- running ---

    @property
    def signatures(self) -> int:
        """How many step functions were compiled, one for each size of batch."""
        return self.function.compilations

    def __call__(
        self, batches: Sequence[Batch], seed: int, step: int, lr: float
    ) -> dict[str, float]:
        """Make the step on `accumulate` batches.

        The losses before it, the mean of the batches, "loss" being their sum; "grad_norm" where
        clip_norm limits it.
        """
        scalars = self._scalars(step, lr)
        if self.options.accumulate == 1:
            return self._run({**feeds_of(batches[0], seed, step), **scalars})
        totals: dict[str, float] = {}
        for batch in batches:
            for name, value in self._run(feeds_of(batch, seed, step)).items():
                totals[name] = totals.get(name, 0.0) + value / len(batches)
        norm = self._last(**scalars)
        for total in self._sums:
            total.value.fill(0.0)
        return {**totals, **{name: float(value) for name, value in norm.items()}}

    def _scalars(self, step: int, lr: float) -> dict[str, Any]:
        """What a step is fed besides batches."""
        scalars: dict[str, Any] = {"lr": np.asarray(lr, np.float32)}
        if self.average is not None:
            scalars["share"] = np.asarray(self.average.share(step), np.float32)
        return scalars

    def programs(self, batch: Batch) -> list[tuple[SpecializedFunction, dict[str, TensorType]]]:
        """The functions that a step on such a batch runs, and the types of their inputs."""
        fed, scalars = feeds_of(batch, 0, 0), self._scalars(0, 0.0)
        if self.options.accumulate == 1:
            return [(self.function, types_of({**fed, **scalars}))]
        return [(self.function, types_of(fed)), (self._last, types_of(scalars))]

    def state_bytes(self) -> int:
        """Bytes of all that outlives a step: weights, statistics, averages, the optimiser's."""
        own = [p.value for p in (*self.model.named_state().values(), *self._sums)]
        averages = self.average.state_dict() if self.average is not None else {}
        kept = [*own, *self.optimizer.state_dict().values(), *averages.values()]
        return sum({id(array): array.nbytes for array in kept}.values())

    def _run(self, feeds: Mapping[str, Any]) -> dict[str, float]:
        before, started = self.signatures, time.perf_counter()
        function = self.function.specialize(**types_of(feeds))
        self.peak_bytes = function.peak_bytes
        if self.signatures > before:
            again = len(function.plan.memory.again)
            self.news.append(
                f"compiled step function {self.signatures}: {shape_of(feeds)}, "
                f"{self.peak_bytes / 2**20:.1f} MiB of memory, "
                + (f"{again} instructions run again, " if again else "")
                + f"{time.perf_counter() - started:.1f} s"
            )
        return {name: float(value) for name, value in function(**feeds).items()}


class ValidationLoss:
    """The losses on pictures that are not learnt from, weights as they are in use."""

    def __init__(self, model: Detector, *, signatures: int = 8) -> None:
        self.model = model
        self.function = SpecializedFunction(self._build, signatures)

    def _build(self, **inputs: Var) -> dict[str, Var]:
        losses = dict(self.model.losses(**inputs))
        return {"loss": _total(losses), **losses}

    def __call__(self, batches: Iterable[Batch], seed: int) -> dict[str, float]:
        """The mean over the pictures. Sampling draws the same each time: figures compare.

        batches: those of this rank, every n-th where there are n; the mean is over all of them.
        """
        own: list[tuple[int, Mapping[str, Array]]] = []
        for batch in batches:
            count = max(1, int((batch["image_ids"] >= 0).sum()))  # blank pictures have id -1
            feeds: dict[str, Any] = feeds_of(batch, seed, 0)
            own.append((count, self.function(**feeds)))
        by_rank = distributed.all_gather_objects(own)
        totals: dict[str, float] = {}
        images = 0
        for count, losses in filter(None, chain(*zip_longest(*by_rank))):  # as one rank has them
            for name, value in losses.items():
                totals[name] = totals.get(name, 0.0) + float(value) * count
            images += count
        return {name: total / images for name, total in totals.items()}
