"""Module: parameters and submodules found by attribute, dotted names, state in and out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from megbrain_py.dtypes import Array
from megbrain_py.errors import DataError
from megbrain_py.parameter import Parameter

_IGNORED = "num_batches_tracked"  # torch counts batches in its batch norms; nothing here needs it
_LISTED = 8  # names shown of each kind in an error


class Module:
    """A part of a network: attributes hold Parameters, Modules, and lists or dicts of Modules.

    A subclass sets attributes in `__init__` and writes `forward`, which builds graph; calling the
    module calls `forward`. Names are the attributes joined with dots, as torch has them:
    `layer1.0.conv1.weight`. A parameter carries its full name, so that errors and plans show it.
    """

    frozen = False  # see `freeze`

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        for inner, parameter in _parameters_in(value, name):
            parameter.rename(inner)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Build the graph of this module on Vars."""
        raise TypeError(f"{type(self).__name__}: a module needs its own forward()")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """(dotted name, module) of this module ("") and all below, in definition order."""
        yield prefix, self
        for name, value in vars(self).items():
            for inner, module in _modules_in(value, f"{prefix}.{name}" if prefix else name):
                yield from module.named_modules(inner)

    def modules(self) -> Iterator[Module]:
        """This module and all below."""
        return (module for _, module in self.named_modules())

    def named_state(self) -> dict[str, Parameter]:
        """Every Parameter by name, trained or not (running statistics); shared ones once."""
        found: dict[str, Parameter] = {}
        seen: set[int] = set()
        for prefix, module in self.named_modules():
            for name, value in vars(module).items():
                if isinstance(value, Parameter) and id(value) not in seen:
                    seen.add(id(value))
                    found[f"{prefix}.{name}" if prefix else name] = value
        return found

    def named_parameters(self) -> dict[str, Parameter]:
        """The trainable Parameters by name."""
        return {n: p for n, p in self.named_state().items() if p.trainable}

    def parameters(self) -> list[Parameter]:
        """The trainable Parameters: what gradients are taken of and an optimiser updates."""
        return list(self.named_parameters().values())

    def requires_grad(self, trainable: bool) -> None:
        """Freeze (False) or free (True) all weights of this module; running statistics stay."""
        for module in self.modules():
            for name, value in vars(module).items():
                if isinstance(value, Parameter) and not name.startswith("running_"):
                    value.trainable = trainable

    def freeze(self) -> None:
        """Freeze all weights, and with them the statistics of batch norms."""
        self.requires_grad(False)
        for module in self.modules():
            module.frozen = True

    def state_dict(self) -> dict[str, Array]:
        """Copies of all values by name, in definition order."""
        return {name: p.value.copy() for name, p in self.named_state().items()}

    def load_state_dict(self, state: Mapping[str, Any], *, strict: bool = True) -> list[str]:
        """Write values into the parameters; all or nothing.

        strict: every name must be known and given. Otherwise only those that fit by name are
        written. Shapes and kinds of element (float, integer) must always fit. torch's
        `num_batches_tracked` is passed over. Returns the names that were written; raises
        DataError with a list of missing and unknown names and of wrong shapes.
        """
        own = self.named_state()
        given = {n: np.asarray(v) for n, v in state.items() if not n.endswith(_IGNORED)}
        problems: list[str] = []
        if strict:
            problems += _listing("missing", [n for n in own if n not in given])
            problems += _listing("unknown", [n for n in given if n not in own])
        common = [n for n in own if n in given]
        problems += _listing("wrong", [w for n in common for w in _misfit(n, own[n], given[n])])
        if problems:
            head = f"load_state_dict: the state does not fit {type(self).__name__}"
            raise DataError("\n".join([head, *problems]))
        for name in common:
            own[name].set(given[name])
        return common


def _misfit(name: str, parameter: Parameter, value: Array) -> list[str]:
    expected = f"{name}: expected {parameter.dtype}{list(parameter.shape)}"
    fits = value.shape == parameter.shape and np.can_cast(
        value.dtype, parameter.dtype.numpy, "same_kind"
    )
    return [] if fits else [f"{expected}, found {value.dtype}{list(value.shape)}"]


def _listing(kind: str, names: list[str]) -> list[str]:
    if not names:
        return []
    more = [f"    and {len(names) - _LISTED} more"] if len(names) > _LISTED else []
    return [f"  {kind} ({len(names)}):", *(f"    {n}" for n in names[:_LISTED]), *more]


def _modules_in(value: Any, name: str) -> Iterator[tuple[str, Module]]:
    """Modules that an attribute's value holds, with their names."""
    if isinstance(value, Module):
        yield name, value
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _modules_in(item, f"{name}.{index}")
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _modules_in(item, f"{name}.{key}")


def _parameters_in(value: Any, name: str) -> Iterator[tuple[str, Parameter]]:
    if isinstance(value, Parameter):
        yield name, value
    for prefix, module in _modules_in(value, name):
        for inner, parameter in module.named_state().items():
            yield f"{prefix}.{inner}", parameter
