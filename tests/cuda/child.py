"""Runs in a process of its own, where the stand-in runtime takes the real one's place.

Usage: python child.py STAND_IN LIBRARY TASK; prints what the task found, as JSON.
"""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from runtime import Runtime

import megbrain_py as mb
from megbrain_py import functional as F
from megbrain_py import op_testing

DEVICE = "cuda:0"
ROOMS = ("binary", "batch_norm", "relayout")


def _numbers(*shape: int, shift: float = 0.0) -> np.ndarray:
    return op_testing.normal(*shape, shift=shift)


def _moments_of_sum(shape: tuple[int, ...]) -> dict[str, mb.Var]:
    """The two-operator graph: an elementwise operator, then moments."""
    x, y = mb.placeholder("x", shape), mb.placeholder("y", (shape[1], *[1] * (len(shape) - 2)))
    mean, m2 = F.moments(x * y)
    return {"mean": mean, "m2": m2}


def plan(runtime: Runtime) -> Any:
    """Both layouts and rows that need several pieces, on both devices; what was launched."""
    found = []
    for shape in ((3, 35, 4, 6), (2, 3, 80, 60), (2, 2, 5000), (70, 40)):
        feeds = {"x": _numbers(*shape, shift=2.0), "y": _numbers(shape[1], *[1] * (len(shape) - 2))}
        graph = _moments_of_sum(shape)
        if len(shape) == 2:
            feeds["y"] = feeds["y"].reshape(-1)
        function = mb.compile(graph, device=DEVICE)
        before = len(runtime.launches)
        here, again = function(**feeds), function(**feeds)
        there = mb.compile(graph)(**feeds)
        found.append(
            {
                "device": function.plan.device,
                "kernels": [step.kernel for step in function.plan.instructions],
                "launches": len(runtime.launches) - before,
                "error": max(op_testing.relative_error(here[k], there[k]) for k in there),
                "repeats": all(np.array_equal(here[k], again[k]) for k in here),
            }
        )
    return found


def cases(runtime: Runtime) -> Any:
    """The rooms' own cases on the device: kernel against reference, poisoned memory, twice."""
    return _cases()


def _cases() -> Any:
    done: list[str] = []
    lacking: dict[str, str] = {}
    failed: dict[str, str] = {}
    for room in ROOMS:
        for case in op_testing.cases_of(room)[0]:
            name = f"{room}-{case.name}"
            try:
                op_testing.check_forward(case, DEVICE)
                done.append(name)
            except mb.EngineError as error:
                where = lacking if "no kernel on cuda:0" in str(error) else failed
                where[name] = str(error)
            except AssertionError as error:
                failed[name] = str(error)
    return {"done": done, "lacking": lacking, "failed": failed}


def update(runtime: Runtime) -> Any:
    """A parameter lives on the host between runs: written by the device, by us, read by both."""
    weight = mb.Parameter(np.arange(6, dtype=np.float32), "weight")
    x = mb.placeholder("x", (6,))
    step = mb.compile({"y": weight * x}, updates={weight: weight * 0.5 + x}, device=DEVICE)
    read = mb.compile({"w": weight + 0.0}, device=DEVICE)
    here = [np.arange(6, dtype=np.float32)]
    fetched = []
    for k in range(3):
        value = np.full(6, k + 1.0, np.float32)
        fetched.append(np.array_equal(step(x=value)["y"], here[-1] * value))
        here.append(here[-1] * np.float32(0.5) + value)
    after = weight.value.copy()
    weight.set(np.zeros(6))
    return {
        "fetched": fetched,
        "updated": np.array_equal(after, here[-1]),
        "set": read()["w"].tolist(),
    }


def launch_failure(runtime: Runtime) -> Any:
    """The second launch of a run is refused; the function works again afterwards."""
    x = mb.placeholder("x", (8,))
    function = mb.compile({"y": F.maximum(x + 1.0, x * 2.0)}, device=DEVICE)
    runtime.native.standin_fail_launch(2)
    message = _message(lambda: function(x=np.ones(8)))
    return {"message": message, "then": function(x=np.ones(8))["y"].tolist()}


def kernel_fault(runtime: Runtime) -> Any:
    """The second kernel of a run goes beyond its memory; nothing is known of it at its launch."""
    x = mb.placeholder("x", (8,))
    function = mb.compile({"y": F.maximum(x + 1.0, x * 2.0)}, device=DEVICE)
    runtime.short_of_memory = 2
    poison = sys.argv[4:] == ["poison"]
    out = {"y": np.empty(8, np.float32)}
    feeds = {"x": np.ones(8, np.float32)}
    message = _message(lambda: function._executable.run(feeds, out, poison=poison))
    return {"message": message, "faults": runtime.faults}


def missing_kernels(runtime: Runtime) -> Any:
    """Every operator without a kernel is named at once, with the line it comes from."""
    x = mb.placeholder("x", (4, 4))
    y = F.exp(x + 1.0)
    return _message(lambda: mb.compile({"y": F.softmax(y), "z": F.exp(x)}, device=DEVICE))


def memory(runtime: Runtime) -> Any:
    """Device memory is shared by plans, grows, and is given back with them."""
    sizes = {}
    small = mb.compile({"y": mb.placeholder("x", (100,)) + 1.0}, device=DEVICE)
    sizes["small"] = [size for _, size in _blocks(runtime)]
    large = mb.compile({"y": mb.placeholder("x", (1000,)) + 1.0}, device=DEVICE)
    same = mb.compile({"y": mb.placeholder("x", (50,)) + 1.0}, device=DEVICE)
    sizes["all"] = [size for _, size in _blocks(runtime)]
    right = [
        np.array_equal(f(x=np.ones(n))["y"], np.full(n, 2.0))
        for f, n in ((small, 100), (large, 1000), (same, 50), (small, 100))
    ]
    peaks = [small.peak_bytes, large.peak_bytes]
    del small, large, same
    sizes["none"] = [size for _, size in _blocks(runtime)]
    return {"sizes": sizes, "right": right, "peaks": peaks}


def _blocks(runtime: Runtime) -> list[tuple[int, int]]:
    return [(address, block.size) for address, block in runtime.allocations()]


def no_device(runtime: Runtime) -> Any:
    """The driver finds no GPU, or fewer than asked for."""
    x = mb.placeholder("x", (4,))
    runtime.native.standin_set_devices(0)
    none = _message(lambda: mb.compile({"y": x + 1.0}, device=DEVICE))
    runtime.native.standin_set_devices(1)
    second = _message(lambda: mb.compile({"y": x + 1.0}, device="cuda:1"))
    return [none, second, mb.compile({"y": x + 1.0}, device=DEVICE)(x=np.ones(4))["y"].tolist()]


def planted(runtime: Runtime) -> Any:
    """Runs the kernel of planted.cu that the command line names."""
    library = ctypes.CDLL(sys.argv[2])
    library.planted.restype = ctypes.c_char_p
    message = library.planted(sys.argv[4].encode()).decode()
    return {"message": message, "faults": runtime.faults}


def _message(work: Callable[[], Any]) -> str:
    try:
        work()
    except mb.MegBrainError as error:
        return f"{type(error).__name__}: {error}"
    return ""


TASKS = {
    task.__name__: task
    for task in (
        plan, cases, update, launch_failure, kernel_fault, missing_kernels, memory, no_device,
        planted,
    )
}  # fmt: skip

if __name__ == "__main__":
    print(json.dumps(TASKS[sys.argv[3]](Runtime(Path(sys.argv[1]), Path(sys.argv[2])))))
