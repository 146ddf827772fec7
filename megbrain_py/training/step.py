"""The compiled parts of a training: a step that updates, and losses that do not."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np

from megbrain_py import functional as F
from megbrain_py import nn, random
from megbrain_py.autodiff import gradients
from megbrain_py.compiler import SpecializedFunction
from megbrain_py.dtypes import Array, tensor_type
from megbrain_py.graph import Var
from megbrain_py.optim import clip_by_global_norm
from megbrain_py.parameter import Parameter

Batch = Mapping[str, Array]
_NOT_FED = ("image_ids", "original_sizes")  # of a batch: for people and for evaluation


class Detector(Protocol):
    """What is trained: a Module whose `losses` builds scalars from a batch and its keys."""

    def losses(self, **inputs: Var) -> Mapping[str, Var]:
        """Scalar losses by name; their sum is what training makes small."""

    def parameters(self) -> list[Parameter]:
        """The trainable Parameters."""

    def named_state(self) -> dict[str, Parameter]:
        """Every Parameter by name."""


class Optimizer(Protocol):
    """An optimiser as `optim` has them."""

    def updates(self, loss: Any, lr: Var) -> dict[Parameter, Var]:
        """New values of the parameters and of the optimiser's own state."""

    def state_dict(self) -> dict[str, Array]:
        """Its state by name."""

    def load_state_dict(self, state: Mapping[str, Array]) -> Any:
        """Take the state over."""


def feeds_of(batch: Batch, seed: int, step: int) -> dict[str, Array]:
    """What a compiled step is fed: the batch and a key for each picture."""
    fed = {name: array for name, array in batch.items() if name not in _NOT_FED}
    return {**fed, "key": random.keys(seed, step, batch["image_ids"])}


def _total(losses: Mapping[str, Var]) -> Var:
    return functools.reduce(F.add, losses.values())


class TrainStep:
    """One optimiser step on a batch, compiled once for each size of batch."""

    def __init__(
        self, model: Detector, optimizer: Optimizer, *, clip_norm: float = 0.0, signatures: int = 8
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.clip_norm = clip_norm
        self.function = SpecializedFunction(self._build, signatures)
        self.peak_bytes = 0  # scratch memory of the last step's function

    def _build(self, lr: Var, **inputs: Var) -> tuple[dict[str, Var], dict[Parameter, Var]]:
        with nn.train_mode(inputs.get("key")) as updates:
            losses = dict(self.model.losses(**inputs))
        total = _total(losses)
        goal: Any = total
        if self.clip_norm > 0:
            weights = self.model.parameters()
            scaled, _ = clip_by_global_norm(gradients(total, weights), self.clip_norm)
            goal = dict(zip(weights, scaled, strict=True))
        return {"loss": total, **losses}, {**updates, **self.optimizer.updates(goal, lr)}

    @property
    def signatures(self) -> int:
        """How many step functions were compiled."""
        return self.function.compilations

    def __call__(self, batch: Batch, seed: int, step: int, lr: float) -> dict[str, float]:
        """Make the step; the losses before it, "loss" being their sum."""
        feeds: dict[str, Any] = {**feeds_of(batch, seed, step), "lr": np.asarray(lr, np.float32)}
        types = {name: tensor_type(array.shape, array.dtype) for name, array in feeds.items()}
        function = self.function.specialize(**types)
        self.peak_bytes = function.peak_bytes
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
        """The mean over the pictures. Sampling draws the same each time: figures compare."""
        totals: dict[str, float] = {}
        images = 0
        for batch in batches:
            count = max(1, int((batch["image_ids"] >= 0).sum()))  # blank pictures have id -1
            feeds: dict[str, Any] = feeds_of(batch, seed, 0)
            for name, value in self.function(**feeds).items():
                totals[name] = totals.get(name, 0.0) + float(value) * count
            images += count
        return {name: total / images for name, total in totals.items()}
