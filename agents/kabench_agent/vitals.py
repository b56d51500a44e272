"""What the agent's process has used so far."""

from __future__ import annotations

import gc
import os
import time
from typing import NamedTuple, Protocol

SCHEDSTAT = "/proc/self/schedstat"


class Sample(NamedTuple):
    """Since the process started: CPU time, collections, time runnable without a CPU (None: the kernel does not tell)."""

    cpu_ns: int
    collections: int
    run_delay_ns: int | None


class Vitals(Protocol):
    """Where samples come from."""

    def sample(self) -> Sample:
        """The counters now."""
        ...


class SystemVitals:
    """This process's."""

    def sample(self) -> Sample:
        """The counters now; some 20 µs."""
        collections = sum(generation["collections"] for generation in gc.get_stats())
        return Sample(time.process_time_ns(), collections, _run_delay_ns())


def _run_delay_ns() -> int | None:
    """The second number of schedstat: nanoseconds of the main thread in a run queue."""
    try:
        fd = os.open(SCHEDSTAT, os.O_RDONLY)
        try:
            return int(os.read(fd, 256).split()[1])
        finally:
            os.close(fd)
    except (OSError, IndexError, ValueError):
        return None
