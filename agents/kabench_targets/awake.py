"""Keeps a CPU awake: runs on it whenever nothing else wants to, and yields at once to whatever does.

A CPU of a virtual machine that has nothing to do is given back to the host, and comes back late: tens of microseconds as a
rule, milliseconds where the host is busy. CPUs with noise on them never pay for that, so quiet ones would look worse than
they are. `SCHED_IDLE` needs no rights, and what wakes up preempts it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """Spin until killed."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    print('{"awake":true}', flush=True)
    while True:
        pass
