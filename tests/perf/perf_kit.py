"""What the benches share: places, pinning, spreads and ratios."""

import contextlib
import os
import statistics
import subprocess
import sys
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


@contextlib.contextmanager
def awake():
    """Keep both CPUs from going to sleep, as a run on the local cluster does: in a virtual machine they come back late."""
    with contextlib.ExitStack() as ending:
        for cpu in sorted(set(cpus())):
            command = ["taskset", "-c", str(cpu), sys.executable, "-m", "kabench_targets", "awake"]
            process = ending.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE))
            ending.callback(process.kill)
            process.stdout.readline()
        yield


def spread(values):
    """Median, and the lowest and the highest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def ratio(ones, others):
    """The spread of the ratios, turn by turn."""
    return spread([one / other for one, other in zip(ones, others, strict=True)])


def words(found, digits=2):
    """A ratio in words: the median, and in brackets what it varied between."""
    return "{median:.{d}f} [{min:.{d}f}, {max:.{d}f}]".format(**found, d=digits)
