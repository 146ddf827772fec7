"""What many ranks cost: a step of two ranks against one rank with two threads, and collectives.

python benchmarks/distributed.py [step | overlap | local | mpi] [--model resnet50] [--pairs 9]
                                 [--batch 16] [--size 224]

step: two logical devices x 1 thread with sync batch norm against one rank x 2 threads, the same
number of images; the share of a step that collectives take, and waiting in them.
overlap: two ranks with gradients' buckets that overlap against buckets that block; ranks are
processes where mpiexec -n 2 starts it.
local: an all-reduce of 100 MB by two ranks that are threads.
mpi: the same by two processes, against the raw MPI call (starts mpiexec itself).
--model: resnet50, or a detector's preset, such as r50_fpn.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import megbrain_py as mb
from megbrain_py import distributed, engine, ranks
from megbrain_py import functional as F
from megbrain_py.bench.pairs import seconds, verdict
from megbrain_py.distributed import start
from megbrain_py.plan import Instruction
from megbrain_py.scaling.steps import STEPS

MEGABYTES = 100
ALONE = ranks.World(device="cpu:2")  # what one rank with two threads is

Run = Callable[..., mb.Function]  # one step; profile=True times its instructions


def training_step(model: str, batch: int, size: int, *, overlap: bool = True) -> Run:
    """One training step on this rank's share of the batch."""
    made = STEPS[model](batch // ranks.current().size, size, overlap=overlap)
    step = made.compile()

    def run(profile: bool = False) -> mb.Function:
        step(**made.feeds, profile=profile)
        return step

    return run


def measure_step(pairs: int, model: str, batch: int, size: int) -> None:
    """In turn, on the same machine in the same minute."""

    def program() -> None:
        rank = ranks.current().rank
        many = training_step(model, batch, size)
        if rank == 0:
            with ranks.entered(ALONE):
                engine.set_num_threads(2)
                one = training_step(model, batch, size)
        times = np.empty((pairs + 1, 2))
        for pair in times:
            if rank == 0:
                with ranks.entered(ALONE):
                    engine.set_num_threads(2)
                    pair[1] = seconds(one)
                engine.set_num_threads(1)
            distributed.barrier()
            pair[0] = seconds(many)
            distributed.barrier()
        if rank == 0:
            print(f"two ranks x 1 thread / one rank x 2 threads: {verdict(*times[1:].T)}")
        _print_shares(many)

    distributed.run(program, 2, threads=1)


def measure_overlap(pairs: int, model: str, batch: int, size: int) -> None:
    """Both forms of the same step in turn, in random order."""

    def program() -> None:
        forms = [training_step(model, batch, size, overlap=overlap) for overlap in (True, False)]
        times = np.empty((pairs + 1, 2))
        rng = np.random.default_rng(0)  # the same order on both ranks
        for pair in times:
            for form in rng.permutation(2):
                distributed.barrier()
                pair[form] = seconds(forms[form])
        if ranks.current().rank == 0:
            print(f"buckets that overlap / that block: {verdict(*times[1:].T)}")
        for form in forms:
            _print_shares(form)

    if "PMI_RANK" in os.environ:  # mpiexec's
        distributed.init("mpi")
        program()
    else:
        distributed.run(program, 2, threads=1)


def _print_shares(step: Run) -> None:
    """Of each kind of collective: the part in which all ranks are there, and the waiting. Of one
    that overlaps only its start and its wait stand here; the rest is hidden."""
    for _ in range(3):
        function = step(profile=True)
    times = distributed.all_gather_objects(function._executable.times())
    if ranks.current().rank != 0:
        return
    whole = times[0][-1][1] - times[0][0][0]
    shares: dict[str, list[float]] = {}
    for index, instruction in enumerate(function.plan.instructions):
        kind = _kind(function, instruction)
        if kind is None:
            continue
        begin, end = times[0][index]
        # The start of whoever comes last; a start and a wait meet nobody.
        overlaps = "later" in kind
        latest = begin if overlaps else max(one[index][0] for one in times)
        own = shares.setdefault(kind, [0.0, 0.0, 0.0])
        own[0] += 1
        own[1] += end - latest
        own[2] += latest - begin
    for kind, (count, moving, waiting) in shares.items():
        print(
            f"{kind}: {count:.0f} calls, {moving / whole:.2%} of rank 0's step, and "
            f"{waiting / whole:.2%} of waiting for the other rank"
        )


def _kind(function: mb.Function, step: Instruction) -> str | None:
    """What a collective is called in the table; None for other instructions."""
    if step.waits_for is not None:
        return function.plan.title(step)
    if step.op is None or not step.op.collective:
        return None
    nbytes = sum(function.plan.slots[s].type.nbytes for s in step.inputs)
    return step.kernel + (" (buckets)" if nbytes > 1 << 20 else "")


def measure_local() -> None:
    """Seconds of an all-reduce of 100 MB by two threads, through a compiled function's kernel."""

    def program() -> None:
        world = ranks.current()
        w = mb.Parameter(np.ones(MEGABYTES << 18, np.float32))
        step = mb.compile({}, updates={w: F.all_reduce(w)})
        step()
        took = []
        for _ in range(9):
            step(profile=True)
            begin, end = step._executable.times()[0]
            took.append(end - begin)
        if world.rank == 0:
            best = float(np.median(took))
            print(f"local all_reduce of {MEGABYTES} MiB by 2 ranks: {best * 1e3:.1f} ms, "
                  f"{MEGABYTES / 1024 / best:.1f} GiB/s of each rank's values")  # fmt: skip

    distributed.run(program, 2, threads=1)


def mpi_rank() -> None:
    """One of two processes: our kernel and the raw blocking call, in turn."""
    world = distributed.init("mpi")
    count = MEGABYTES << 18
    w = mb.Parameter(np.ones(count, np.float32))
    step = mb.compile({}, updates={w: F.all_reduce(w)})
    library = ctypes.CDLL(start.files_of("mpich", "libmpi_abi.so")[-1])
    raw = library.MPI_Allreduce
    pointer, integer = ctypes.c_void_p, ctypes.c_int
    raw.argtypes = [pointer, pointer, integer, pointer, pointer, pointer]
    values = np.ones(count, np.float32)

    def ours() -> float:
        step(profile=True)
        begin, end = step._executable.times()[0]
        return end - begin

    def theirs() -> float:
        # MPI_IN_PLACE, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD of the standard ABI
        return seconds(lambda: raw(1, values.ctypes.data, count, 0x210, 0x21, 0x101))

    times = []
    for _ in range(10):
        pair = []
        for one in (ours, theirs):
            distributed.barrier()
            time.sleep(0.01)
            w.value.fill(1)
            values[:] = 1
            distributed.barrier()
            pair.append(one())
        times.append(pair)
    if world.rank == 0:
        print(
            f"mpi all_reduce of {MEGABYTES} MiB / MPI_Allreduce: {verdict(*np.array(times[1:]).T)}"
        )


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "what", nargs="?", default="step",
        choices=["step", "overlap", "local", "mpi", "mpi-rank"],
    )  # fmt: skip
    parser.add_argument("--model", default="resnet50", choices=list(STEPS))
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=224)
    options = parser.parse_args()
    if options.what in ("step", "overlap"):
        measure = measure_step if options.what == "step" else measure_overlap
        measure(options.pairs, options.model, options.batch, options.size)
    elif options.what == "local":
        measure_local()
    elif options.what == "mpi-rank":
        mpi_rank()
    else:
        mpiexec = Path(sys.executable).parent / "mpiexec"
        subprocess.run([mpiexec, "-n", "2", sys.executable, __file__, "mpi-rank"], check=True)


if __name__ == "__main__":
    main()
