"""What the benches share: places, pinning, spreads and ratios."""

import os
import statistics
from pathlib import Path

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache" / "perf"


def scratch():
    """A folder for large files and what is built."""
    CACHE.mkdir(parents=True, exist_ok=True)
    return CACHE


_FOUND = (
    sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
)  # before this process is bound


def cpus():
    """(the client's CPU, the server's): the first and the last."""
    return _FOUND[0], _FOUND[-1]


def pin(pid, *wanted):
    """Bind a process to CPUs, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(pid, wanted)


def pin_self():
    """Bind this process to the client's CPU."""
    pin(0, cpus()[0])


def spread(values):
    """Median, and the lowest and the highest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def ratio(ones, others):
    """The spread of the ratios, turn by turn."""
    return spread([one / other for one, other in zip(ones, others, strict=True)])


def words(found, digits=2):
    """A ratio in words: the median, and in brackets what it varied between."""
    return "{median:.{d}f} [{min:.{d}f}, {max:.{d}f}]".format(**found, d=digits)
