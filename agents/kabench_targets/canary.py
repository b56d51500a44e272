"""A canary: feels how contended the node is, and is silent in between.

It reads a line `{"duration_ns": N}` from its standard input, probes for so long and answers with one line of JSON, until
its input ends. The probe is random reads over a buffer larger than the last-level cache: they suffer from a busy CPU
(the run delay), from others' use of the cache and from a busy memory bus (nanoseconds a read). PSI tells the node's own
view of the same span. The buffer is made at the first probe: a canary that is never asked costs next to nothing.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import re
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MIB = 1024 * 1024
DEFAULT_BUFFER_BYTES = 64 * MIB
MOST_BUFFER_BYTES = 256 * MIB
READS_PER_BATCH = 2048  # some 20 to 50 µs: short enough to see a preemption in the p99, long enough to time
LINE_BYTES = 64
WORDS_PER_LINE = LINE_BYTES // 8
PR_SET_PDEATHSIG = 1

_CACHES = Path("/sys/devices/system/cpu")
_SCHEDSTAT = Path("/proc/self/schedstat")
_PRESSURE = Path("/proc/pressure")
_SIZE = re.compile(r"(\d+)([KM]?)")


class Reader:
    """Random reads over a buffer of `buffer_bytes`, one word of a line each, in an order that nothing can prefetch."""

    def __init__(self, buffer_bytes: int) -> None:
        import numpy as np  # here, because a canary that is never asked need not pay for it

        self._np = np
        lines = max(buffer_bytes // LINE_BYTES, READS_PER_BATCH)
        rng = np.random.default_rng()
        self._words = np.ones(lines * WORDS_PER_LINE, dtype=np.int64)
        order = rng.integers(0, lines, size=lines - lines % READS_PER_BATCH, dtype=np.int64)
        self._order = (order * WORDS_PER_LINE).reshape(-1, READS_PER_BATCH)
        self._found = np.empty(READS_PER_BATCH, dtype=np.int64)
        self._at = 0

    def probe(self, duration_ns: int) -> list[float]:
        """Read for `duration_ns`; nanoseconds a read took, batch by batch."""
        now = time.perf_counter_ns
        end = now() + duration_ns
        batches = []
        begun = now()
        while begun < end:
            self._np.take(self._words, self._order[self._at], out=self._found, mode="wrap")
            done = now()
            batches.append((done - begun) / READS_PER_BATCH)
            self._at = (self._at + 1) % len(self._order)
            begun = done
        return batches

    def quantiles(self, batches: Sequence[float]) -> tuple[float, float]:
        """The p50 and p99 over batches."""
        p50, p99 = self._np.quantile(batches, (0.5, 0.99))
        return float(p50), float(p99)


def buffer_bytes(caches: Path = _CACHES) -> int:
    """Twice the last-level cache, so that most reads miss it; 64 MiB where its size is not known, 256 MiB at most."""
    sizes: list[int] = []
    for path in caches.glob("cpu*/cache/index3/size"):
        try:
            found = _SIZE.fullmatch(path.read_text().strip())
        except OSError:
            continue
        if found:
            sizes.append(int(found[1]) * {"": 1, "K": 1024, "M": MIB}[found[2]])
    largest = max(sizes, default=0)
    return min(2 * largest, MOST_BUFFER_BYTES) if largest else DEFAULT_BUFFER_BYTES


def scheduled(path: Path = _SCHEDSTAT) -> tuple[int, int] | str:
    """Nanoseconds on a CPU, and runnable but waiting for one, since this process began; or why they are not known."""
    try:
        run, delay, _ = path.read_text().split()
        return int(run), int(delay)
    except (OSError, ValueError) as error:
        return _why(error)


def pressure(folder: Path = _PRESSURE) -> tuple[dict[str, int], dict[str, str]]:
    """Nanoseconds in which some task waited, by resource, since the boot; and why the others are not known."""
    totals: dict[str, int] = {}
    missing: dict[str, str] = {}
    for resource in ("cpu", "memory", "io"):
        try:
            some = next(
                line for line in (folder / resource).read_text().splitlines() if line.startswith("some ")
            )
            totals[resource] = int(some.rpartition("total=")[2]) * 1000
        except (OSError, ValueError, StopIteration) as error:
            missing[f"psi_{resource}"] = _why(error)
    return totals, missing


def probe(reader: Reader, duration_ns: int) -> dict[str, Any]:
    """Probe for `duration_ns`; the answer as kabench's `Contention` has it."""
    psi_before, unavailable = pressure()
    before, begun, cpu_begun = scheduled(), time.perf_counter_ns(), time.process_time_ns()
    batches = reader.probe(duration_ns)
    after, ended, cpu_ended = scheduled(), time.perf_counter_ns(), time.process_time_ns()
    psi_after, _ = pressure()
    wall_ns = ended - begun
    if isinstance(before, str) or isinstance(after, str):
        # The probe never sleeps, so what it did not run it waited; page faults are in it too.
        run_ns = cpu_ended - cpu_begun
        delay_ns = max(0, wall_ns - run_ns)
        unavailable["schedstat"] = f"{before}; the run delay is wall time minus CPU time"
    else:
        run_ns, delay_ns = after[0] - before[0], after[1] - before[1]
    p50, p99 = reader.quantiles(batches)
    return {
        "probe_ns": wall_ns,
        "run_ns": run_ns,
        "run_delay_ns": delay_ns,
        "read_p50_ns": p50,
        "read_p99_ns": p99,
        "psi_some": {
            name: min(1.0, (psi_after[name] - total) / wall_ns)
            for name, total in psi_before.items()
            if name in psi_after
        },
        "unavailable": unavailable,
    }


def end_with_parent(parent: int) -> bool:
    """Have the kernel kill this process when its parent ends; False if that has already happened.

    Where there is no `prctl` (macOS) the end of the standard input has to do.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    return not parent or os.getppid() == parent


def main(argv: Sequence[str]) -> int:
    """Answer probes until the input ends."""
    parser = argparse.ArgumentParser(prog="python -m kabench_targets canary", description=__doc__)
    parser.add_argument(
        "--parent", type=int, default=0, help="end with this process, which must be the parent"
    )
    parser.add_argument("--buffer-bytes", type=int, default=0, help="0: twice the last-level cache")
    options = parser.parse_args(argv)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the controller's to handle
    if not end_with_parent(options.parent):
        return 0
    reader = None
    for line in sys.stdin:
        order = json.loads(line)
        if reader is None:
            reader = Reader(options.buffer_bytes or buffer_bytes())
            reader.probe(5_000_000)  # page faults and cold code are not the node's contention
        print(json.dumps(probe(reader, int(order["duration_ns"]))), flush=True)
    return 0


def _why(error: Exception) -> str:
    return (
        (error.strerror or str(error)) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
