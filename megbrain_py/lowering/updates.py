"""Updates: new values go straight into their parameter where nobody needs the old one later."""

from __future__ import annotations

from collections.abc import Sequence

from megbrain_py.graph import Var
from megbrain_py.lowering.program import Program, Step, Storage


def place_updates(program: Program) -> None:
    """Let steps write into parameters, after all who read the old values; copy where they cannot.

    A fetched parameter means its value before the update.
    """
    storage, updates = program.storage, program.graph.updates
    updated = {storage[p] for p in updates}
    for name, var in program.fetched.items():
        if storage[var] in updated:
            program.fetched[name] = program.copy(var)
    new_values = {p: v for p, v in updates.items() if storage[p] is not storage[v]}
    for parameter, new in new_values.items():
        if storage[new].state is not None:  # another parameter's old value
            new_values[parameter] = program.copy(new)
    sharing = program.sharing()
    for parameter, new in new_values.items():
        if not _write_directly(program, sharing, parameter, new):
            readers = list(program.readers.get(storage[parameter], ()))
            copy = program.maker[program.copy(new, storage[parameter])]
            program.run_after(copy, readers)


def _write_directly(
    program: Program, sharing: dict[Storage, list[Var]], parameter: Var, new: Var
) -> bool:
    """Let the step that makes `new` write into the parameter; False when it may not."""
    target, source = program.storage[parameter], program.storage[new]
    writers = program.writers.get(source, [])
    if source.state is not None or len(writers) != 1:
        return False
    writer = writers[0]
    own = [i for i, v in enumerate(writer.inputs) if program.storage[v] is target]
    if own and not _allowed(program, writer, source, own):
        return False
    readers = [s for s in program.readers.get(target, ()) if s is not writer]
    if program.depend_on(writer) & set(readers):
        return False  # somebody reads the old value after the new one is made
    program.run_after(writer, readers)
    for v in sharing[source]:
        program.storage[v] = target
    for index in (program.readers, program.writers):
        both = dict.fromkeys((*index.get(target, ()), *index.pop(source, ())))
        index[target] = list(both)
    sharing[target] += sharing.pop(source)
    return True


def _allowed(program: Program, step: Step, source: Storage, inputs: Sequence[int]) -> bool:
    """May the step's output in `source` overwrite all these inputs?"""
    permits = set(step.permits())
    outputs = [o for o, v in enumerate(step.outputs) if program.storage[v] is source]
    return all((o, i) in permits for o in outputs for i in inputs)
