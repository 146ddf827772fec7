"""What must hold before a plan is loaded: a kernel only touches its own slots, and finds values."""

from __future__ import annotations

import dataclasses
import inspect
import math
import types
import typing
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, TypeAlias

import numpy as np

from megbrain_py import node
from megbrain_py.dtypes import DType, TensorType
from megbrain_py.errors import EngineError
from megbrain_py.node import Operator, operators_of
from megbrain_py.plan import WAIT, Instruction, Plan, Slot
from megbrain_py.planning.memory import ALIGNMENT

Range: TypeAlias = tuple[
    int, int, int
]  # of bytes: arena (-1: scratch, else the state block), from, to

_SCRATCH = -1
_LARGEST = 1 << 48  # bytes: more than an address has
# What `infer` and a constructor raise where a field or a shape is nonsense.
_NONSENSE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


def check_plan(plan: Plan) -> None:
    """EngineError for a plan that could read or write what it should not.

    Slots lie in their arena; each instruction has the slots, types and layouts that its operator
    infers; outputs and workspace lie apart from each other and from inputs, but where the operator
    may overwrite; what is read was written before. What an asynchronous instruction uses is left
    alone until its one wait. `load` checks workspaces and that kernels exist.
    """
    ranges = [_range_of(plan, number, slot) for number, slot in enumerate(plan.slots)]
    held = _Held()
    pending = _Pending(plan, ranges)

    def write(number: int, who: str) -> None:
        place = ranges[number]
        pending.refuse(place, f"{who}: s{number} is written", and_inputs=True)
        if place[0] == _SCRATCH:
            held.write(place[1], place[2], plan.slots[number].type.dtype)

    def read(number: int, who: str) -> None:
        place, slot = ranges[number], plan.slots[number]
        pending.refuse(place, f"{who}: s{number} is read", and_inputs=False)
        if place[0] == _SCRATCH and not held.has(place[1], place[2], slot.type.dtype):
            raise EngineError(f"{who}: slot s{number} ({slot.type}) is read before it is written")

    for name, number in plan.feeds.items():
        who = f"input {name}"
        if _slot(plan, number, who).arena != "scratch":
            raise EngineError(f"{who}: slot s{number} lies in the {plan.slots[number].arena} arena")
        write(number, who)
    for index, instruction in enumerate(plan.instructions):
        who = f"{instruction.kernel} at {instruction.origin}"
        numbers = [*instruction.inputs, *instruction.outputs]
        if instruction.workspace is not None:
            numbers.append(instruction.workspace)
        for number in numbers:
            _slot(plan, number, who)
        if instruction.waits_for is not None:
            pending.end(instruction, who)
            continue
        operator = _check_types(plan, instruction, who)
        for number in instruction.inputs:
            read(number, who)
        _check_overlaps(plan, instruction, operator, ranges, who)
        for number in numbers[len(instruction.inputs) :]:
            write(number, who)
        if operator.asynchronous:
            pending.begin(index, numbers)
    pending.refuse_rest()
    for name, number in plan.fetches.items():
        _slot(plan, number, f"output {name}")
        read(number, f"output {name}")


class _Held:
    """What lies in scratch now: ranges of bytes that do not overlap."""

    def __init__(self) -> None:
        self._begins: list[int] = []  # ascending
        self._rest: dict[int, tuple[int, DType]] = {}  # by begin: end, and what lies there

    def write(self, begin: int, end: int, dtype: DType) -> None:
        """A value; those that it overlaps are gone."""
        if begin == end:
            return
        first, last = bisect_right(self._begins, begin), bisect_left(self._begins, end)
        if first and self._rest[self._begins[first - 1]][0] > begin:
            first -= 1
        for gone in self._begins[first:last]:
            del self._rest[gone]
        self._begins[first:last] = [begin]
        self._rest[begin] = end, dtype

    def has(self, begin: int, end: int, dtype: DType) -> bool:
        """Was this value written there, and is it whole?"""
        return begin == end or self._rest.get(begin) == (end, dtype)


class _Pending:
    """Asynchronous instructions that were started and not yet waited for, and their slots."""

    def __init__(self, plan: Plan, ranges: Sequence[Range]) -> None:
        self._plan = plan
        self._ranges = ranges
        self._slots: dict[int, list[int]] = {}  # by instruction: inputs, then what is written

    def begin(self, index: int, slots: list[int]) -> None:
        self._slots[index] = slots

    def end(self, wait: Instruction, who: str) -> None:
        """A wait: it has nothing but the number of one that is pending."""
        plain = not (wait.inputs or wait.outputs or wait.attrs or wait.workspace is not None)
        if wait.kernel != WAIT or wait.op is not None or not plain:
            raise EngineError(f"{who}: only {WAIT} waits, and it has neither slots nor attributes")
        if type(wait.waits_for) is not int or self._slots.pop(wait.waits_for, None) is None:
            raise EngineError(f"{who}: instruction {wait.waits_for} is not pending here")

    def refuse(self, place: Range, what: str, *, and_inputs: bool) -> None:
        """EngineError if a pending instruction writes there, or, `and_inputs`, reads there."""
        for index, slots in self._slots.items():
            read = 0 if and_inputs else len(self._plan.instructions[index].inputs)
            for other in slots[read:]:
                if _overlap(place, self._ranges[other]):
                    raise EngineError(f"{what} while instruction {index} may be using s{other}")

    def refuse_rest(self) -> None:
        """EngineError if something is pending at the end."""
        for index in self._slots:
            started = self._plan.instructions[index]
            raise EngineError(
                f"{started.kernel} at {started.origin}: instruction {index} is never waited for"
            )


def _overlap(a: Range, b: Range) -> bool:
    return a[0] == b[0] and a[1] < b[2] and b[1] < a[2]


def _slot(plan: Plan, number: Any, who: str) -> Slot:
    if type(number) is not int or not 0 <= number < len(plan.slots):
        raise EngineError(f"{who}: slot {number} of {len(plan.slots)}")
    return plan.slots[number]


def _range_of(plan: Plan, number: int, slot: Slot) -> Range:
    who = f"slot s{number}"
    sizes = slot.type.shape
    whole = all(_fits(size, int) and size >= 0 for size in sizes)
    if not whole or math.prod(map(int, sizes)) * slot.type.dtype.itemsize > _LARGEST:
        raise EngineError(f"{who}: impossible sizes {sizes}")
    if slot.type.layout not in ("rows", "channels_last"):
        raise EngineError(f"{who}: unknown layout {slot.type.layout}")
    if slot.type.layout == "channels_last" and slot.type.rank != 4:
        raise EngineError(f"{who}: only rank 4 can be channels_last, is {slot.type}")
    if slot.arena == "state":
        if type(slot.offset) is not int or not 0 <= slot.offset < len(plan.state):
            raise EngineError(f"{who}: state block {slot.offset} of {len(plan.state)}")
        block = plan.state[slot.offset]
        given = block.array.dtype, block.array.nbytes
        if given != (slot.type.dtype.numpy, slot.type.nbytes):
            raise EngineError(
                f"{who}: {slot.type} is bound to {block.label}, "
                f"{block.array.dtype}{list(block.array.shape)}"
            )
        return slot.offset, 0, slot.type.nbytes
    if slot.arena != "scratch":
        raise EngineError(f"{who}: unknown arena {slot.arena}")
    if type(slot.offset) is not int or slot.offset % ALIGNMENT:
        raise EngineError(f"{who}: offset {slot.offset} is no multiple of {ALIGNMENT}")
    end = slot.offset + slot.type.nbytes
    if slot.offset < 0 or end > plan.scratch_bytes:
        raise EngineError(
            f"{who}: bytes {slot.offset} to {end} lie outside the scratch arena of "
            f"{plan.scratch_bytes} bytes"
        )
    return _SCRATCH, slot.offset, end


def _operator(instruction: Instruction, who: str) -> Operator:
    """The instruction's operator; for one written by hand, that of its kernel and attributes."""
    attrs = dict(instruction.attrs)
    operator = instruction.op
    found = operators_of(instruction.kernel)
    if operator is None and not found:
        raise EngineError(f"{who}: no kernel for operator {instruction.kernel}")
    try:
        if operator is None:
            operator = found[0](**_all_fields(found[0], attrs))
        expected = operator.attrs()
    except _NONSENSE as error:
        raise EngineError(f"{who}: {error}") from None
    if (
        not isinstance(operator, Operator)
        or instruction.kernel not in (operator.kernel, *operator.variants)
        or attrs != expected
    ):
        raise EngineError(
            f"{who}: kernel and attributes {attrs} are not those of {operator}, {expected}"
        )
    for name, declared in _declared(type(operator)).items():
        if not _fits(getattr(operator, name), declared):
            raise EngineError(f"{who}: {name} is {getattr(operator, name)!r}, expected {declared}")
    return operator


@cache
def _declared(kind: type[Any]) -> dict[str, Any]:
    hints = typing.get_type_hints(kind, localns=vars(node))  # Rewriter names what is there
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _fits(value: Any, declared: Any) -> bool:
    """Is the value of the declared type? Kernels rely on the lengths of tuples."""
    origin, inner = typing.get_origin(declared), typing.get_args(declared)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, one) for one in inner)
    if origin is typing.Literal:
        return value in inner
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        kinds = inner[:1] * len(value) if Ellipsis in inner else inner
        return len(value) == len(kinds) and all(map(_fits, value, kinds))
    if declared is float:
        return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if declared is int:
        whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        return whole and abs(int(value)) < 1 << 63
    return isinstance(value, declared)


@cache
def _inputs(kind: type[Operator]) -> inspect.Signature:
    """The inputs by name: where `infer` takes any number, `reference` says how many."""
    return inspect.signature(kind.reference)


def _all_fields(kind: type[Any], attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes that are None are left out of an instruction."""
    return {field.name: None for field in dataclasses.fields(kind)} | dict(attrs)


def _check_types(plan: Plan, instruction: Instruction, who: str) -> Operator:
    """Inputs are what the operator takes, outputs what it gives; layouts as it wants, or rows."""
    operator = _operator(instruction, who)
    inputs = [plan.slots[number].type for number in instruction.inputs]
    outputs = [plan.slots[number].type for number in instruction.outputs]
    try:
        _inputs(type(operator)).bind(operator, *inputs)
        plain = operator.output_types(inputs)
        wanted, given = operator.layouts(inputs)
    except _NONSENSE as error:
        listed = "".join(f"\n  s{n}: {t}" for n, t in zip(instruction.inputs, inputs, strict=True))
        raise EngineError(f"{who}: {error}{listed}") from None
    if any(operator.alias(inputs, [t]) is not None for t in plain[:1]):
        raise EngineError(f"{who}: is a view and has no instruction")
    if [t.with_layout("rows") for t in outputs] != list(plain):
        raise EngineError(f"{who}: gives {_listed(plain)}, its slots are {_listed(outputs)}")
    found = [t.layout for t in inputs], [t.layout for t in outputs]
    rows = all(layout == "rows" for layout in (*found[0], *found[1]))
    if not rows and found != (list(wanted), list(given)):
        raise EngineError(
            f"{who}: takes layouts {list(wanted)} and gives {list(given)}, "
            f"its slots have {found[0]} and {found[1]}"
        )
    return operator


def _listed(types: Sequence[TensorType]) -> str:
    return ", ".join(map(str, types)) or "nothing"


def _check_overlaps(
    plan: Plan, instruction: Instruction, operator: Operator, ranges: Sequence[Range], who: str
) -> None:
    """Outputs and workspace lie apart from all else but inputs that may be overwritten."""
    inputs = [plan.slots[number].type for number in instruction.inputs]
    outputs = [plan.slots[number].type for number in instruction.outputs]
    permitted = set(operator.may_overwrite(inputs, outputs))
    written = list(instruction.outputs)
    if instruction.workspace is not None:
        written.append(instruction.workspace)
    for w, number in enumerate(written):
        for i, other in enumerate(instruction.inputs):
            in_place = ranges[number] == ranges[other] and (w, i) in permitted
            if _overlap(ranges[number], ranges[other]) and not in_place:
                raise EngineError(f"{who}: s{number} is written over s{other}, which it reads")
        for other in written[:w]:
            if _overlap(ranges[number], ranges[other]):
                raise EngineError(f"{who}: s{number} and s{other} are written over each other")
