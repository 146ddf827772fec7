"""What many ranks cost: a step of two ranks against one rank with two threads, and collectives.

python benchmarks/distributed.py [step | local | mpi] [--pairs 9] [--batch 16]

step: ResNet-50, two logical devices x 1 thread with sync batch norm against one rank x 2 threads,
the same number of images; the share of a step that collectives take, and waiting in them.
local: an all-reduce of 100 MB by two ranks that are threads.
mpi: the same by two processes, against the raw MPI call (starts mpiexec itself).
"""

from __future__ import annotations

import argparse
import ctypes
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import megbrain_py as mb
from megbrain_py import distributed, engine, nn, optim, ranks
from megbrain_py import functional as F
from megbrain_py.bench.pairs import seconds, verdict
from megbrain_py.distributed import start
from megbrain_py.models.resnet import resnet
from megbrain_py.op_testing import normal

MEGABYTES = 100
ALONE = ranks.World(device="cpu:2")  # what one rank with two threads is


def resnet_step(batch: int) -> Callable[[], object]:
    """One training step on this rank's share of the batch."""
    world = ranks.current()
    own = batch // world.size
    net = resnet("resnet50", rng=0)
    nn.sync_batch_norms(net)
    x, y = mb.placeholder("x", (own, 3, 224, 224)), mb.placeholder("y", (own,), "int64")
    with nn.train_mode() as updates:
        total = F.cross_entropy(net(x), y, reduction="sum")
    loss = distributed.mean_over_ranks(total, mb.constant(float(own)))
    gradients = mb.gradients(loss, net.parameters())
    if world.size > 1:
        gradients = distributed.data_parallel(gradients)
    rates = optim.SGD(net.parameters(), momentum=0.9).updates(gradients, 0.01)
    step = mb.compile({"loss": F.all_reduce(loss)}, updates={**updates, **rates})
    step.input("x")[...] = normal(own, 3, 224, 224, seed=world.rank)

    def run(profile: bool = False) -> mb.Function:
        step(y=np.zeros(own, np.int64), profile=profile)
        return step

    return run


def measure_step(pairs: int, batch: int) -> None:
    """In turn, on the same machine in the same minute."""

    def program() -> None:
        rank = ranks.current().rank
        many = resnet_step(batch)
        if rank == 0:
            with ranks.entered(ALONE):
                engine.set_num_threads(2)
                one = resnet_step(batch)
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


def _print_shares(step: Callable[..., mb.Function]) -> None:
    """Of each kind of collective: the part in which all ranks are there, and the waiting."""
    for _ in range(3):
        function = step(profile=True)
    times = distributed.all_gather_objects(function._executable.times())
    if ranks.current().rank != 0:
        return
    whole = times[0][-1][1] - times[0][0][0]
    shares: dict[str, list[float]] = {}
    for index, instruction in enumerate(function.plan.instructions):
        if not instruction.op.collective:
            continue
        latest = max(one[index][0] for one in times)  # the start of whoever comes last
        nbytes = sum(function.plan.slots[s].type.nbytes for s in instruction.inputs)
        kind = instruction.kernel + (" (buckets)" if nbytes > 1 << 20 else "")
        own = shares.setdefault(kind, [0.0, 0.0, 0.0])
        begin, end = times[0][index]
        own[0] += 1
        own[1] += end - latest
        own[2] += latest - begin
    for kind, (count, moving, waiting) in shares.items():
        print(
            f"{kind}: {count:.0f} calls, {moving / whole:.2%} of rank 0's step, and "
            f"{waiting / whole:.2%} of waiting for the other rank"
        )


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
    library = ctypes.CDLL(start._files_of("mpich")[-1])
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
        "what", nargs="?", default="step", choices=["step", "local", "mpi", "mpi-rank"]
    )
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--batch", type=int, default=16)
    options = parser.parse_args()
    if options.what == "step":
        measure_step(options.pairs, options.batch)
    elif options.what == "local":
        measure_local()
    elif options.what == "mpi-rank":
        mpi_rank()
    else:
        mpiexec = Path(sys.executable).parent / "mpiexec"
        subprocess.run([mpiexec, "-n", "2", sys.executable, __file__, "mpi-rank"], check=True)


if __name__ == "__main__":
    main()
