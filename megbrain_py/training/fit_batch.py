"""The largest batch whose step fits the memory, found by planning: nothing is run for it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from megbrain_py import ranks
from megbrain_py.compiler import plain_plan, plans_within
from megbrain_py.errors import CompileError
from megbrain_py.lowering import ArenaBytes, Refused
from megbrain_py.planning.sizes import show_size
from megbrain_py.training.config import TrainConfig
from megbrain_py.training.memory import Program
from megbrain_py.training.progress import Display

_SHARE = 0.8  # of the memory that is free, where no limit is given


def fit_batch(
    config: TrainConfig,
    held: int,
    programs: Callable[[int], Sequence[Program]],
    most: int,
    show: Display,
    sharing: int = 1,
) -> TrainConfig:
    """The configuration with the largest batch, of `most` pictures at most, that fits `memory`;
    or, where none is given, the memory that is free, without making values again.

    sharing: devices that share what is free.

    held: bytes of weights and what the optimiser keeps. programs(n): all that runs on batches of n
    pictures, the one that takes the most first. CompileError where not even one picture fits what
    is free; with `memory` the answer is then one, and `keep_within` refuses with all details.
    """
    limit, free = config.memory_limit, free_memory() // sharing
    cache = (config.data.cache_mb << 20) // (sharing if ranks.current().backend == "local" else 1)
    assert not isinstance(limit, float)  # the configuration refuses it
    room = int(_SHARE * free) - cache if limit is None else limit
    needs: dict[int, int] = {}

    def need(count: int, which: slice = slice(1)) -> int:
        arenas = [_arena(p, room - held, limit is not None) for p in programs(count)[which]]
        needs[count] = max(needs.get(count, 0), held + max(arenas, default=0))
        return needs[count]

    found = largest_fitting(need, room, most)
    found = largest_fitting(lambda count: need(count, slice(1, None)), room, found, guess=found)
    if limit is not None and found:  # the least was searched for quickly: more may fit
        while found < most and all(_fits(program, room - held) for program in programs(found + 1)):
            found += 1
            needs[found] = min(room, needs.get(found, room))
    what = (
        f"{show_size(max(room, 0))}, {_SHARE:.0%} of the {show_size(free)} that are free less "
        f"{show_size(cache)} for data.cache_mb"
        if limit is None
        else f"memory of {show_size(limit)}"
    )
    if not found and limit is None:
        raise CompileError(
            f"train: one picture needs {show_size(needs[1])}, but there is {what}\n"
            "  memory=SIZE makes values again to need less; so does a smaller data.short_side"
        )
    if not found:
        return replace(config, batch_size=1, fit_batch=False)
    each = " on each device" if config.devices > 1 else ""
    more = needs.get(found + 1)
    take = "take" if limit is None else "can do with"
    show.message(
        f"batch_size: {found} pictures{each} fit {what}: they {take} {show_size(needs[found])}, "
        + (f"{found + 1} would need {show_size(more)}" if more else "more are not tried")
        + f" (planned: {', '.join(map(str, sorted(needs)))})"
    )
    return replace(config, batch_size=found, fit_batch=False)


def _arena(program: Program, room: int, again: bool) -> int:
    """Bytes of the arena: as it is if that fits; otherwise, with values made `again`, the least."""
    graph, device = program.function.graph(**program.types), ranks.current().device
    plain = plain_plan(graph, device).scratch_bytes
    if plain <= room or not again:
        return plain
    (least,) = plans_within(graph, [ArenaBytes(0)], device, program.function.effort)
    return least.least if isinstance(least, Refused) and least.least is not None else plain


def _fits(program: Program, room: int) -> bool:
    """Is there a plan, making values again if need be?"""
    graph, effort = program.function.graph(**program.types), program.function.effort
    (found,) = plans_within(graph, [ArenaBytes(room)], ranks.current().device, effort)
    return not isinstance(found, Refused)


def largest_fitting(need: Callable[[int], int], room: int, most: int, guess: int = 1) -> int:
    """The largest count from 1 to `most` with need(count) <= room; 0 where there is none.

    Below a count that fits all fit. `need` grows by nearly the same amount each time, so the
    straight line through the last two that were looked at gives the next guess.
    """
    low, high = 0, most + 1  # fits: nothing is needed for none; does not fit
    known = {0: 0}
    while high - low > 1:
        if len(known) > 1:
            a, b = list(known)[-2:]  # looked at last
            slope = (known[b] - known[a]) / (b - a)
            guess = b + int((room - known[b]) // slope) if slope > 0 else (low + high) // 2
        guess = min(max(guess, low + 1), high - 1)
        known[guess] = need(guess)
        if known[guess] <= room:
            low = guess
        else:
            high = guess
    return low


def free_memory() -> int:
    """Bytes that this process may still take: of the machine, and of its container."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")]
    for line in _read("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            found = [int(line.split()[1]) << 10]
    for limit, used, cached in (
        ("memory.max", "memory.current", "inactive_file "),  # the two versions of cgroups
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file "),
    ):
        texts = [_read(f"/sys/fs/cgroup/{name}").strip() for name in (limit, used)]
        if all(text.isdecimal() for text in texts):
            statistics = _read(f"/sys/fs/cgroup/{limit.rpartition('/')[0]}/memory.stat")
            freed = [int(line.split()[1]) for line in statistics.splitlines()
                     if line.startswith(cached)]  # fmt: skip
            found.append(max(int(texts[0]) - int(texts[1]) + sum(freed), 0))
    return min(found)


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:  # another system
        return ""
