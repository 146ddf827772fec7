"""Average: an exponential moving average of the weights, kept in the compiled step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from megbrain_py.dtypes import Array
from megbrain_py.graph import Var
from megbrain_py.parameter import Parameter


class Average:
    """a <- a + (1 - d) (w - a) after each step, for every weight and running statistic w.

    d is `decay`, and at first less, (1 + step) / (10 + step), so that the initial weights are soon
    forgotten; as tf.train.ExponentialMovingAverage does with `num_updates`.
    """

    def __init__(self, state: Mapping[str, Parameter], decay: float) -> None:
        self.decay = decay
        self._own = {name: p for name, p in state.items() if p.dtype.is_float}
        self._values = {
            name: Parameter(p.value, f"{name}.ema", trainable=False)
            for name, p in self._own.items()
        }

    def share(self, step: int) -> float:
        """1 - d of a step: how far the average goes towards the new weights."""
        return 1.0 - min(self.decay, (1 + step) / (10 + step))

    def updates(self, new: Mapping[Parameter, Var], share: Var) -> dict[Parameter, Var]:
        """The graph of a step's averages; `new` are the values that the step gives."""
        return {
            average: average + (new.get(own, own) - average) * share
            for own, average in zip(self._own.values(), self._values.values(), strict=True)
        }

    def state_dict(self) -> dict[str, Array]:
        """The averages by the names of the weights; arrays in use, not copies."""
        return {name: p.value for name, p in self._values.items()}

    def load(self, state: Mapping[str, Array]) -> None:
        """Take averages over; where there are none, start from the weights as they are."""
        for name, own in self._own.items():
            self._values[name].set(state.get(name, own.value))

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Meanwhile the model has the averages for weights; afterwards its own again, bit-equal."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        for name, own in self._own.items():
            kept = own.value.copy()
            own.set(self._values[name].value)
            self._values[name].set(kept)
