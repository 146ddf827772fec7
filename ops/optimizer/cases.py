"""Examples of the optimiser steps: scalars, odd and large sizes, first and late steps."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from megbrain_py.dtypes import Array
from megbrain_py.graph import Var
from megbrain_py.op_testing import Benchmark, Case, ErrorCase, normal
from megbrain_py.ops.optimizer.optimizer import AdamWUpdate, GradientStep, SgdUpdate

_SHAPES: dict[str, tuple[int, ...]] = {
    "weight": (5, 3, 3, 3), "scalar": (), "empty": (0, 4), "long": (40_003,),
}  # fmt: skip


def _full(shape: tuple[int, ...], *names: str) -> dict[str, Array]:
    return {name: normal(*shape, seed=i) for i, name in enumerate(names)}


def _scalars(**values: float) -> dict[str, Array]:
    return {name: np.array(value, np.float32) for name, value in values.items()}


def _step(p: Var, g: Var, lr: Var, wd: Var) -> Var:
    new: Var = GradientStep()(p, g, lr, wd)
    return new


def _sgd(nesterov: bool) -> Callable[..., tuple[Var, Var]]:
    def build(p: Var, g: Var, v: Var, lr: Var, mu: Var, wd: Var) -> tuple[Var, Var]:
        new, velocity = SgdUpdate(nesterov)(p, g, v, lr, mu, wd)
        return new, velocity

    return build


def _adamw(p: Var, g: Var, m: Var, v: Var, lr: Var, wd: Var, t: Var) -> tuple[Var, Var, Var]:
    new, mean, square = AdamWUpdate()(p, g, m, v, lr, wd, t)
    return new, mean, square


_SGD = _scalars(lr=0.02, mu=0.9, wd=1e-2)
CASES: list[Case] = []
for _name, _shape in _SHAPES.items():
    CASES += [
        Case(f"gradient_step_{_name}", _step,
             {**_full(_shape, "p", "g"), **_scalars(lr=0.1, wd=1e-4)}, grad=()),
        Case(f"sgd_{_name}", _sgd(False), {**_full(_shape, "p", "g", "v"), **_SGD}, grad=()),
        Case(f"nesterov_{_name}", _sgd(True), {**_full(_shape, "p", "g", "v"), **_SGD}, grad=()),
    ]  # fmt: skip
    for _count in (1, 1000):
        _inputs = _full(_shape, "p", "g", "m", "v")
        _inputs["v"] = np.square(_inputs["v"])
        _more = _scalars(lr=1e-2, wd=1e-2, t=_count)
        CASES.append(Case(f"adamw_{_name}_{_count}", _adamw, {**_inputs, **_more}, grad=()))

ERRORS = [
    ErrorCase("lr", _sgd(False),
              {**_full((3,), "p", "g", "v"), **_SGD, "lr": np.zeros(1, np.float32)},
              "sgd_update: lr must be a scalar float32[], is float32[1]"),
    ErrorCase("gradient", _step, {"p": normal(3), "g": normal(4), **_scalars(lr=0.1, wd=0.0)},
              "gradient_step: gradient must be float32[3], is float32[4]"),
]  # fmt: skip

_WEIGHTS = (2048, 2048)
BENCHMARKS = [
    Benchmark("sgd", _sgd(False), lambda: {**_full(_WEIGHTS, "p", "g", "v"), **_SGD}),
    Benchmark("adamw", _adamw, lambda: {**_full(_WEIGHTS, "p", "g", "m"),
                                        "v": np.square(normal(*_WEIGHTS)),
                                        **_scalars(lr=1e-2, wd=1e-2, t=10)}),
]  # fmt: skip
