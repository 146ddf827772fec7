"""The Plan: slots and instructions as plain data; nothing is left to decide."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from megbrain_py.dtypes import Array, TensorType

if TYPE_CHECKING:
    from megbrain_py.plan_memory import PlanMemory

ArenaName = Literal["scratch", "state"]
WAIT = "wait"  # the kernel's name of instructions that wait for another one's work


@dataclass(frozen=True)
class Slot:
    """A place for one value.

    `offset`: bytes from the start of the scratch arena, or, in the state arena, the index of the
    state block (`Plan.state`). `first` and `last`: the instructions between which it is live.
    """

    type: TensorType
    arena: ArenaName
    offset: int
    first: int
    last: int
    label: str = ""


@dataclass(frozen=True)
class Instruction:
    """One kernel call: slots by number, attributes, and the user's line it comes from.

    `op`: the operator that `kernel` and `attrs` come from. One written by hand may leave it out
    where the attributes are the operator's fields.

    `waits_for`: of a WAIT, which has no slots of its own: the index of the instruction whose work
    it waits for. Until then that one's slots are in use, though other instructions run.
    """

    kernel: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    attrs: Mapping[str, Any]
    origin: str
    workspace: int | None = None
    op: Any = field(default=None, repr=False)  # an Operator
    waits_for: int | None = None
    again: int = 0  # how often it ran before: it makes values anew that were given up for memory

    def __str__(self) -> str:
        if self.waits_for is not None:
            return f"{self.kernel} for {self.waits_for}   # {self.origin}"
        outputs = ", ".join(f"s{s}" for s in self.outputs)
        inputs = ", ".join(f"s{s}" for s in self.inputs)
        again = ", again" if self.again else ""
        return f"{outputs} = {self.kernel}({inputs})   # {self.origin}{again}"


@dataclass(frozen=True)
class StateBlock:
    """A block that outlives the run: a parameter (`parameter` is its name) or a constant."""

    label: str
    type: TensorType
    array: Array = field(repr=False, compare=False)
    constant: bool = False


@dataclass(frozen=True)
class HintRecord:
    """What came of the user's hints: instructions that should run `again`, how many do; that should
    `keep` what they make, how many do. `seconds`: predicted, of the plan that heeds no hint; None
    where none was found."""

    again: int
    made_again: int
    keep: int
    kept: int
    seconds: float | None


@dataclass(frozen=True)
class BudgetRecord:
    """What planning under a byte budget found. Bytes are of the scratch arena, seconds predicted:
    of the plan that makes nothing twice as it would run (costs.predict), and of what is made again;
    0 where nothing had to be priced since all fitted.

    `vanilla_*`: of the plan that makes nothing twice, `vanilla_live` the bytes that hold values at
    each of its instructions. `bound`: no schedule within the budget takes less time, None when
    nothing is known. `limiting`: the instruction, by kernel and origin, whose own inputs and
    outputs need the most: what no order of instructions can go below.
    """

    budget: int
    effort: str
    seconds: float
    vanilla_seconds: float
    bound: float | None
    vanilla_bytes: int
    vanilla_live: tuple[int, ...] = field(repr=False)
    limiting: str
    planning_seconds: float
    hints: HintRecord | None = None

    @property
    def extra(self) -> float:
        """Predicted additional time as a share."""
        return self.seconds / self.vanilla_seconds - 1 if self.vanilla_seconds else 0.0

    @property
    def least_extra(self) -> float | None:
        """No schedule within the budget has less additional time than this share."""
        if self.bound is None or not self.vanilla_seconds:
            return None
        return max(self.bound / self.vanilla_seconds - 1, 0.0)

    @property
    def gap(self) -> float | None:
        """No schedule within the budget takes less time by more than this share of the bound."""
        return max(self.seconds / self.bound - 1, 0.0) if self.bound else None


@dataclass(frozen=True)
class Plan:
    """Everything that the engine needs; `scratch_bytes` is the peak that a run takes.

    `lower_bound`: no assignment of offsets for this order of instructions can need fewer bytes.
    """

    slots: tuple[Slot, ...]
    instructions: tuple[Instruction, ...]
    feeds: Mapping[str, int]
    fetches: Mapping[str, int]
    state: tuple[StateBlock, ...]
    scratch_bytes: int
    lower_bound: int
    device: str = "cpu"
    budget: BudgetRecord | None = None

    @property
    def memory(self) -> PlanMemory:
        """What fills the memory over time; what is made again, and why (print it, or `.draw`)."""
        from megbrain_py.plan_memory import PlanMemory

        return PlanMemory(self)

    @property
    def state_bytes(self) -> int:
        """Bytes of parameters and constants that the plan refers to."""
        return sum(block.type.nbytes for block in self.state)

    def title(self, instruction: Instruction) -> str:
        """Its kernel, of a wait the one that it waits for too."""
        if instruction.waits_for is None:
            return instruction.kernel
        return f"{WAIT} ({self.instructions[instruction.waits_for].kernel})"

    @property
    def agreement(self) -> str:
        """What all ranks must have in common before a run: collectives in order, parameters.

        Empty where there is no collective. Other values may have other shapes on each rank.
        """
        collectives = [step for step in self.instructions if getattr(step.op, "collective", False)]
        lines = [
            f"{step.op}({', '.join(str(self.slots[s].type) for s in step.inputs)}) at {step.origin}"
            for step in collectives
        ]
        if lines:
            lines += [f"{b.label}: {b.type}" for b in self.state if not b.constant]
        return "\n".join(lines)

    def flops(self, instruction: Instruction) -> int:
        """The arithmetic that the instruction makes; 0 where its operator does not say."""
        if instruction.op is None:
            return 0
        types = [
            [self.slots[s].type for s in slots]
            for slots in (instruction.inputs, instruction.outputs)
        ]
        return int(instruction.op.flops(*types))

    def __str__(self) -> str:
        lines = [
            f"plan on {self.device}: {len(self.instructions)} instructions, "
            f"{len(self.slots)} slots, scratch {self.scratch_bytes:,} bytes "
            f"(bound {self.lower_bound:,}), state {self.state_bytes:,} bytes"
        ]
        for number, slot in enumerate(self.slots):
            place = f"{slot.arena}+{slot.offset}"
            lines.append(
                f"  s{number}: {slot.type} {place} [{slot.first}, {slot.last}] {slot.label}"
            )
        lines += [f"  {index}: {step}" for index, step in enumerate(self.instructions)]
        return "\n".join(lines)
