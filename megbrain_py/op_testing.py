"""Cases of operators, and every check that is made of a case (docs/add_an_operator.md)."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from megbrain_py import ops, reference
from megbrain_py.autodiff import gradients
from megbrain_py.compiler import Function, compile
from megbrain_py.dtypes import Array, Layout, TensorType, tensor_type
from megbrain_py.errors import DataError, GraphError, require
from megbrain_py.functional import add, mul
from megbrain_py.functional import sum as sum_
from megbrain_py.graph import Graph, Node, Operator, Var, constant, placeholder
from megbrain_py.library import load_library

Build = Callable[..., Any]  # Vars by keyword -> a Var or several


@dataclass(frozen=True)
class Case:
    """An example of an operator: how to build it and what to feed.

    grad: inputs whose gradient is checked (None: all floats; () where it has none).
    tolerance, grad_tolerance: relative, max|a-b| / max|b|, of kernel against reference.
    step: of the finite difference; smaller where a kink is near.
    """

    name: str
    build: Build
    inputs: Mapping[str, Array]
    grad: Sequence[str] | None = None
    tolerance: float = 1e-5
    grad_tolerance: float = 1e-4
    step: float = 1e-6

    @property
    def differentiated(self) -> list[str]:
        """Names of the inputs whose gradients are checked."""
        if self.grad is not None:
            return list(self.grad)
        return [n for n, a in self.inputs.items() if a.dtype == np.float32 and a.size > 0]


@dataclass(frozen=True)
class ErrorCase:
    """Inputs that must be refused with a GraphError whose text contains `message`."""

    name: str
    build: Build
    inputs: Mapping[str, Array]
    message: str


@dataclass(frozen=True)
class Benchmark:
    """A size that matters, timed by `megbrain bench ops`; `inputs` makes what is fed.

    grad: inputs whose gradient's kernels are timed too.
    """

    name: str
    build: Build
    inputs: Callable[[], Mapping[str, Array]]
    grad: Sequence[str] = ()


def normal(*shape: int, seed: int = 0, scale: float = 1.0, shift: float = 0.0) -> Array:
    """Normal float32 numbers; the seed also depends on the shape."""
    rng = np.random.default_rng([seed, *shape])
    return (rng.standard_normal(shape) * scale + shift).astype(np.float32)


def integers(
    *shape: int, low: int = 0, high: int = 10, seed: int = 0, dtype: str = "int64"
) -> Array:
    """Uniform integers in [low, high)."""
    return np.random.default_rng([seed, *shape]).integers(low, high, shape).astype(dtype)


@dataclass(frozen=True)
class ChannelsLast(Operator, kernel="copy"):
    """x as it is, in the layout channels_last: puts a case's input into that layout."""

    def infer(self, x: TensorType) -> TensorType:
        require(x.rank == 4, f"x must have rank 4, has {x.rank}")
        return x

    def layouts(self, inputs: Sequence[TensorType]) -> tuple[Sequence[Layout], Sequence[Layout]]:
        return ["channels_last"], ["channels_last"]

    def grad(self, node: Node, *dy: Any) -> Sequence[Var | None]:
        return [channels_last(dy[0])]

    def reference(self, x: Array) -> Array:
        return x


def channels_last(x: Var) -> Var:
    """x, of rank 4, in the layout channels_last."""
    result: Var = ChannelsLast()(x)
    return result


def rooms() -> list[str]:
    """Names of all operator rooms."""
    return [m.name for m in pkgutil.iter_modules(ops.__path__) if m.ispkg]


def cases_of(room: str | Path) -> tuple[list[Case], list[ErrorCase]]:
    """CASES and ERRORS of a room of the package, or of a folder outside of it, which is loaded.

    Raises DataError when it has no cases.py.
    """
    module = _cases_module(room)
    return list(module.CASES), list(module.ERRORS)


def benchmarks_of(room: str | Path) -> list[Benchmark]:
    """A room's BENCHMARKS; many rooms have none."""
    return list(getattr(_cases_module(room), "BENCHMARKS", []))


def module_of(room: str | Path) -> str:
    """The name of a room's module; a folder is loaded."""
    return load_library(room).__name__ if isinstance(room, Path) else f"megbrain_py.ops.{room}"


def _cases_module(room: str | Path) -> Any:
    home = module_of(room)
    if importlib.util.find_spec(f"{home}.cases") is None:
        raise DataError(f"the operator room {room} has no cases.py")
    return importlib.import_module(f"{home}.cases")


def benchmark_graph(benchmark: Benchmark, inputs: Mapping[str, Array]) -> Graph:
    """Its outputs, and the gradients of a sum of them."""
    case = Case(benchmark.name, benchmark.build, inputs, benchmark.grad)
    if not benchmark.grad:
        return Graph({f"y{i}": v for i, v in enumerate(_built(case)[1])})
    return gradient_graph_of(case)


def relative_error(found: Array, expected: Array) -> float:
    """max|a-b| / max|b|; inf and NaN must stand in the same places."""
    if expected.size == 0:
        return 0.0
    finite = np.isfinite(expected)
    same = np.array_equal(np.where(finite, 0, found), np.where(finite, 0, expected), equal_nan=True)
    if not same:
        return float("inf")
    if not finite.any():
        return 0.0
    difference = np.abs(np.where(finite, found, 0) - np.where(finite, expected, 0)).max()
    return float(difference / max(np.abs(expected[finite]).max(), 1e-30))


def _variables(inputs: Mapping[str, Array]) -> dict[str, Var]:
    return {n: placeholder(n, tensor_type(a.shape, a.dtype)) for n, a in inputs.items()}


def _built(case: Case) -> tuple[dict[str, Var], list[Var]]:
    inputs = _variables(case.inputs)
    outputs = case.build(**inputs)
    return inputs, list(outputs) if isinstance(outputs, (tuple, list)) else [outputs]


def _run(case: Case, compiled: Function, *, poison: bool = True) -> dict[str, Array]:
    used = {n: np.asarray(a, order="C") for n, a in case.inputs.items() if n in compiled.plan.feeds}
    types = {n: compiled.plan.slots[s].type for n, s in compiled.plan.fetches.items()}
    out = {n: np.empty(t.shape, t.dtype.numpy) for n, t in types.items()}
    compiled._executable.run(used, out, poison=poison)
    return out


def graph_of(case: Case) -> Graph:
    """The case's outputs, named y0, y1, ..."""
    _, outputs = _built(case)
    return Graph({f"y{i}": v for i, v in enumerate(outputs)})


def check_forward(case: Case) -> None:
    """Kernel against reference; inferred types against produced ones; poisoned memory; twice."""
    graph = graph_of(case)
    expected = reference.evaluate(graph, case.inputs)
    compiled = compile(graph.outputs)
    found = _run(case, compiled)
    for name, var in graph.outputs.items():
        assert expected[name].shape == var.shape, (
            f"{name}: inferred {var.shape}, reference {expected[name].shape}"
        )
        error = relative_error(found[name], expected[name])
        assert error <= case.tolerance, f"{name}: relative error {error:.2e} of the kernel"
    again = _run(case, compiled)
    for name in found:
        assert np.array_equal(found[name], again[name], equal_nan=True), f"{name}: not repeatable"


def gradient_graph_of(case: Case) -> Graph:
    """loss: the sum of outputs x fixed random numbers; d_NAME: its gradient, for each input."""
    inputs, outputs = _built(case)
    loss: Var | None = None
    for i, v in enumerate(outputs):
        if v.dtype.is_float:
            term = sum_(mul(v, constant(normal(*v.shape, seed=77 + i))))
            loss = term if loss is None else add(loss, term)
    assert loss is not None, "no float output: give the case grad=()"
    names = case.differentiated
    grads = gradients(loss, [inputs[n] for n in names])
    return Graph({"loss": loss, **{f"d_{n}": g for n, g in zip(names, grads, strict=True)}})


def check_gradient(case: Case) -> None:
    """Symbolic gradient by references against a finite difference in one random direction

    (float64, central), and the gradient's kernels against those references.
    """
    if not case.differentiated:
        return
    graph, names = gradient_graph_of(case), case.differentiated
    exact = reference.evaluate(graph, case.inputs)
    rng = np.random.default_rng(5)
    wide = {n: a.astype(np.float64) if a.dtype == np.float32 else a for n, a in case.inputs.items()}
    direction = {n: rng.standard_normal(wide[n].shape) for n in names}

    def loss_at(step: float) -> float:
        moved = {n: a + step * direction[n] if n in direction else a for n, a in wide.items()}
        only_loss = Graph({"loss": graph.outputs["loss"]})
        return float(reference.evaluate(only_loss, moved)["loss"])

    numeric = (loss_at(case.step) - loss_at(-case.step)) / (2 * case.step)
    symbolic = float(sum(np.sum(exact[f"d_{n}"] * direction[n]) for n in names))
    scale = max(abs(numeric), abs(symbolic), 1e-3)
    assert abs(numeric - symbolic) <= 1e-4 * scale, (
        f"gradient {symbolic:.6g}, finite difference {numeric:.6g}"
    )
    found = _run(case, compile(graph.outputs))
    for n in names:
        error = relative_error(found[f"d_{n}"], exact[f"d_{n}"])
        assert error <= case.grad_tolerance, f"d_{n}: relative error {error:.2e} of the kernel"


def check_error(case: ErrorCase) -> None:
    """The inputs are refused, in the shape of docs/errors.md: operator first, user's line last."""
    try:
        case.build(**_variables(case.inputs))
    except GraphError as error:
        text = str(error)
        assert case.message in text, f"expected {case.message!r} in:\n{text}"
        assert text.splitlines()[-1].startswith("  at "), f"no line of the user in:\n{text}"
        return
    raise AssertionError("was accepted")
