"""Checks of a run: the first instruction that makes NaN or Inf, values overwritten by others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from megbrain_py.dtypes import Array, TensorType
from megbrain_py.engine import Executable
from megbrain_py.errors import EngineError
from megbrain_py.plan import Plan


@dataclass(frozen=True)
class _Value:
    """What a slot held when it was written, by which instruction (-1: before the run)."""

    step: int
    checksum: int
    nan: int
    infinite: int
    first_bad: int  # the first element that is not finite
    size: int

    @property
    def finite(self) -> bool:
        return self.nan == self.infinite == 0


class Checker:
    """An observer of one run of a plan (`Executable.run(observer=...)`). Raises EngineError.

    Not finite: an output with NaN while no input has any, or with Inf while all inputs are finite.
    Inputs and parameters with NaN are named before the first instruction.

    Overwritten: the checksum of each value is taken when it is written and compared when it is
    read; the instruction that wrote into it is found by the places of slots. `thorough`: after
    each instruction all values that are still needed are compared, which also finds a kernel that
    writes outside of its outputs. What an asynchronous instruction makes is looked at after its
    wait.
    """

    def __init__(self, plan: Plan, executable: Executable, *, thorough: bool = False) -> None:
        self._plan = plan
        self._executable = executable
        self._thorough = thorough
        self._values: dict[int, _Value] = {}
        self._latest: dict[tuple[object, ...], _Value] = {}  # by storage: for views
        self._made = {s for step in plan.instructions for s in step.outputs}
        self._awaited = {step.waits_for for step in plan.instructions}
        self._readers: dict[int, int] = {s: len(plan.instructions) for s in plan.fetches.values()}
        for index, step in enumerate(plan.instructions):
            for s in step.inputs:
                self._readers[s] = max(index, self._readers.get(s, -1))

    # --- the observer ---

    def before(self, index: int) -> None:
        """Are the inputs what was written?"""
        if index == 0:
            self._start()
        for slot in self._plan.instructions[index].inputs:
            self._compare(slot, index, "read by " + self._title(index))

    def after(self, index: int) -> None:
        """Are the outputs finite? Remember them."""
        started = self._plan.instructions[index].waits_for
        if index not in self._awaited:
            self._look_at_outputs(index if started is None else started)
        last = index == len(self._plan.instructions) - 1
        if self._thorough:
            checked = [s for s in self._values if self._readers.get(s, -1) > index]
        else:
            checked = list(self._plan.fetches.values()) if last else []
        for slot in checked:
            self._compare(slot, index + 1, f"needed after {self._title(index)}")

    def _look_at_outputs(self, index: int) -> None:
        step = self._plan.instructions[index]
        inputs = [self._value(s) for s in step.inputs]
        for slot in step.outputs:
            self._remember(slot, index)
        self._refuse_non_finite(index, inputs)

    def _title(self, index: int) -> str:
        step = self._plan.instructions[index]
        return f"instruction {index}, {step.kernel} at {step.origin}"

    # --- values ---

    def _start(self) -> None:
        """What is there before the first instruction: inputs, parameters, constants."""
        names = {slot: f"input {name}" for name, slot in self._plan.feeds.items()}
        for slot, place in enumerate(self._plan.slots):
            if place.arena == "state" and slot not in self._made:
                names[slot] = place.label
        written = {self._storage(s) for s in self._made}
        for slot, name in names.items():
            value = self._remember(slot, -1)
            if value.nan and name != "constant":
                raise EngineError(f"check: {name} holds {self._describe(slot, value)}")
            if self._storage(slot) in written:  # may show the old value or the new one
                del self._values[slot]

    def _storage(self, slot: int) -> tuple[object, ...]:
        """Views share place and lifetime with the value that they show."""
        place = self._plan.slots[slot]
        return place.arena, place.offset, place.first, place.last

    def _remember(self, slot: int, step: int) -> _Value:
        memory = self._executable.memory(slot)
        nan, infinite, first = _not_finite(memory)
        value = _Value(step, _checksum(memory), nan, infinite, first, memory.size)
        self._values[slot] = self._latest[self._storage(slot)] = value
        return value

    def _value(self, slot: int) -> _Value:
        """What was written there last; what is there now for a view of another size."""
        known = self._values.get(slot) or self._latest.get(self._storage(slot))
        return known or self._remember(slot, -1)

    # --- overwritten values ---

    def _compare(self, slot: int, index: int, where: str) -> None:
        known = self._value(slot)
        if known.checksum == _checksum(self._executable.memory(slot)):
            return
        origin = "before the run" if known.step < 0 else "by " + self._title(known.step)
        raise EngineError(
            f"check: {self._culprit(slot, known.step, index)}\n"
            f"  overwrote slot s{slot} {self._plan.slots[slot].type}, written {origin},\n"
            f"  {where}"
        )

    def _culprit(self, slot: int, written: int, read: int) -> str:
        """The first instruction between that writes where the slot is."""
        if self._thorough:
            return self._title(read - 1)
        for index in range(written + 1, read):
            step = self._plan.instructions[index]
            targets = [*step.outputs, *([] if step.workspace is None else [step.workspace])]
            if any(self._overlap(slot, other) for other in targets):
                return self._title(index)
        return (
            f"one of the instructions {written + 1} to {read - 1} writes outside of its outputs "
            "(MB_CHECK=2 names it)"
        )

    def _overlap(self, a: int, b: int) -> bool:
        one, other = self._plan.slots[a], self._plan.slots[b]
        if one.arena != other.arena:
            return False
        if one.arena == "state":
            return one.offset == other.offset
        ends = one.offset + one.type.nbytes, other.offset + other.type.nbytes
        return one.offset < ends[1] and other.offset < ends[0]

    # --- values that are not finite ---

    def _refuse_non_finite(self, index: int, inputs: Sequence[_Value]) -> None:
        step = self._plan.instructions[index]
        for number, slot in enumerate(step.outputs):
            value = self._value(slot)
            if value.finite or _inherited(value, inputs):
                continue
            lines = [
                f"check: {self._title(index)}, made values that are not finite",
                f"  output {number} {self._describe(slot, value)}",
                *(
                    f"  input {n} {self._describe(s, v)}"
                    for n, (s, v) in enumerate(zip(step.inputs, inputs, strict=True))
                ),
            ]
            raise EngineError("\n".join(lines))

    def _describe(self, slot: int, value: _Value) -> str:
        type = self._plan.slots[slot].type
        if value.finite:
            return f"{type}: finite"
        return (
            f"{type}: {value.nan} NaN and {value.infinite} Inf among {value.size} values, "
            f"the first at {list(_position(type, value.first_bad))}"
        )


def _inherited(output: _Value, inputs: Sequence[_Value]) -> bool:
    """Do the inputs explain what the output holds?"""
    if output.nan:
        return any(value.nan for value in inputs)
    return not all(value.finite for value in inputs)


def _not_finite(memory: Array) -> tuple[int, int, int]:
    """Numbers of NaN and Inf, and where the first of them is in memory."""
    if memory.dtype.kind != "f":
        return 0, 0, 0
    bad = ~np.isfinite(memory)
    if not bad.any():
        return 0, 0, 0
    nan = int(np.isnan(memory).sum())
    return nan, int(bad.sum()) - nan, int(bad.argmax())


def _position(type: TensorType, element: int) -> tuple[int, ...]:
    """Logical index of an element in the order of memory."""
    if type.layout == "rows":
        return tuple(int(i) for i in np.unravel_index(element, type.shape))
    n, c, h, w = type.shape
    found = [int(i) for i in np.unravel_index(element, (n, h, w, c))]
    return found[0], found[3], found[1], found[2]


def _checksum(values: Array) -> int:
    """The sum of the words of memory, so fast that a whole step can be checked."""
    data = values.view(np.uint8)
    whole = len(data) // 8 * 8
    words, rest = data[:whole].view(np.uint64), data[whole:]
    return hash((int(words.sum(dtype=np.uint64)), rest.tobytes()))
