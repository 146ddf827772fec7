"""The memory of a plan over time: what is live when, what is made again, at what cost."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from megbrain_py.plan import BudgetRecord, Plan, Slot
from megbrain_py.planning.memory import round_up
from megbrain_py.planning.sizes import show_size

_LARGEST = 10  # tensors that a report names


@dataclass(frozen=True)
class MemoryProfile:
    """Bytes of the scratch arena over the instructions of a plan.

    live int64[instructions]: bytes that hold values at each instruction (values that share memory
    counted once). workspace: those of them that are workspaces. peak: the first instruction with
    the most. `at_peak`: the memory blocks live there, largest first, each by its first slot.
    """

    live: npt.NDArray[np.int64]
    workspace: npt.NDArray[np.int64]
    peak: int
    at_peak: tuple[Slot, ...]
    arena_bytes: int
    lower_bound: int

    @property
    def peak_bytes(self) -> int:
        """The most bytes that hold values at once."""
        return int(self.live.max(initial=0))


def memory_profile(plan: Plan) -> MemoryProfile:
    """Count what lives when. Slots that share offset and lifetime are one block (views)."""
    count = max(len(plan.instructions), 1)
    live, workspace = np.zeros(count + 1, np.int64), np.zeros(count + 1, np.int64)
    blocks: dict[tuple[int, int, int], Slot] = {}
    for slot in plan.slots:
        if slot.arena != "scratch":
            continue
        key = (slot.offset, slot.first, slot.last)
        if key not in blocks or slot.type.nbytes > blocks[key].type.nbytes:
            blocks[key] = slot
    for slot in blocks.values():
        first, last = min(max(slot.first, 0), count - 1), min(max(slot.last, 0), count - 1)
        size = round_up(slot.type.nbytes)
        for counted in (live, workspace) if slot.label == "workspace" else (live,):
            counted[first] += size
            counted[last + 1] -= size
    live, workspace = np.cumsum(live)[:count], np.cumsum(workspace)[:count]
    peak = int(np.argmax(live))
    there = [s for s in blocks.values() if s.first <= peak <= s.last]
    there.sort(key=lambda s: -s.type.nbytes)
    return MemoryProfile(live, workspace, peak, tuple(there), plan.scratch_bytes, plan.lower_bound)


@dataclass(frozen=True)
class PlanMemory:
    """A plan's memory for people: `print` it, `to_json`, `draw` a picture."""

    plan: Plan

    @cached_property
    def profile(self) -> MemoryProfile:
        """Bytes over the instructions."""
        return memory_profile(self.plan)

    @property
    def again(self) -> list[int]:
        """Instructions that make values which had been given up."""
        return [t for t, step in enumerate(self.plan.instructions) if step.again]

    def __str__(self) -> str:
        return "\n".join([*self._summary(), *self.at_peak(), *self._made_again()])

    def _summary(self) -> list[str]:
        plan, record = self.plan, self.plan.budget
        state = f"beside {show_size(plan.state_bytes)} of parameters and constants"
        if record is None:
            return [f"memory: arena {show_size(plan.scratch_bytes)}, {state}"]
        share = plan.scratch_bytes / max(record.vanilla_bytes, 1)
        least = record.least_extra
        proof = "" if least is None else f"; no schedule can cost less than {least:+.1%}"
        time = (
            f"time: {record.seconds:.3g} s predicted, {record.extra:+.1%}{proof} "
            f"(planned in {record.planning_seconds:.1f} s, effort {record.effort})"
        )
        if not record.seconds:
            time = "time: as without a budget, nothing is made again"
        return [
            f"memory: arena {show_size(plan.scratch_bytes)} of {show_size(record.budget)} allowed, "
            f"{state}; {share:.1%} of {show_size(record.vanilla_bytes)} without recomputation",
            time,
            f"least: {record.limiting} needs the most for itself",
            *self._hints(record),
        ]

    @staticmethod
    def _hints(record: BudgetRecord) -> list[str]:
        """What hints came to, and whether they do harm."""
        hints = record.hints
        if hints is None:
            return []
        text = (
            f"hints: {hints.made_again} of {hints.again} instructions run again as wished, "
            f"{hints.kept} of {hints.keep} are kept"
        )
        if hints.seconds is None:
            return [f"{text}; without hints nothing was found"]
        return [f"{text}; without hints {hints.seconds / record.vanilla_seconds - 1:+.1%}"]

    def at_peak(self) -> list[str]:
        """Lines: the instruction at the peak and the largest values that are live there."""
        if not self.plan.instructions:
            return []
        profile = self.profile
        step = self.plan.instructions[profile.peak]
        made = self._origins()
        lines = [
            f"peak: {show_size(profile.peak_bytes)} at instruction {profile.peak}, "
            f"{self.plan.title(step)} at {step.origin}; live there:"
        ]
        for slot in profile.at_peak[:_LARGEST]:
            origin = made.get((slot.offset, slot.first), "fed")
            size = show_size(slot.type.nbytes)
            lines.append(f"  {size:>10}  {slot.type}  {slot.label} at {origin}")
        return lines

    def _origins(self) -> dict[tuple[int, int], str]:
        """By place and birth: the user's line of the instruction that makes a value."""
        found: dict[tuple[int, int], str] = {}
        for step in self.plan.instructions:
            workspace = () if step.workspace is None else (step.workspace,)
            for number in (*step.outputs, *workspace):
                slot = self.plan.slots[number]
                found.setdefault((slot.offset, slot.first), step.origin)
        return found

    def _made_again(self) -> list[str]:
        if not self.again:
            return []
        steps = self.plan.instructions
        counted = Counter((steps[t].kernel, steps[t].origin) for t in self.again)
        lines = [f"made again: {len(self.again)} of {len(steps)} instructions"]
        for (kernel, origin), count in counted.most_common(_LARGEST):
            lines.append(f"  {count:>4} x {kernel} at {origin}")
        if len(counted) > _LARGEST:
            lines.append(f"  ... and {len(counted) - _LARGEST} other lines")
        return lines

    def to_json(self) -> dict[str, Any]:
        """Everything, in plain numbers and strings."""
        plan, record = self.plan, self.plan.budget
        found: dict[str, Any] = {
            "arena_bytes": plan.scratch_bytes,
            "state_bytes": plan.state_bytes,
            "live_bytes": self.profile.live.tolist(),
            "peak_instruction": self.profile.peak,
            "at_peak": self.at_peak()[1:],
            "instructions": [
                {"kernel": plan.title(s), "origin": s.origin, "again": s.again}
                for s in plan.instructions
            ],
        }
        if record is not None:
            found |= {
                "budget_bytes": record.budget,
                "vanilla_bytes": record.vanilla_bytes,
                "vanilla_live_bytes": list(record.vanilla_live),
                "seconds": record.seconds,
                "vanilla_seconds": record.vanilla_seconds,
                "bound_seconds": record.bound,
                "limiting": record.limiting,
                "effort": record.effort,
                "planning_seconds": record.planning_seconds,
                "hints": record.hints and asdict(record.hints),
            }
        return found

    def draw(self, path: str | Path) -> None:
        """A PNG: bytes live over time, with and without recomputation; places in the arena."""
        from megbrain_py.viz.memory import draw_memory  # from above: only pictures need it

        draw_memory(self.plan, path)
