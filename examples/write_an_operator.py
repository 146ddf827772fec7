"""Write an operator in Python: its own gradient, made of existing kernels, checked by its cases.

log cosh x is a smooth |x|. Written naively, exp overflows at x = 90; its gradient is simply tanh x,
which automatic differentiation of the stable formula would not find. So it becomes an operator: one
node in the graph, with its own rule. `simplify` gives the Vars with the same values that the engine
has kernels for; the fold pass puts them in its place, so this operator needs that pass: with
MB_PASSES=-fold it stays in the graph and loading says that it has no kernel. (A kernel of its own
needs a C++ file in a room: docs/add_an_operator.md.)
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

import megbrain_py as mb
from megbrain_py import functional as F
from megbrain_py.dtypes import Array
from megbrain_py.errors import require
from megbrain_py.op_testing import Case, ErrorCase, check_error, check_forward, check_gradient


@dataclass(frozen=True)
class LogCosh(mb.Operator):
    """log(cosh(x)) of each element of a float tensor of any shape."""

    elementwise: ClassVar[bool] = True

    def infer(self, x: mb.TensorType) -> mb.TensorType:
        require(x.dtype.is_float, f"x must be a float tensor, is {x.dtype}")
        return x

    def grad(self, node: mb.Node, *dy: Any) -> Sequence[mb.Var | None]:
        return [dy[0] * F.tanh(node.inputs[0])]

    def reference(self, x: Array) -> Array:
        return np.logaddexp(x, -x) - x.dtype.type(math.log(2))

    def simplify(self, *inputs: mb.Var) -> Sequence[mb.Var]:
        size = F.abs(inputs[0])
        return [size + F.log(F.exp(size * -2.0) + 1.0) - math.log(2)]


def log_cosh(x: mb.Var) -> mb.Var:
    """log(cosh(x)), without overflow. float, any shape."""
    y: mb.Var = LogCosh()(x)
    return y


CASES = [
    Case("matrix", log_cosh, {"x": np.linspace(-3, 3, 35, dtype=np.float32).reshape(5, 7)}),
    Case("large", log_cosh, {"x": np.array([-1e4, -90, 90, 1e4], np.float32)}, step=1e-3),
    Case("empty", log_cosh, {"x": np.zeros((0, 4), np.float32)}),
]
ERRORS = [ErrorCase("integers", log_cosh, {"x": np.arange(3)}, "logcosh: x must be a float tensor")]


def main() -> None:
    """Check the cases, then print the gradient graph and the plan's memory."""
    for case in CASES:
        check_forward(case)  # the compiled function against `reference`, on poisoned memory
        check_gradient(case)  # `grad` against finite differences
    for error in ERRORS:
        check_error(error)
    print(f"{len(CASES)} cases and {len(ERRORS)} error hold")

    x = mb.placeholder("x", (1000,))
    loss = F.sum(log_cosh(x))
    (dx,) = mb.gradients(loss, [x])
    print(mb.to_text(mb.Graph({"loss": loss, "dx": dx})))
    step = mb.compile({"loss": loss, "dx": dx})
    print(f"peak memory of a run: {step.peak_bytes} bytes")
    found = step(x=np.full(1000, 100.0, np.float32))
    print(f"loss {found['loss']:.0f}, gradient {found['dx'][0]:.1f}")


if __name__ == "__main__":
    main()
