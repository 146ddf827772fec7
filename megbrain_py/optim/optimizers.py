"""SGD and AdamW: they give the new value of each parameter and state as graph."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from megbrain_py.autodiff import gradients
from megbrain_py.dtypes import Array
from megbrain_py.errors import DataError, GraphError
from megbrain_py.graph import Var, VarLike, constant, user_origin
from megbrain_py.ops.optimizer import AdamWUpdate, GradientStep, SgdUpdate
from megbrain_py.parameter import Parameter

Gradients: TypeAlias = "Mapping[Parameter, Var]"
Updates: TypeAlias = "dict[Parameter, Var]"


@dataclass(frozen=True)
class Group:
    """Parameters that share settings: their weight decay, and a factor on the learning rate."""

    parameters: Sequence[Parameter]
    weight_decay: float
    lr_factor: float = 1.0


def decay_groups(parameters: Sequence[Parameter], weight_decay: float) -> list[Group]:
    """Weight decay for weights of rank >= 2 only: none for biases and norms' scales and shifts."""
    weights = [p for p in parameters if p.rank >= 2]
    others = [p for p in parameters if p.rank < 2]
    return [Group(weights, weight_decay), Group(others, 0.0)]


class Optimizer(ABC):
    """Holds the state of the trainable ones among the parameters it is given.

    parameters: Parameters, or Groups with settings of their own. `updates` builds the graph;
    states are ordinary Parameters, saved and loaded with `state_dict`, `load_state_dict`.
    """

    def __init__(
        self, parameters: Sequence[Parameter] | Sequence[Group], weight_decay: float
    ) -> None:
        listed = list(parameters)
        groups = [g for g in listed if isinstance(g, Group)]
        loose = [p for p in listed if isinstance(p, Parameter)]
        if loose:
            groups.append(Group(loose, weight_decay))
        self.groups = [
            Group([p for p in g.parameters if p.trainable], g.weight_decay, g.lr_factor)
            for g in groups
        ]
        self.parameters = [p for g in self.groups for p in g.parameters]
        if len(set(self.parameters)) != len(self.parameters):
            raise GraphError(f"{self.name}: a parameter is listed twice\n  at {user_origin()}")
        self._state: dict[str, Parameter] = {}
        for index, parameter in enumerate(self.parameters):
            self._make_state(parameter, parameter.name or str(index))

    @property
    def name(self) -> str:
        """What messages show."""
        return type(self).__name__

    @abstractmethod
    def _make_state(self, parameter: Parameter, label: str) -> None:
        """Create the state of one parameter."""

    @abstractmethod
    def _update(self, parameter: Parameter, gradient: Var, lr: Var, weight_decay: Var) -> Updates:
        """New values of a parameter and of its state."""

    def _shared_updates(self) -> Updates:
        """New values of state that belongs to no single parameter."""
        return {}

    def _add_state(self, name: str, value: Array) -> Parameter:
        if name in self._state:
            raise GraphError(f"{self.name}: two parameters are named {name}\n  at {user_origin()}")
        self._state[name] = Parameter(value, name, trainable=False)
        return self._state[name]

    def updates(
        self, loss: Var | Gradients | Sequence[Var], lr: VarLike, *,
        weight_decay: Var | None = None,
    ) -> Updates:  # fmt: skip
        """New values for parameters and states, to be passed on to `compile(updates=...)`.

        loss: a scalar whose gradients are taken; or ready gradients, by parameter or in the order
        of `self.parameters`. lr: a scalar, usually a placeholder of shape `()`. weight_decay: a
        scalar that stands for the one given at construction (groups without decay keep none).
        """
        found = self._gradients(loss)
        rate = _scalar(lr)
        result = self._shared_updates()
        for group in self.groups:
            decay = _scalar(group.weight_decay)
            if weight_decay is not None and group.weight_decay != 0.0:
                decay = weight_decay
            group_rate = rate if group.lr_factor == 1.0 else rate * group.lr_factor
            for parameter in group.parameters:
                result.update(self._update(parameter, found[parameter], group_rate, decay))
        return result

    def _gradients(self, loss: Var | Gradients | Sequence[Var]) -> Gradients:
        if isinstance(loss, Mapping):
            missing = [p.name for p in self.parameters if p not in loss]
            if missing:
                raise GraphError(
                    f"{self.name}: no gradient for {missing[0]} ({len(missing)} missing)\n"
                    f"  at {user_origin()}"
                )
            return loss
        listed = gradients(loss, self.parameters) if isinstance(loss, Var) else list(loss)
        if len(listed) != len(self.parameters):
            raise GraphError(
                f"{self.name}: expected {len(self.parameters)} gradients, found {len(listed)}\n"
                f"  at {user_origin()}"
            )
        return dict(zip(self.parameters, listed, strict=True))

    def named_state(self) -> dict[str, Parameter]:
        """The state's Parameters by name."""
        return dict(self._state)

    def state_dict(self) -> dict[str, Array]:
        """Copies of the state's values by name."""
        return {name: p.value.copy() for name, p in self._state.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Write a state that `state_dict` gave; DataError when names or shapes do not fit."""
        missing = [n for n in self._state if n not in state]
        unknown = [n for n in state if n not in self._state]
        wrong = [
            n for n, p in self._state.items()
            if n in state and np.asarray(state[n]).shape != p.shape
        ]  # fmt: skip
        if missing or unknown or wrong:
            raise DataError(
                f"{self.name}: the state does not fit\n  missing: {missing[:5]}\n"
                f"  unknown: {unknown[:5]}\n  wrong shape: {wrong[:5]}"
            )
        for name, parameter in self._state.items():
            parameter.set(state[name])


class SGD(Optimizer):
    """Stochastic gradient descent: momentum (none for 0), Nesterov's variant, weight decay."""

    def __init__(
        self,
        parameters: Sequence[Parameter] | Sequence[Group],
        *,
        momentum: VarLike = 0.9,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        self.momentum = momentum
        self.nesterov = nesterov
        self._plain = not isinstance(momentum, Var) and float(momentum) == 0.0
        if nesterov and self._plain:
            raise GraphError(f"SGD: nesterov needs a momentum\n  at {user_origin()}")
        self._velocity: dict[Parameter, Parameter] = {}
        super().__init__(parameters, weight_decay)

    def _make_state(self, parameter: Parameter, label: str) -> None:
        if not self._plain:
            zeros = np.zeros(parameter.shape, np.float32)
            self._velocity[parameter] = self._add_state(f"{label}.momentum", zeros)

    def _update(self, parameter: Parameter, gradient: Var, lr: Var, weight_decay: Var) -> Updates:
        if self._plain:
            new: Var = GradientStep()(parameter, gradient, lr, weight_decay)
            return {parameter: new}
        velocity = self._velocity[parameter]
        moved = SgdUpdate(self.nesterov)(
            parameter, gradient, velocity, lr, _scalar(self.momentum), weight_decay
        )
        return dict(zip((parameter, velocity), moved, strict=True))


class AdamW(Optimizer):
    """Adam with decoupled weight decay and bias correction; `step` is part of the state."""

    def __init__(
        self,
        parameters: Sequence[Parameter] | Sequence[Group],
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        self.rule = AdamWUpdate(betas[0], betas[1], eps)
        self._moments: dict[Parameter, tuple[Parameter, Parameter]] = {}
        super().__init__(parameters, weight_decay)
        self._step = self._add_state("step", np.zeros((), np.float32))

    def _make_state(self, parameter: Parameter, label: str) -> None:
        zeros = np.zeros(parameter.shape, np.float32)
        mean = self._add_state(f"{label}.mean", zeros)
        square = self._add_state(f"{label}.square", zeros)
        self._moments[parameter] = mean, square

    def _shared_updates(self) -> Updates:
        self._next_step = self._step + 1.0
        return {self._step: self._next_step}

    def _update(self, parameter: Parameter, gradient: Var, lr: Var, weight_decay: Var) -> Updates:
        mean, square = self._moments[parameter]
        new = self.rule(parameter, gradient, mean, square, lr, weight_decay, self._next_step)
        return dict(zip((parameter, mean, square), new, strict=True))


def _scalar(value: VarLike) -> Var:
    return value if isinstance(value, Var) else constant(np.float32(value))
