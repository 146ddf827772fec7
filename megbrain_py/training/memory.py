"""Keeps a training's compiled functions within a limit of memory, or refuses before step one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from megbrain_py import ranks
from megbrain_py.compiler import BudgetError, SpecializedFunction, plain_plan
from megbrain_py.dtypes import TensorType
from megbrain_py.errors import CompileError
from megbrain_py.lowering import ArenaBytes, Refused, refusal
from megbrain_py.plan import Plan
from megbrain_py.planning.sizes import show_size
from megbrain_py.tradeoff import tradeoff
from megbrain_py.training.step import Batch, TrainStep, feeds_of, shape_of, types_of
from megbrain_py.training.trainer import Trainer


@dataclass(frozen=True)
class Program:
    """A compiled function of a training, and the types of the largest inputs that it gets."""

    title: str
    function: SpecializedFunction
    types: Mapping[str, TensorType]

    def arena(self) -> int:
        """Bytes of the scratch arena when nothing is made again."""
        graph = self.function.graph(**self.types)
        return plain_plan(graph, ranks.current().device).scratch_bytes


def step_programs(step: TrainStep, batches: Sequence[Batch]) -> list[Program]:
    """What the steps on such batches run."""
    found = [
        Program(f"step on {shape_of(batch)}" if "key" in types else "update", function, types)
        for batch in batches
        for function, types in step.programs(batch)
    ]
    unique = {(id(p.function), tuple(p.types.items())): p for p in found}  # one update for all
    return list(unique.values())


def measuring_programs(
    validation: SpecializedFunction | None,
    detect: SpecializedFunction | None,
    batches: Sequence[Batch],
) -> list[Program]:
    """What the validation loss and the detections of such batches run."""
    found = []
    for batch in batches:
        if validation is not None:
            types = types_of(feeds_of(batch, 0, 0))
            found.append(Program(f"validation on {shape_of(batch)}", validation, types))
        if detect is not None:
            types = types_of({name: batch[name] for name in ("images", "image_sizes")})
            found.append(Program(f"evaluation on {shape_of(batch)}", detect, types))
    return found


def programs_of(trainer: Trainer) -> list[Program]:
    """All that a training runs, steps first."""
    parts, measuring = trainer.parts, trainer.measuring
    validation = measuring.validation.function if parts.validation is not None else None
    found = [
        *step_programs(trainer.step_function, parts.largest()),
        *measuring_programs(validation, parts.detect, parts.largest_measured()),
    ]
    if measuring.norms is not None:
        for batch in parts.largest():
            types = types_of(feeds_of(batch, 0, 0))
            title = f"batch norms on {shape_of(batch)}"
            found.append(Program(title, measuring.norms.function, types))
    return found


def keep_within(trainer: Trainer, limit: int | float) -> None:
    """Compile every function for its largest inputs within the limit, and say what that takes.

    limit: bytes of weights, all that the optimiser keeps, and the scratch arena that all functions
    share; or, a float, a share of the arena that the largest of them takes without recomputation.
    Smaller inputs, which are compiled when they come, get the same arena. CompileError with the
    least limit, and what fills it, when there is a function that cannot keep it.
    """
    held = trainer.step_function.state_bytes()
    programs = programs_of(trainer)
    if isinstance(limit, float):
        limit = held + int(limit * max(program.arena() for program in programs))
    arena = ArenaBytes(limit - held)
    trainer.show.message(
        f"memory: {show_size(limit)} allowed, of it {show_size(held)} for weights and what the "
        f"optimiser keeps, {show_size(max(arena, 0))} for the arena"
    )
    refused: list[tuple[Program, Refused]] = []
    for program in programs:
        program.function.memory_budget = arena
        try:
            plan = program.function.specialize(**program.types).plan
        except BudgetError as error:
            refused.append((program, error.refused))
        else:
            trainer.show.message(f"  {program.title}: {_costs(plan)}")
    if refused:
        program, worst = max(refused, key=lambda found: found[1].least or limit)
        text = refusal(replace(worst, state_bytes=held), "train: memory")
        raise CompileError(
            f"{text}\n  for the {program.title}; a smaller batch_size or data.short_side needs less"
        )


def _costs(plan: Plan) -> str:
    record = plan.budget
    assert record is not None
    text = f"arena {show_size(plan.scratch_bytes)}"
    again = len(plan.memory.again)
    if not again:
        return f"{text}, nothing is made again"
    least = record.least_extra
    proof = "" if least is None else f" (no plan can cost less than {least:+.1%})"
    return (
        f"{text} of {show_size(record.vanilla_bytes)} without recomputation; {again} of "
        f"{len(plan.instructions)} instructions run again, {record.extra:+.1%} time{proof}"
    )


def time_against_memory(trainer: Trainer) -> str:
    """What the largest step costs within less memory, as a table, and as `memory.png` in the
    run's folder."""
    arenas = {program.title: program.arena() for program in programs_of(trainer)}
    steps = step_programs(trainer.step_function, trainer.parts.largest())
    largest = max(steps, key=lambda program: arenas[program.title])
    graph = largest.function.graph(**largest.types)
    found = tradeoff(graph, None, ranks.current().device, largest.function.effort)
    picture = trainer.folder / "memory.png"
    found.draw(picture)
    lines = [largest.title, str(found)]
    for title in arenas.keys() - {program.title for program in steps}:
        lines.append(f"{title}: arena {show_size(arenas[title])}, as it is")
    lines.append(f"choose with --memory a budget or a share; drawn: {picture}")
    return "\n".join(lines)
