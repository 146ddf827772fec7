"""Two hosts on one machine: network namespaces with addresses of their own, joined by one link.

`two_hosts.py FOLDER COMMAND...`, in namespaces of its own (UNSHARE), runs a command of MPI with a
rank on each. Bytes that crossed the link are written to FOLDER/crossed; when somebody makes
FOLDER/cut the link is taken down.
"""

from __future__ import annotations

import functools
import subprocess
import sys
import time
from pathlib import Path

HERE, THERE = "10.77.0.1", "10.77.0.2"
LINK = "between"  # the name of both ends
# Without root; all that is inside ends with it.
UNSHARE = (
    "unshare", "--user", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--kill-child",
    "--mount-proc",
)  # fmt: skip
_AFTER_CUT = 10.0  # seconds; then the launcher, which has lost the second host, is ended too

# What hydra calls as it would call ssh: [options] host command...
_LAUNCH = """#!/bin/sh
while [ "${1#-}" != "$1" ]; do shift; done
shift
exec nsenter --target %d --net --mount sh -c "$*"
"""


def run(*command: str) -> str:
    """Its output."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def there(pid: int, *command: str) -> str:
    """The same on the second host, whose network is that of this process."""
    return run("nsenter", "--target", str(pid), "--net", "--mount", *command)


def connect(pid: int) -> None:
    """The link, and an address at each of its ends."""
    run("ip", "link", "add", "name", LINK, "type", "veth", "peer", "name", LINK, "netns", str(pid))
    for address, on in ((HERE, run), (THERE, functools.partial(there, pid))):
        on("ip", "link", "set", "lo", "up")
        on("ip", "addr", "add", f"{address}/24", "dev", LINK)
        on("ip", "link", "set", LINK, "up")
    for on in (run, functools.partial(there, pid)):
        while on("cat", f"/sys/class/net/{LINK}/operstate").strip() != "up":
            time.sleep(0.01)  # a link that is not ready yet is unreachable to MPI


def crossed() -> int:
    """Bytes that the first host has sent over the link."""
    fields = Path("/proc/net/dev").read_text().split(f"{LINK}:")[1].split()
    return int(fields[8])


def second_host() -> subprocess.Popen[bytes]:
    """A process in a network of its own, which is there when this returns."""
    own = Path("/proc/self/ns/net").readlink()
    host = subprocess.Popen(["unshare", "--net", "--mount", "sleep", "infinity"])
    while Path(f"/proc/{host.pid}/ns/net").readlink() == own:
        time.sleep(0.01)
    return host


def main(folder: Path, command: list[str]) -> int:
    """The exit code of the command; 124 when the launcher did not end after the cut."""
    with second_host() as other:
        try:
            for on in (run, functools.partial(there, other.pid)):
                on("mount", "-t", "sysfs", "sysfs", "/sys")  # where MPI looks for networks
            connect(other.pid)
            launch = folder / "launch"
            launch.write_text(_LAUNCH % other.pid)
            launch.chmod(0o755)
            mpiexec, *rest = command
            hosts = ["-launcher", "ssh", "-launcher-exec", str(launch), "-ppn", "1"]
            ranks = subprocess.Popen([mpiexec, *hosts, "-hosts", f"{HERE},{THERE}", *rest])
            return _watch(ranks, folder)
        finally:
            other.kill()


def _watch(ranks: subprocess.Popen[bytes], folder: Path) -> int:
    cut: float | None = None
    while ranks.poll() is None:
        time.sleep(0.05)
        if cut is None and (folder / "cut").exists():
            run("ip", "link", "set", LINK, "down")
            cut = time.monotonic()
        if cut is not None and time.monotonic() - cut > _AFTER_CUT:
            ranks.kill()
            return 124
    (folder / "crossed").write_text(str(crossed()))
    return ranks.returncode


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
