"""compile(...) -> Function; function(build) compiles a building function once per signature."""

from __future__ import annotations

import difflib
import functools
import inspect
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from megbrain_py import costs, debug, engine, passes, ranks
from megbrain_py.dtypes import Array, DType, TensorType
from megbrain_py.errors import CompileError, EngineError
from megbrain_py.graph import Graph, Placeholder, Var, describe, nodes_of, placeholder
from megbrain_py.instruments import trace
from megbrain_py.instruments.check import Checker
from megbrain_py.instruments.profile import Profile, profile_of
from megbrain_py.instruments.roof import roof
from megbrain_py.lowering import MemoryBudget, Refused, lower, lower_within, refusal
from megbrain_py.ops.identity import Named
from megbrain_py.parameter import Parameter, ParameterSource, aligned_copy
from megbrain_py.plan import Plan
from megbrain_py.planning.recompute import Effort

Outputs: TypeAlias = Mapping[str, Var] | Mapping[str, Var | str]
Updates: TypeAlias = Mapping[Parameter, Var]

_PROFILED_RUNS = 100  # the seconds of so many profiled calls are kept
_CALL_OPTIONS = ("out", "profile")  # keywords of Function.__call__ that are no inputs


class BudgetError(CompileError):
    """A memory budget that cannot be kept. `refused`: what could be."""

    def __init__(self, refused: Refused) -> None:
        super().__init__(refusal(refused))
        self.refused = refused


class Function:
    """A compiled graph. Call it with the inputs by keyword; it returns fresh arrays by name.

    `plan` and `peak_bytes` are known before the first run. Updates are written into their
    parameters by each call. One function of a device runs at a time; calls from several threads
    wait for each other.
    """

    def __init__(self, graph: Graph, plan: Plan, inputs: Mapping[str, TensorType]) -> None:
        self.graph = graph
        self.plan = plan
        self._executable = engine.Executable(plan)
        self._inputs = dict(inputs)  # more than the plan's feeds where a pass found one unused
        self._outputs = {name: plan.slots[slot].type for name, slot in plan.fetches.items()}
        self._borrowed: dict[str, Array] = {}
        self._profiled: deque[list[float]] = deque(maxlen=_PROFILED_RUNS)

    def __repr__(self) -> str:
        made = ", ".join(f"{name}: {type}" for name, type in self._outputs.items()) or "updates"
        taken = ", ".join(f"{name}: {type}" for name, type in self._inputs.items())
        return (
            f"Function({taken}) -> {made}; {len(self.plan.instructions)} instructions, "
            f"{self.peak_bytes:,} bytes of scratch memory"
        )

    @property
    def peak_bytes(self) -> int:
        """Bytes of scratch memory that a run takes; parameters are `plan.state_bytes`."""
        return self.plan.scratch_bytes

    def input(self, name: str) -> Array:
        """An array that stands for this input in every call that does not feed it.

        Fill it in place (a loader may decode into it) instead of passing an array each time.
        """
        if name not in self._inputs:
            raise EngineError(f"input: no input is named {name}; inputs: {self._known()}")
        if name not in self._borrowed:
            type = self._inputs[name]
            self._borrowed[name] = aligned_copy(np.zeros(type.shape, type.dtype.numpy))
        return self._borrowed[name]

    def _known(self) -> str:
        return ", ".join(self._inputs) or "none"

    def __call__(
        self, /, *, out: Mapping[str, Array] | None = None, profile: bool = False, **feeds: Any
    ) -> dict[str, Array]:
        """Run once.

        feeds: an array for each input, of its shape; safe conversions of the element type are
        made (float64 to float32, a Python float to a float scalar), others refused.
        out: arrays to write outputs into; the others are allocated.
        Raises EngineError for missing, unknown or ill-shaped inputs.
        """
        arrays = {name: self._feed(name, feeds) for name in self._inputs}
        ready = {name: arrays[name] for name in self.plan.feeds}
        for name in feeds:
            if name not in self._inputs:
                raise EngineError(f"call: no input is named {name}; inputs: {self._known()}")
        for name in out or {}:
            if name not in self._outputs:
                known = ", ".join(self._outputs) or "none"
                raise EngineError(f"call: no output is named {name}; outputs: {known}")
        fetches = {
            name: self._out(name, type, (out or {}).get(name))
            for name, type in self._outputs.items()
        }
        self._run(ready, fetches, profile)
        return fetches

    def _run(self, feeds: dict[str, Array], fetches: dict[str, Array], profile: bool) -> None:
        """With the instruments that were asked for."""
        run, level, tracing = self._executable, debug.check(), trace.active()
        checker = Checker(self.plan, run, thorough=level > 1) if level else None
        timed = profile or tracing is not None
        with trace.span("run"):
            run.run(feeds, fetches, poison=debug.poison(), profile=timed, observer=checker)
        if profile:
            self._profiled.append([end - start for start, end in run.times()])
        if tracing is not None:
            tracing.add_run(self.plan, run.times())

    def _feed(self, name: str, feeds: Mapping[str, Any]) -> Array:
        want = self._inputs[name]
        if name not in feeds and name in self._borrowed:
            return self._borrowed[name]
        if name not in feeds:
            raise EngineError(f"call: input {name} is missing\n  {name}: {want}")
        try:
            array = np.asarray(feeds[name])
        except ValueError as error:
            raise EngineError(f"call: input {name}: {error}\n  {name}: {want}") from None
        if array.shape != want.shape:
            raise EngineError(
                f"call: input {name} expects shape {want.shape}, found {array.shape}\n"
                f"  {name}: {want}"
            )
        safe = np.can_cast(array.dtype, want.dtype.numpy, "same_kind")
        if not safe and not (array.dtype.kind in "iu" and want.dtype.is_integer):
            raise EngineError(
                f"call: input {name} expects {want.dtype}, found {array.dtype}\n  {name}: {want}"
            )
        converted = np.ascontiguousarray(array, want.dtype.numpy).reshape(want.shape)
        narrowed = array.dtype.kind in "iu" and want.dtype.is_integer
        if narrowed and array.dtype != converted.dtype and not np.array_equal(converted, array):
            raise EngineError(
                f"call: input {name} expects {want.dtype}, found {array.dtype} values from "
                f"{array.min()} to {array.max()}\n  {name}: {want}"
            )
        return converted

    @staticmethod
    def _out(name: str, want: TensorType, given: Array | None) -> Array:
        if given is None:
            return np.empty(want.shape, want.dtype.numpy)
        fits = given.shape == want.shape and given.dtype == want.dtype.numpy
        if not (fits and given.flags.c_contiguous and given.flags.writeable):
            raise EngineError(
                f"call: out {name} expects a writable C-contiguous {want}, "
                f"found {given.dtype}{list(given.shape)}"
            )
        return given

    def profile(self, last: int | None = None) -> Profile:
        """What each instruction took, the median of all calls with profile=True (of the `last`
        ones): `print(step.profile())`, or `.rows`. The roof is measured when first asked for."""
        runs = list(self._profiled)
        return profile_of(self.plan, runs if last is None else runs[-last:], roof())


@trace.span("compile")
def compile(
    outputs: Outputs | Var | Sequence[Var | str],
    *,
    inputs: Sequence[Var] | None = None,
    updates: Updates | None = None,
    device: str = "cpu",
    pipeline: Sequence[passes.Pass] | None = None,
    memory_budget: MemoryBudget | None = None,
    effort: Effort = "default",
) -> Function:
    """Run the passes, plan the memory, load the plan.

    outputs: Vars by name; a single Var is named "output", a sequence "output0", "output1", ...
        A string fetches the inner value, input or parameter of that name (functional.name) from
        the graph of the other outputs; CompileError when there is none.
    inputs: when given, the placeholders that callers may feed; CompileError if one is missing.
    updates: for each parameter the Var that a run writes into it.
    device: "cpu", which is the calling rank's logical device where ranks are threads
        (docs/distributed.md), or "cuda:0" and so on (docs/devices.md); EngineError when it cannot
        be opened, or when an operator of the optimised graph has no kernel for it.
    pipeline: the passes; by default those for the device.
    memory_budget: bytes (a number, or text such as "3GiB") that parameters, constants and the
        scratch arena may take together, or, as a float up to 1, a share of the scratch arena that
        the function would take without one. Values are made again where that is the cheapest way
        to keep it (docs/recomputation.md); results are bit-equal. `plan.memory` says what it costs.
        CompileError with the least budget that can be kept when this one cannot.
    effort: of that planning: "fast", "default", "optimal" (minutes).
    """
    if device == "cpu":
        device = ranks.current().device
    graph, types = optimised(outputs, inputs, updates or {}, device, pipeline)
    if memory_budget is None:
        plan = plain_plan(graph, device)
    else:
        (found,) = plans_within(graph, [memory_budget], device, effort)
        if isinstance(found, Refused):
            raise BudgetError(found)
        plan = found
    folder = debug.dump_folder()
    if folder is not None:
        (folder / "plan.txt").write_text(str(plan) + "\n")
        plan.memory.draw(folder / "memory.png")
    return Function(graph, plan, types)


def plain_plan(graph: Graph, device: str) -> Plan:
    """The plan of an optimised graph that makes nothing twice."""
    return lower(graph, functools.partial(engine.workspace_bytes, device=device), device)


def planned(outputs: Outputs, *, updates: Updates | None = None) -> Plan:
    """The plan that `compile` would load on the CPU; it may be one of ranks that are not there."""
    graph, _ = optimised(outputs, None, updates or {}, "cpu")
    return plain_plan(graph, "cpu")


def plans_within(
    graph: Graph, budgets: Sequence[MemoryBudget], device: str, effort: Effort
) -> list[Plan | Refused]:
    """Plans of an optimised graph for several budgets; more bytes never cost more time."""
    query = functools.partial(engine.workspace_bytes, device=device)
    price = functools.partial(costs.estimate, device=device)
    predict = functools.partial(costs.predict, device=device)
    with trace.span("plan memory"):
        return lower_within(graph, query, price, predict, budgets, device=device, effort=effort)


def optimised(
    outputs: Outputs | Var | Sequence[Var | str],
    inputs: Sequence[Var] | None,
    updates: Updates,
    device: str,
    pipeline: Sequence[passes.Pass] | None = None,
) -> tuple[Graph, dict[str, TensorType]]:
    """The graph after the passes, and the inputs that callers may feed."""
    engine.open_device(device)
    named = _named(outputs, updates)
    for target in updates:
        if not isinstance(target, Parameter):
            raise CompileError(f"compile: only a Parameter can be updated\n  {describe(target)}")
    graph = Graph(named, {p: new for p, new in updates.items()})
    used = graph.placeholders
    accepted = {v.node.op.label: v for v in inputs or [] if isinstance(v.node.op, Placeholder)}
    for name in accepted | used:
        if name in _CALL_OPTIONS:
            raise CompileError(f"compile: no input can be named {name}: calls have that option")
    if inputs is not None:
        for name in used:
            if name not in accepted:
                raise CompileError(f"compile: input {name} is used but not listed in inputs")
    done = passes.run(graph, passes.pipeline_for(device) if pipeline is None else pipeline)
    return done, {name: v.type for name, v in (accepted | used).items()}


def _named(outputs: Outputs | Var | Sequence[Var | str], updates: Updates) -> dict[str, Var]:
    """Outputs by name; a string among them stands for the value that functional.name gave it."""
    if isinstance(outputs, Var):
        return {"output": outputs}
    if isinstance(outputs, Mapping):
        listed = dict(outputs)
    else:
        listed = {v if isinstance(v, str) else f"output{i}": v for i, v in enumerate(outputs)}
    for name, v in listed.items():
        if not isinstance(v, (Var, str)):
            raise CompileError(f"compile: output {name} must be a Var, is {type(v).__name__}")
    found = {name: v for name, v in listed.items() if isinstance(v, Var)}
    if len(found) == len(listed):
        return found
    inner = _values_by_name([*found.values(), *updates.values()])
    for name, value in listed.items():
        if isinstance(value, str):
            found[name] = _find(inner, value)
    return {name: found[name] for name in listed}


def _values_by_name(results: Sequence[Var]) -> dict[str, list[Var]]:
    """Values in the graph of `results` that have a name: given one, inputs, parameters."""
    found: dict[str, list[Var]] = {}
    for node in nodes_of(results):
        label = getattr(node.op, "label", None)
        if isinstance(node.op, (Named, Placeholder, ParameterSource)) and label:
            found.setdefault(label, []).append(node.outputs[0])
    return found


def _find(inner: Mapping[str, list[Var]], name: str) -> Var:
    if name not in inner:
        nearest = difflib.get_close_matches(name, inner, n=3, cutoff=0.4)
        known = f"nearest: {', '.join(nearest)}" if nearest else "no value has a similar name"
        raise CompileError(f"compile: no value of the graph is named {name}; {known}")
    if len(inner[name]) > 1:
        places = "".join(f"\n  {describe(v)}" for v in inner[name])
        raise CompileError(f"compile: {len(inner[name])} values are named {name}{places}")
    return inner[name][0]


Built: TypeAlias = "Outputs | tuple[Outputs, Updates]"


class SpecializedFunction:
    """A building function compiled once for each signature (shapes and types) of its inputs.

    The last `cache_size` signatures are kept; all share the parameters and one scratch arena.
    `memory_budget` and `effort` are those of `compile`, for what is compiled from then on.
    """

    def __init__(self, build: Callable[..., Built], cache_size: int = 16) -> None:
        self.build = build
        self.cache_size = cache_size
        self.memory_budget: MemoryBudget | None = None
        self.effort: Effort = "default"
        self._compiled: OrderedDict[tuple[Any, ...], Function] = OrderedDict()
        self._lock = threading.RLock()  # callers may be threads; a build may call another function
        self.compilations = 0  # how many signatures were compiled, repeats after eviction included

    def __call__(self, /, *, profile: bool = False, **feeds: Any) -> dict[str, Array]:
        """Run once with these arrays; EngineError where `build` has no such input or lacks one.

        profile: as in a call of the Function that `specialize` gives; its `profile()` reports.
        """
        arrays: dict[str, Any] = {name: np.asarray(value) for name, value in feeds.items()}
        types = {name: _type_of(array) for name, array in arrays.items()}
        return self.specialize(**types)(profile=profile, **arrays)

    def specialize(self, /, **types: TensorType) -> Function:
        """The Function for inputs of these types, compiled now if it is new."""
        with self._lock:
            return self._specialize(types)

    def _specialize(self, types: Mapping[str, TensorType]) -> Function:
        key = tuple(sorted((name, t.shape, t.dtype.value) for name, t in types.items()))
        if key in self._compiled:
            self._compiled.move_to_end(key)
            return self._compiled[key]
        outputs, updates, inputs = self._built(types)
        compiled = compile(
            outputs, inputs=inputs, updates=updates, memory_budget=self.memory_budget,
            effort=self.effort,
        )  # fmt: skip
        self.compilations += 1
        self._compiled[key] = compiled
        if len(self._compiled) > self.cache_size:
            self._compiled.popitem(last=False)
        return compiled

    def graph(self, /, **types: TensorType) -> Graph:
        """The graph for inputs of these types after the passes, to plan with; nothing is kept."""
        outputs, updates, inputs = self._built(types)
        return optimised(outputs, inputs, updates, ranks.current().device)[0]

    def _built(self, types: Mapping[str, TensorType]) -> tuple[Outputs, Updates, list[Var]]:
        try:
            inspect.signature(self.build).bind(**types)
        except TypeError as error:
            raise EngineError(f"call: {error}; fed: {', '.join(types) or 'none'}") from None
        inputs = {name: placeholder(name, t) for name, t in types.items()}
        built = self.build(**inputs)
        outputs, updates = built if isinstance(built, tuple) else (built, {})
        return outputs, updates, list(inputs.values())


def _type_of(array: Array) -> TensorType:
    """The type an array is fed as; float64 becomes float32."""
    name = "float32" if array.dtype == np.float64 else array.dtype.name
    try:
        return TensorType(array.shape, DType(name))
    except ValueError:
        raise EngineError(f"call: element type {array.dtype} is not supported") from None


def function(build: Callable[..., Built] | None = None, *, cache_size: int = 16) -> Any:
    """Decorator: `@mb.function` makes a building function callable with arrays.

    `build(**inputs)` gets a placeholder for each keyword and returns the outputs by name, or
    (outputs, updates). See SpecializedFunction.
    """
    if build is not None:
        return SpecializedFunction(build, cache_size)
    return lambda build: SpecializedFunction(build, cache_size)
