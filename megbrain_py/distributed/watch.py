"""`python watch.py RANK REPORTS COMMAND ...`: runs a rank's program and says when it was killed.

MPI's launcher knows that some process has died and ends the others so fast that none can say which
it was; sometimes it stumbles itself. Nothing of this package is imported: this process is small,
and there before the rank.
"""

import ctypes
import os
import signal
import socket
import subprocess
import sys

AGREED = (0, 2, 130)  # exit codes with which all ranks end: done, refused, interrupted
_PARENT_DIED = 1  # PR_SET_PDEATHSIG of Linux's prctl
_PASSED_ON = (signal.SIGINT, signal.SIGTERM)


def main(rank: str, reports: str, command: list[str]) -> int:
    """The command's exit code if all ranks end so; otherwise this process kills itself too: of an
    exit code alone a launcher takes no notice while the others are still starting."""
    watcher, prctl = os.getpid(), ctypes.CDLL(None).prctl
    signals = (*_PASSED_ON, signal.SIGUSR1)

    def bind() -> None:  # in the new process: the launcher kills the watcher only
        prctl(_PARENT_DIED, signal.SIGKILL)
        if os.getppid() != watcher:
            os.kill(os.getpid(), signal.SIGKILL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)

    signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # none is lost before there is a process
    prctl(_PARENT_DIED, signal.SIGUSR1)
    # A session of its own: launchers signal the group, and we pass signals on, once each. MPI's
    # descriptors are inherited.
    process = subprocess.Popen(  # (no threads here, which `preexec_fn` could disturb)
        command,
        close_fds=False,
        start_new_session=True,
        preexec_fn=bind,  # noqa: PLW1509
    )
    ended = os.WEXITED | os.WNOWAIT
    left = False  # has the launcher died before the rank?

    def give_up(*_: object) -> None:
        nonlocal left
        if os.waitid(os.P_PID, process.pid, ended | os.WNOHANG) is None:
            left = True
            process.kill()

    for number in _PASSED_ON:
        signal.signal(number, lambda number, _: process.send_signal(number))
    signal.signal(signal.SIGUSR1, give_up)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
    os.waitid(os.P_PID, process.pid, ended)
    code = process.wait()
    if code in AGREED:
        return code
    if code < 0 and not left:
        _report(
            f"megbrain launch: rank {rank} (process {process.pid} on {socket.gethostname()}) was "
            f"killed by signal {-code}, and so all ranks end. What was saved is whole: "
            "`train --resume RUN` goes on from there\n",
            reports,
        )
    os.kill(watcher, signal.SIGKILL)
    raise AssertionError("still there")


def _report(text: str, reports: str) -> None:
    """To the command that started all, in its folder; to stderr from another host."""
    try:
        with open(os.path.join(reports, "killed"), "a") as file:
            file.write(text)
    except OSError:
        print(text, end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
