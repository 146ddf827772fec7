"""Starts a training on its ranks: logical devices of this process, or the processes of MPI."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from megbrain_py import debug, distributed
from megbrain_py.errors import EngineError
from megbrain_py.training.config import TrainConfig
from megbrain_py.training.signals import listening

T = TypeVar("T")


def join_launched() -> bool:
    """Become a rank of MPI if a launcher started this process; whether it did. Again: the same.

    The earlier the better: before it, an error of one process leaves the others waiting for it.
    """
    processes = debug.launched()
    if processes is None:
        return False
    world = distributed.init("mpi")
    if processes not in (0, world.size):
        raise EngineError(
            f"init: the launcher started {processes} processes, but MPI knows {world.size}: "
            "mpiexec and libmpi_abi.so are of different MPIs; megbrain launch takes both from one "
            "package"
        )
    return True


def on_devices(config: TrainConfig, program: Callable[[TrainConfig], T]) -> T:
    """What `program(config)` gives, called on every rank: rank 0's, or this process's.

    A process that mpiexec or srun started becomes a rank of MPI, and `devices` what they are.
    Otherwise `config.devices` says how many logical devices there are.
    """
    if join_launched():
        return program(replace(config, devices=distributed.current().size))
    if config.devices == 1:
        return program(config)
    with listening():  # signals come to this thread, the ranks are others
        return distributed.run(lambda: program(config), config.devices)[0]
