"""An operator whose work goes on in a thread of its own, for tests of asynchronous instructions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import megbrain_py as mb
from megbrain_py.dtypes import Array


@dataclass(frozen=True)
class CopyLater(mb.Operator, kernel="copy_later"):
    """x, copied after some seconds. fails: "", or when an error is thrown: "start", "work".

    staged: the copy goes through a workspace.
    """

    seconds: float = 0.0
    fails: str = ""
    staged: bool = False
    asynchronous: ClassVar[bool] = True

    def infer(self, x: mb.TensorType) -> mb.TensorType:
        return x

    def may_overwrite(
        self, inputs: Sequence[mb.TensorType], outputs: Sequence[mb.TensorType]
    ) -> Sequence[tuple[int, int]]:
        return [(0, 0)]

    def grad(self, node: mb.Node, *dy: Any) -> Sequence[mb.Var | None]:
        return [copy_later(dy[0], self.seconds)]

    def reference(self, x: Array) -> Array:
        return x


def copy_later(x: mb.Var, seconds: float = 0.0, fails: str = "", *, staged: bool = False) -> mb.Var:
    """x; the copy is made `seconds` after its instruction."""
    result: mb.Var = CopyLater(seconds, fails, staged)(x)
    return result
