"""The built-in stressor, for machines without stress-ng: it really reads, copies or computes, and counts it.

====== ============================================================ ==================
kind   what a worker does                                           `ops` counts
====== ============================================================ ==================
cache  random reads over a buffer larger than the last-level cache  reads
membw  streaming copies between two such buffers                    passes over a buffer
cpu    SHA-256 in registers: the placebo, no memory traffic         hash iterations
====== ============================================================ ==================

It prints `{"ready": true}` once every worker works; then, whenever it gets SIGUSR1 and at its end (`--seconds`, or SIGTERM
or SIGINT before that), `{"ops": …, "bytes": …, "cpu_seconds": …, "seconds": …}`: what was done since then, but all CPU time
of its workers. It always ends by itself.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import mmap
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from types import FrameType

MIB = 1024 * 1024
READS_PER_STEP = 65_536
COPY_PIECE_BYTES = 4 * MIB
HASH_ITERATIONS = 1_000
PR_SET_PDEATHSIG = 1

FIELDS = 4
"""Of a worker, in shared memory: operations, bytes moved, steps, nanoseconds of CPU time."""

Step = Callable[[], tuple[int, int]]
"""Some work of about a millisecond; returns how many operations it was and how many bytes it moved."""


def cache_step(buffer_bytes: int, seed: int) -> Step:
    """Random reads: a word of a random cache line each, in an order that no prefetcher can follow."""
    import numpy as np

    rng = np.random.default_rng(seed)
    words = np.ones(buffer_bytes // 8, dtype=np.int64)
    order = rng.integers(0, len(words), size=16 * READS_PER_STEP, dtype=np.int64)
    found = np.empty(READS_PER_STEP, dtype=np.int64)
    at = 0

    def step() -> tuple[int, int]:
        nonlocal at
        np.take(words, order[at : at + READS_PER_STEP], out=found, mode="wrap")
        at = (at + READS_PER_STEP) % len(order)
        return READS_PER_STEP, READS_PER_STEP * 64

    return step


def membw_step(buffer_bytes: int, seed: int) -> Step:
    """Streaming copies, a piece at a time; a whole pass over the buffer is one operation."""
    import numpy as np

    source = np.full(buffer_bytes, seed % 251, dtype=np.uint8)
    sink = np.zeros(buffer_bytes, dtype=np.uint8)
    at = 0

    def step() -> tuple[int, int]:
        nonlocal at
        end = min(at + COPY_PIECE_BYTES, buffer_bytes)
        sink[at:end] = source[at:end]
        moved, at = end - at, end % buffer_bytes
        return int(at == 0), 2 * moved

    return step


def cpu_step(buffer_bytes: int, seed: int) -> Step:
    """Hashing a few bytes again and again; `buffer_bytes` is not used."""
    import hashlib

    salt = seed.to_bytes(8, "big")

    def step() -> tuple[int, int]:
        hashlib.pbkdf2_hmac("sha256", b"kabench", salt, HASH_ITERATIONS)
        return HASH_ITERATIONS, 0

    return step


STEPS: dict[str, Callable[[int, int], Step]] = {"cache": cache_step, "membw": membw_step, "cpu": cpu_step}


class Workers:
    """Forked workers that count in shared memory. They die with the parent, and the parent ends them."""

    def __init__(self, count: int) -> None:
        self._shared = mmap.mmap(-1, FIELDS * 8 * count)
        self._counts = memoryview(self._shared).cast("q")
        self._count = count
        self._pids: list[int] = []

    def start(self, make: Callable[[int, int], Step], buffer_bytes: int, end_ns: int) -> None:
        """Fork them; each works until `end_ns` (monotonic) or SIGTERM."""
        parent = os.getpid()
        for index in range(self._count):
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    _die_with(parent)
                    self._work(index, make(buffer_bytes, index + 1), end_ns)
                    status = 0
                finally:
                    os._exit(status)
            self._pids.append(pid)

    def _work(self, index: int, step: Step, end_ns: int) -> None:
        stop = False

        def on_signal(_signal: int, _frame: FrameType | None) -> None:
            nonlocal stop
            stop = True

        signal.signal(signal.SIGTERM, on_signal)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us, and counts first
        counts, at = self._counts, FIELDS * index
        while not stop and time.monotonic_ns() < end_ns:
            ops, moved = step()
            counts[at] += ops
            counts[at + 1] += moved
            counts[at + 2] += 1
            counts[at + 3] = time.process_time_ns()

    @property
    def ready(self) -> bool:
        """Whether each has done a step."""
        return all(self._counts[FIELDS * index + 2] for index in range(self._count))

    def reap(self) -> int:
        """How many have ended by now."""
        for pid in list(self._pids):
            if os.waitpid(pid, os.WNOHANG)[0]:
                self._pids.remove(pid)
        return self._count - len(self._pids)

    def stop(self) -> None:
        """End those that live and wait for them; a step takes about a millisecond."""
        for pid in self._pids:
            os.kill(pid, signal.SIGTERM)
        for pid in self._pids:
            os.waitpid(pid, 0)
        self._pids.clear()

    def totals(self) -> tuple[int, int, int]:
        """Operations, bytes and nanoseconds of CPU time of all."""
        ops, moved, cpu_ns = (sum(self._counts[field::FIELDS]) for field in (0, 1, 3))
        return ops, moved, cpu_ns


def _die_with(parent: int) -> None:
    """Ask for SIGKILL when the parent ends, also if it has already (elsewhere than on Linux `--seconds` ends us)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def run(kind: str, workers: int, seconds: float, buffer_bytes: int, tell: Callable[[object], None]) -> None:
    """Stress for `seconds` or until SIGTERM or SIGINT; `tell` that work has begun, and what was done.

    Raises:
        ChildProcessError: a worker ended before its time.
    """
    ready_ns = time.monotonic_ns()
    end_ns = ready_ns + round(seconds * 1e9)
    ending, asked = {signal.SIGTERM, signal.SIGINT}, signal.SIGUSR1
    crew = Workers(workers)
    crew.start(STEPS[kind], buffer_bytes, end_ns)
    signal.pthread_sigmask(signal.SIG_BLOCK, {*ending, asked})
    said, stopped, before = False, False, (0, 0, 0)

    def account() -> dict[str, float]:
        ops, moved, cpu_ns = crew.totals()
        return {
            "ops": ops - before[0],
            "bytes": moved - before[1],
            "cpu_seconds": round(cpu_ns / 1e9, 3),
            "seconds": round((time.monotonic_ns() - ready_ns) / 1e9, 3),
        }

    try:
        while not stopped and time.monotonic_ns() < end_ns:
            got = signal.sigtimedwait({*ending, asked}, 0.02 if not said else 0.25)
            stopped = got is not None and got.si_signo in ending
            if crew.reap() and not stopped and time.monotonic_ns() < end_ns:
                raise ChildProcessError(f"a {kind} worker ended before its time")
            if not said and crew.ready:
                said, before, ready_ns = True, crew.totals(), time.monotonic_ns()
                tell({"ready": True})
            if said and got is not None and got.si_signo == asked:
                tell(account())
    finally:
        crew.stop()
    tell(account())


def main(argv: Sequence[str]) -> int:
    """Stress, then print what was done."""
    parser = argparse.ArgumentParser(prog="kabench_targets stress", description=__doc__.splitlines()[0])
    parser.add_argument("--kind", choices=sorted(STEPS), required=True)
    parser.add_argument("--seconds", type=float, required=True, help="end by itself after so long")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--buffer-mib", type=int, default=64, help="larger than the last-level cache")
    arguments = parser.parse_args(argv)

    def tell(what: object) -> None:
        print(json.dumps(what), flush=True)

    run(arguments.kind, arguments.workers, arguments.seconds, arguments.buffer_mib * MIB, tell)
    return 0
