"""When every request of a window is due, and what it asks for: computed ahead, from one seed.

Each stream (one target) draws from seeds of its own, derived by its name, so that adding a target moves no other one's
arrivals. With one seed for all agents they would send at the same instants: an agent's seed is its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kabench.core.seeds import derive_seed

Ints = NDArray[np.int64]

ARRIVALS = ("poisson", "constant")
NS_PER_S = 1_000_000_000


@dataclass(frozen=True)
class Stream:
    """The arrivals at one target.

    Attributes:
        name: the target's.
        rate_per_s: mean arrivals a second; 0 gives none.
        keys: size of the key space that operations draw from, uniformly; 0 where there is none.
        get_ratio: share of reads among the operations on keys.
    """

    name: str
    rate_per_s: float
    keys: int = 0
    get_ratio: float = 1.0


@dataclass(frozen=True)
class Schedule:
    """All requests by due time; the three arrays have the same length.

    Attributes:
        due_ns: relative to the window's start, ascending, in [-warm_up_ns, window_ns).
        target: index of the stream.
        op: for a stream with keys: the key's index for a read, its complement (negative) for a write; else 0.
        planned: by stream, how many are due in the window.
    """

    due_ns: Ints
    target: Ints
    op: Ints
    planned: dict[str, int]


def compute(
    seed: int, arrivals: str, streams: Sequence[Stream], *, warm_up_ns: int, window_ns: int
) -> Schedule:
    """Draw every arrival of the warm-up and the window. The same arguments give the same schedule.

    Args:
        seed: the agent's own.
        arrivals: "poisson", or "constant": evenly spaced, each stream from a random phase of its own.
        streams: their order decides between requests that are due at the same nanosecond.
        warm_up_ns: what comes before the window's start, at zero.
        window_ns: length of the window.

    Raises:
        ValueError: an unknown kind of arrivals, a negative rate or time, or a name that stands twice.
    """
    _check(arrivals, streams, warm_up_ns, window_ns)
    draw = _poisson if arrivals == "poisson" else _constant
    dues: list[Ints] = []
    ops: list[Ints] = []
    for stream in streams:
        rng = np.random.default_rng(derive_seed(seed, "arrivals", stream.name))
        dues.append(draw(rng, stream.rate_per_s, warm_up_ns, window_ns))
        ops.append(_operations(seed, stream, dues[-1].size))
    empty = np.empty(0, dtype=np.int64)
    due_ns = np.concatenate([empty, *dues])
    order = np.argsort(due_ns, kind="stable")
    target = np.repeat(np.arange(len(streams), dtype=np.int64), [due.size for due in dues])
    planned = {
        stream.name: int(np.count_nonzero(due >= 0)) for stream, due in zip(streams, dues, strict=True)
    }
    return Schedule(due_ns[order], target[order], np.concatenate([empty, *ops])[order], planned)


def _check(arrivals: str, streams: Sequence[Stream], warm_up_ns: int, window_ns: int) -> None:
    if arrivals not in ARRIVALS:
        raise ValueError(f"arrivals are one of {', '.join(ARRIVALS)}, not {arrivals!r}")
    if warm_up_ns < 0 or window_ns < 0:
        raise ValueError(f"times cannot be negative: warm-up {warm_up_ns} ns, window {window_ns} ns")
    for stream in streams:
        if not 0 <= stream.rate_per_s < float("inf"):
            raise ValueError(f"{stream.name}: a rate of {stream.rate_per_s}/s")
    names = [stream.name for stream in streams]
    if len(set(names)) != len(names):
        raise ValueError("a stream's name stands twice")


def _poisson(rng: np.random.Generator, rate_per_s: float, warm_up_ns: int, window_ns: int) -> Ints:
    """A Poisson count of uniform instants: that is a Poisson process, without summing rounded gaps."""
    count = rng.poisson(rate_per_s * (warm_up_ns + window_ns) / NS_PER_S)
    return np.sort(rng.integers(-warm_up_ns, max(window_ns, 1 - warm_up_ns), size=count, dtype=np.int64))


def _constant(rng: np.random.Generator, rate_per_s: float, warm_up_ns: int, window_ns: int) -> Ints:
    """One every 1/rate from a random phase. A double is exact to 1 ns for 100 days of them."""
    if not rate_per_s:
        return np.empty(0, dtype=np.int64)
    period_ns = NS_PER_S / rate_per_s
    span_ns = warm_up_ns + window_ns
    steps = np.arange(int(span_ns / period_ns) + 1)
    after_ns = (rng.random() + steps) * period_ns
    return after_ns[after_ns < span_ns].astype(np.int64) - warm_up_ns


def _operations(seed: int, stream: Stream, count: int) -> Ints:
    if not stream.keys:
        return np.zeros(count, dtype=np.int64)
    rng = np.random.default_rng(derive_seed(seed, "operations", stream.name))
    key = rng.integers(0, stream.keys, size=count, dtype=np.int64)
    reads = rng.random(count) < stream.get_ratio
    return np.where(reads, key, ~key)
