"""A detector training on processes of MPI, of which one is killed (-9) at a random moment.

All must be gone within ten seconds, the message must name the rank, and the last checkpoint must be
continued to the bits of a training that was not killed.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from kills import ROOT, SETTINGS, STEPS, Generator, Run, kill_again_and_again

from megbrain_py.training import checkpoint

RANKS = 3
GONE = 10.0  # seconds
EARLY = 0.3  # this share of the kills falls into the seconds after the start
SMALL = [  # one size of batch, unequal parts of it, little to compile
    "data.scale_jitter=1,1", "model.fpn_channels=16", "model.roi.hidden=24", "data.workers=1",
]  # fmt: skip


class RanksRun(Run):
    """The same on many ranks; what they say of errors lies in `said`."""

    settings = (*SETTINGS, *SMALL)

    @property
    def said(self) -> Path:
        return self.folder.with_suffix(".stderr")

    def start(self) -> subprocess.Popen[bytes]:
        launched = ["launch", "-n", str(RANKS), *self.words()]
        command = [sys.executable, "-m", "megbrain_py", *launched]
        with self.said.open("wb") as stream:
            return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=stream)

    def processes(self) -> dict[int, int]:
        """Those of the ranks that live: number of the process -> rank."""
        found = {}
        for place in Path("/proc").glob("[0-9]*"):
            try:
                words = (place / "cmdline").read_bytes().split(b"\0")
                if b"train" not in words or not any(str(self.folder).encode() in w for w in words):
                    continue
                if b"launch" in words or any(w.endswith(b"watch.py") for w in words):
                    continue
                text = re.search(rb"PMI_RANK=(\d+)", (place / "environ").read_bytes())
            except OSError:  # it has just ended
                continue
            if text is not None:
                found[int(place.name)] = int(text[1])
        return found

    def steps(self) -> int:
        """Lines of the log: steps done."""
        log = self.folder / "log.jsonl"
        return log.read_bytes().count(b"\n") if log.exists() else 0

    def kill_a_rank(self, rank: int, step: int, seconds: float) -> str | None:
        """kill -9 so long after this step, or after the start (step -1); None: the run was faster.

        What was seen; SystemExit when a process stays, or the message does not name the rank.
        """
        launcher = self.start()
        victims: list[int] = []
        while launcher.poll() is None and (not victims or self.steps() < step):
            victims = [process for process, own in self.processes().items() if own == rank]
            time.sleep(0.02)
        time.sleep(seconds)
        if launcher.poll() is not None or victims[0] not in self.processes():
            launcher.wait()
            return None
        os.kill(victims[0], signal.SIGKILL)
        killed = time.monotonic()
        code = launcher.wait(GONE)
        while self.processes():
            if time.monotonic() - killed > GONE:
                raise SystemExit(f"kills: processes live on: {self.processes()}")
            time.sleep(0.02)
        took = time.monotonic() - killed
        said = self.said.read_text()
        if code != 1 or f"rank {rank} (process {victims[0]} on " not in said:
            raise SystemExit(f"kills: rank {rank} was killed, exit code {code}, said:\n{said}")
        count = len(checkpoint.files(self.checkpoints))
        when = f"{seconds:.2f} s after {'the start' if step < 0 else f'step {step}'}"
        return f"rank {rank} {when} ({count} checkpoints), all gone in {took:.1f} s"


def kills_ranks(folder: Path, count: int = 50) -> bool:
    """`count` kills of a rank; resumed trainings are killed again; all must end bit-equal."""

    def kill(run: RanksRun, rng: Generator, _: float) -> str | None:
        early = rng.random() < EARLY
        step = -1 if early else int(rng.integers(min(run.steps(), STEPS - 1), STEPS))
        wait = rng.uniform(0.0, 4.0 if early else 0.3)
        return run.kill_a_rank(int(rng.integers(RANKS)), step, wait)

    good, runs = kill_again_and_again(RanksRun, folder, count, kill)
    print(f"kills: {count} ranks of {RANKS} killed in {runs} trainings")
    return good
