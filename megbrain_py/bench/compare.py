"""`megbrain bench WORKLOAD`: times a workload, beside torch's where torch is installed."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from megbrain_py.bench import pairs
from megbrain_py.bench.sides import OURS, TORCH, TUNED, Side

PAUSE = 0.05  # seconds between turns: OpenMP threads of the other side go to sleep
MEMORY_STEPS = 3  # after which the memory of a step has been seen

# A turn of the fast ones makes several steps, so that what is timed is not the turn itself.
STEPS_OF_A_TURN = {"roi_align": 3, "prroi": 3, "nms": 10}
CHANNELS_LAST = ("detector", "detect")  # a tuning there; torch's ResNet-50 always runs so


@dataclass(frozen=True)
class Request:
    """What is to be compared.

    options: of the workload. tuned: torch with the environment of `sides.TUNED` and weights in
    channels_last. compile: torch with torch.compile. peer_python: an interpreter that has torch;
    none: this one, if it has. threads: of both sides; none: their defaults.
    """

    workload: str
    options: Mapping[str, Any] = field(default_factory=dict)
    pairs: int = 15
    tuned: bool = False
    compile: bool = False
    peer_python: str | None = None
    threads: int | None = None

    @property
    def steps(self) -> int:
        return STEPS_OF_A_TURN.get(self.workload, 1)

    def ours(self) -> Side:
        """Our worker."""
        environment = {"MB_NUM_THREADS": str(self.threads)} if self.threads else {}
        return Side(OURS, self.workload, self.options, environment=environment)

    def peer(self) -> Side | None:
        """torch's worker; None where there is no torch."""
        python = self.peer_python
        if python is None:
            if importlib.util.find_spec("torchvision") is None:
                return None
            python = sys.executable
        options = dict(self.options)
        if self.compile and self.workload == "resnet50":
            options["compile"] = True
        if self.tuned and self.workload in CHANNELS_LAST:
            options["channels_last"] = True
        environment = dict(TUNED) if self.tuned else {}
        if self.threads:
            environment["OMP_NUM_THREADS"] = str(self.threads)
        return Side(TORCH, self.workload, options, python=python, environment=environment)


def speed(request: Request) -> None:
    """Print what a step takes, and the verdict."""
    with ExitStack() as stack:
        ours = stack.enter_context(request.ours())
        print(f"{request.workload} {_text(request.options)}")
        print(f"  ours: {_text(ours.facts)}")
        peer = request.peer()
        steps = request.steps
        if peer is None:
            times = [ours.timed(steps) for _ in range(request.pairs + 1)][1:]
            print(f"  ours {np.median(times):.4g} s a step; torch is not installed")
        else:
            stack.enter_context(peer)
            how = "torch, tuned" if request.tuned else "torch"
            print(f"  {how}: {_text(peer.facts)}")
            found = pairs.compare(
                lambda: ours.timed(steps), lambda: peer.timed(steps), request.pairs, pause=PAUSE
            )
            print(f"  a step: {found}")
        faults = ours.work(steps).page_faults / steps
        print(f"  page faults inside our step: {faults:g}")


def memory(request: Request) -> None:
    """Print what a step takes of memory: the most resident, less that of the built model."""
    mebibytes: dict[str, float] = {}
    for name, start in (("ours", request.ours), ("torch", request.peer)):
        side = start()
        if side is None:
            print("  torch is not installed")
            continue
        with side:
            mebibytes[name] = side.work(MEMORY_STEPS).memory_bytes / 2**20
        print(f"  {name}: {mebibytes[name]:,.0f} MiB")
    if "torch" in mebibytes:
        print(f"  step memory, ours / torch: {mebibytes['ours'] / mebibytes['torch']:.3f}")


def _text(facts: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name.replace('_', ' ')} {value:.2f}" if isinstance(value, float)
        else f"{name.replace('_', ' ')} {value:,}" if isinstance(value, int)
        else f"{name.replace('_', ' ')} {value}"
        for name, value in facts.items()
    )  # fmt: skip
