"""Batch norm's statistics over many pictures, instead of a running average of noisy batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from megbrain_py import distributed, nn
from megbrain_py.compiler import SpecializedFunction
from megbrain_py.dtypes import Array
from megbrain_py.graph import Var
from megbrain_py.nn.normalization import BatchNorm2d
from megbrain_py.parameter import Parameter
from megbrain_py.training.step import Batch, Detector, feeds_of


class PreciseNorms:
    """Computes each trained batch norm's mean and variance over given batches.

    Weights do not change meanwhile, so the moments of the batches join: the mean is the mean of
    the batches' means, the variance the mean of their variances plus the variance of their means,
    each batch weighted by its pictures, on every rank its own. Without trained batch norms there
    is nothing to do.
    """

    def __init__(self, model: Detector, signatures: int = 8) -> None:
        self.model = model
        self._norms: dict[str, tuple[Parameter, Parameter]] = {}
        for name, module in model.named_modules():
            if isinstance(module, BatchNorm2d) and not module.frozen:
                self._norms[name] = module.running_mean, module.running_var
        self.function = SpecializedFunction(self._build, signatures)

    def __bool__(self) -> bool:
        return bool(self._norms)

    def _build(self, **inputs: Var) -> dict[str, Var]:
        """The moments of a batch, by norm: what running statistics without a memory become."""
        with nn.train_mode(inputs.get("key"), momentum=1.0) as updates:
            self.model.losses(**inputs)
        used = {name: pair for name, pair in self._norms.items() if pair[0] in updates}
        return {
            f"{name}.{kind}": updates[statistic]
            for name, pair in used.items()
            for kind, statistic in zip(("mean", "var"), pair, strict=True)
        }

    def measure(self, batches: Iterable[Batch], seed: int) -> dict[str, tuple[Any, Any]]:
        """Mean and variance (unbiased within batches, float64) by the name of the norm."""
        own: list[tuple[int, Mapping[str, Array]]] = []
        for batch in batches:
            fed: dict[str, Any] = feeds_of(batch, seed, 0)
            own.append((len(batch["image_ids"]), self.function(**fed)))
        every = [pair for part in distributed.all_gather_objects(own) for pair in part]
        weights = [count for count, _ in every]
        moments = [values for _, values in every]
        found: dict[str, tuple[Any, Any]] = {}
        for name in self._norms:
            if not moments or f"{name}.mean" not in moments[0]:
                continue
            means, variances = (
                np.array([m[f"{name}.{kind}"] for m in moments], np.float64)
                for kind in ("mean", "var")
            )
            mean = np.average(means, axis=0, weights=weights)
            between = np.average((means - mean) ** 2, axis=0, weights=weights)
            found[name] = mean, np.average(variances, axis=0, weights=weights) + between
        return found

    @contextmanager
    def in_use(self, batches: Iterable[Batch], seed: int) -> Iterator[None]:
        """Meanwhile the norms have these statistics; afterwards the running ones, bit-equal."""
        kept = {p: p.value.copy() for pair in self._norms.values() for p in pair}
        for name, values in self.measure(batches, seed).items():
            for parameter, value in zip(self._norms[name], values, strict=True):
                parameter.set(value)
        try:
            yield
        finally:
            for parameter, value in kept.items():
                parameter.set(value)
