"""Sequential and ModuleList: modules named by their position."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from megbrain_py.nn.module import Module


class ModuleList(Module):
    """Modules in a row, named "0", "1", ...; an iterable, not a callable."""

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        self._length = 0
        for module in modules:
            self.append(module)

    def append(self, module: Module) -> None:
        """Add a module at the end."""
        setattr(self, str(self._length), module)
        self._length += 1

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Module:
        if not -self._length <= index < self._length:
            raise IndexError(f"index {index} of {self._length} modules")
        module: Module = getattr(self, str(index % self._length))
        return module

    def __iter__(self) -> Iterator[Module]:
        return (self[index] for index in range(self._length))


class Sequential(ModuleList):
    """Modules applied one after another: `Sequential(Linear(64, 32), ReLU())`."""

    def __init__(self, *modules: Module) -> None:
        super().__init__(modules)

    def forward(self, x: Any) -> Any:
        for module in self:
            x = module(x)
        return x
