"""MPI over TCP between two network namespaces: the numbers of one host; a cut link is noticed."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_mpi import MPIEXEC, PROGRAM, ROOT, needs_mpi, results
from two_hosts import LINK, UNSHARE

TWO_HOSTS = Path(__file__).parent / "two_hosts.py"


def _reason() -> str:
    """Why this machine cannot do it; empty where it can."""
    for tool in ("unshare", "nsenter", "ip"):
        if shutil.which(tool) is None:
            return f"there is no {tool}"
    link = "mount -t sysfs sysfs /sys && ip link add name here type veth peer name there"
    done = subprocess.run([*UNSHARE, "sh", "-c", link], capture_output=True, text=True, check=False)
    return done.stderr.strip()


pytestmark = [
    needs_mpi,
    pytest.mark.skipif(bool(_reason()), reason=f"no network namespaces: {_reason()}"),
]


def on_two_hosts(
    folder: Path, name: str, *arguments: object, limit: str = "60"
) -> subprocess.CompletedProcess[str]:
    """A program of rank_programs.py with a rank on each host."""
    environment = {
        **os.environ, "MB_NUM_THREADS": "1", "MB_COLLECTIVE_TIMEOUT": limit,
        # The kernel is one: shared memory would reach the other host too.
        "UCX_TLS": "tcp,self", "UCX_NET_DEVICES": LINK,
    }  # fmt: skip
    return subprocess.run(
        [*UNSHARE, sys.executable, str(TWO_HOSTS), str(folder), str(MPIEXEC), "-n", "2",
         sys.executable, str(PROGRAM), str(folder / "results.pickle"), name,
         json.dumps(arguments)],
        capture_output=True, text=True, check=False, timeout=100, env=environment, cwd=ROOT,
    )  # fmt: skip


def test_two_hosts_train_as_one(tmp_path: Path) -> None:
    """Same losses, gradients and parameters, bit by bit; all gradients crossed the link."""
    shards = (4, 4)
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    expected = results(2, tmp_path / "one", "train", "convolutions", 3, shards)
    done = on_two_hosts(tmp_path / "two", "train", "convolutions", 3, shards)
    assert done.returncode == 0, done.stderr
    found = pickle.loads((tmp_path / "two" / "results.pickle").read_bytes())
    for ours, theirs in zip(found, expected, strict=True):
        for name, value in theirs.items():
            np.testing.assert_array_equal(ours[name], value, err_msg=name)
    gradients = sum(value.nbytes for name, value in expected[0].items() if name.startswith("d_"))
    assert int((tmp_path / "two" / "crossed").read_text()) > gradients


def test_a_cut_link_is_noticed(tmp_path: Path) -> None:
    """Both ranks compute on, wait for each other, and end with the watchdog's error."""
    done = on_two_hosts(tmp_path, "train_until_cut", str(tmp_path / "cut"), limit="2")
    assert done.returncode != 0
    for rank, other in ((0, 1), (1, 0)):
        said = (tmp_path / f"cut.error{rank}").read_text()
        missing = (
            rf"waited 2 s \(MB_COLLECTIVE_TIMEOUT\) for rank {other} in an all-(reduce|gather)"
        )
        assert re.search(missing, said), said
