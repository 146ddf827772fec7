"""`python watch.py RANK COMMAND ...`: runs a rank's program and says when it was killed.

MPI's launcher knows that some process has died and ends the others so fast that none can say which
it was. Nothing of this package is imported: this process is small, and there before the rank.
"""

import ctypes
import os
import signal
import socket
import subprocess
import sys

AGREED = (0, 2, 130)  # exit codes with which all ranks end: done, refused, interrupted
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux's prctl


def main(rank: str, command: list[str]) -> int:
    """The command's exit code if all ranks end so; otherwise this process kills itself too: of an
    exit code alone a launcher takes no notice while the others are still starting."""
    watcher, prctl = os.getpid(), ctypes.CDLL(None).prctl

    def bind() -> None:  # in the new process: the launcher kills the watcher only
        prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        if os.getppid() != watcher:
            os.kill(os.getpid(), signal.SIGKILL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)

    signals = (signal.SIGINT, signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # none is lost before there is a process
    # A session of its own: launchers signal the group, and we pass signals on, once each. MPI's
    # descriptors are inherited.
    process = subprocess.Popen(  # (no threads here, which `preexec_fn` could disturb)
        command,
        close_fds=False,
        start_new_session=True,
        preexec_fn=bind,  # noqa: PLW1509
    )
    for number in signals:
        signal.signal(number, lambda number, _: process.send_signal(number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
    code = process.wait()
    if code in AGREED:
        return code
    if code < 0:
        print(
            f"megbrain launch: rank {rank} (process {process.pid} on {socket.gethostname()}) was "
            f"killed by signal {-code}, and so all ranks end. What was saved is whole: "
            "`train --resume RUN` goes on from there",
            file=sys.stderr,
            flush=True,
        )
    os.kill(watcher, signal.SIGKILL)
    raise AssertionError("still there")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
