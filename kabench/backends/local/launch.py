"""Becomes a child process: bound to its CPUs, and ended with its parent. Run by path, not imported.

    python -I -S launch.py PARENT_PID CPU[,CPU…] PROGRAM [ARGUMENT…]

A step of its own because code between fork and exec in the controller (a large process with threads) is not safe.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
CANNOT_START = 127


def main(parent: int, cpus: set[int], command: list[str]) -> int:
    """Replace this process by `command`; returns only if that fails."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        print(f"prctl: {os.strerror(ctypes.get_errno())}", file=sys.stderr)
        return CANNOT_START
    if os.getppid() != parent:  # it died before the line above
        return CANNOT_START
    os.closerange(3, 65_536)  # what the controller inherited from a shell or a supervisor is not for children
    try:
        os.sched_setaffinity(0, cpus)
        os.execv(command[0], command)
    except OSError as error:
        print(f"{command[0]}: {error}", file=sys.stderr)
    return CANNOT_START


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), {int(cpu) for cpu in sys.argv[2].split(",")}, sys.argv[3:]))
