"""Connects the stand-in CUDA runtime to the PTX interpreter; import it before the CUDA backend.

In a process of its own: `Runtime(stand_in, library)` loads the stand-in under the real library's
name, reads the PTX out of the shared objects given, and from then on executes their launches.
"""

from __future__ import annotations

import ctypes
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ptx.machine import Grid, run
from ptx.memory import Fault, GlobalMemory
from ptx.parse import Kernel, kernels_of

INVALID_CONFIGURATION, ILLEGAL_ADDRESS = 9, 700  # cudaError_t
_MOST_THREADS, _MOST_SHARED, _MOST_ALLOCATIONS = 1024, 48 * 1024, 10_000

_Enqueue = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_char_p, ctypes.POINTER(ctypes.c_uint), ctypes.POINTER(ctypes.c_uint),
    ctypes.c_size_t, ctypes.POINTER(ctypes.c_void_p),
)  # fmt: skip
_Execute = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)


def ptx_of(library: Path) -> dict[str, Kernel]:
    """The kernels whose PTX lies, uncompressed, in a shared object that nvcc built."""
    texts = re.findall(rb"\.version [^\0]*", library.read_bytes())
    return {name: k for text in texts for name, k in kernels_of(text.decode()).items()}


@dataclass(frozen=True)
class Launch:
    kernel: Kernel
    grid: Grid
    parameters: bytes


class Runtime:
    """The loaded stand-in. `faults` tells what kernels did wrong, `launches` what was run.

    The launch with the number `short_of_memory` finds every allocation cut to half.
    """

    def __init__(self, stand_in: Path, *libraries: Path) -> None:
        self.kernels = {name: k for path in libraries for name, k in ptx_of(path).items()}
        self.queued: dict[int, Launch] = {}
        self.launches: list[str] = []
        self.faults: list[str] = []
        self.short_of_memory = 0
        self.native = ctypes.CDLL(str(stand_in), ctypes.RTLD_GLOBAL)
        self._callbacks = _Enqueue(self._enqueue), _Execute(self._execute)  # kept alive
        self.native.standin_connect(*self._callbacks)

    def _enqueue(self, name, blocks, threads, shared_bytes, arguments) -> int:
        kernel = self.kernels[name.decode()]
        grid = Grid(tuple(blocks[:3]), tuple(threads[:3]))
        block_size = int(np.prod(grid.threads))
        if min(grid.blocks + grid.threads) < 1 or block_size > _MOST_THREADS:
            return -INVALID_CONFIGURATION
        if max(grid.blocks[1:]) > 65_535 or kernel.shared_bytes + shared_bytes > _MOST_SHARED:
            return -INVALID_CONFIGURATION
        parameters = bytearray(kernel.parameter_bytes)
        for number, (offset, size) in enumerate(kernel.parameters):
            parameters[offset : offset + size] = ctypes.string_at(arguments[number], size)
        number = len(self.launches) + 1
        self.launches.append(kernel.name)
        self.queued[number] = Launch(kernel, grid, bytes(parameters))
        return number

    def _execute(self, number: int) -> int:
        launch = self.queued.pop(number)
        allocations = self.allocations()
        if number == self.short_of_memory:
            allocations = [(address, block[: block.size // 2]) for address, block in allocations]
        try:
            run(launch.kernel, launch.grid, launch.parameters, GlobalMemory(allocations))
        except Fault as fault:
            self.faults.append(str(fault))
            print(fault, file=sys.stderr)
            return ILLEGAL_ADDRESS
        return 0

    def allocations(self) -> list[tuple[int, np.ndarray]]:
        """(device address, bytes) of the live allocations."""
        table = (ctypes.c_uint64 * (3 * _MOST_ALLOCATIONS))()
        count = self.native.standin_allocations(table, _MOST_ALLOCATIONS)
        found = []
        for k in range(count):
            address, size, host = table[3 * k : 3 * k + 3]
            memory = (ctypes.c_uint8 * size).from_address(host)
            found.append((address, np.frombuffer(memory, np.uint8)))
        return found
