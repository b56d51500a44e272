"""Keeps a CPU awake: runs on it whenever nothing else wants to, and yields at once to whatever does.

A CPU of a virtual machine that has nothing to do is given back to the host, and comes back late: tens of microseconds as a
rule, milliseconds where the host is busy. CPUs with noise on them never pay for that, so quiet ones would look worse than
they are.

None of what makes it yield needs rights. `SCHED_IDLE` counts within a group of processes only, and with autogroup each
session is a group of its own. There it is the group's weight, the least that there is, and the slice, longer than anyone
else's: whoever has a shorter one need not wait until ours is over (Linux 6.12 and later).
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
import time
from collections.abc import Sequence
from pathlib import Path

AUTOGROUP_ENABLED = Path("/proc/sys/kernel/sched_autogroup_enabled")
AUTOGROUP = Path("/proc/self/autogroup")
LEAST_NICE = 19

LONGEST_SLICE_NS = 100_000_000
"""The kernel takes no longer ones."""

SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
"""Numbers of the system call, which the C library has no function for."""

TRIES = 2_000
PAUSE_S = 0.05
"""The kernel lets only one process in a tenth of a second change its group's weight: enough for a thousand CPUs."""


def main(argv: Sequence[str]) -> int:
    """Spin until killed."""
    take_long_slices()
    try:
        weigh_least()
    except OSError as error:  # in a group that weighs as much as others it would be in everyone's way
        print(f"{AUTOGROUP}: {error.strerror}", file=sys.stderr)
        return 1
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    print('{"awake":true}', flush=True)
    while True:
        pass


def take_long_slices() -> None:
    """Ask for the longest time slice; a kernel that knows none takes no notice. It outlasts the change to `SCHED_IDLE`."""
    number = SCHED_SETATTR.get(platform.machine())
    if number is not None:
        # struct sched_attr: size, policy, flags, nice, priority, runtime, deadline, period
        attributes = struct.pack("IIQiIQQQ", 48, os.SCHED_OTHER, 0, 0, 0, LONGEST_SLICE_NS, 0, 0)
        ctypes.CDLL(None).syscall(number, 0, attributes, 0)


def weigh_least() -> None:
    """Give this session's group the least weight, where sessions are groups and this one is ours alone.

    Raises:
        OSError: the kernel does not let us.
    """
    shared = os.getsid(0) != os.getpid()
    if shared or not AUTOGROUP_ENABLED.exists() or AUTOGROUP_ENABLED.read_text().strip() != "1":
        return
    for attempt in range(TRIES):
        try:
            AUTOGROUP.write_text(str(LEAST_NICE))
            return
        except BlockingIOError:
            if attempt == TRIES - 1:
                raise
            time.sleep(PAUSE_S)
