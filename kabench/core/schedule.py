"""When every request of a window is due, and what it asks for: computed ahead, from one seed.

Each stream (one target) draws from seeds of its own, derived by its name, so that adding a target moves no other one's
arrivals. With one seed for all agents they would send at the same instants: an agent's seed is its own.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kabench.core.seeds import derive_seed

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

ARRIVALS = ("poisson", "constant")
NS_PER_S = 1_000_000_000
ZIPF_EXPONENT = 0.99
"""As in YCSB: of 1,000 keys, the first gets one operation in eight."""


@dataclass(frozen=True)
class Stream:
    """The arrivals at one target.

    Attributes:
        name: the target's.
        rate_per_s: mean arrivals a second; 0 gives none.
        weights: of the choices that an operation is one of (commands, paths), relative to each other.
        keys: size of the key space that operations draw from; 1 where there is none.
        zipf: whether low keys are drawn more often than high ones (`ZIPF_EXPONENT`); else all evenly.
    """

    name: str
    rate_per_s: float
    weights: tuple[float, ...] = (1.0,)
    keys: int = 1
    zipf: bool = False


@dataclass(frozen=True)
class Schedule:
    """All requests by due time; the three arrays have the same length.

    Attributes:
        due_ns: relative to the window's start, ascending, in [-warm_up_ns, window_ns).
        target: index of the stream.
        op: the operation, as `Operations` draws it.
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
        ops.append(Operations(seed, stream).take(dues[-1].size))
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


class Operations:
    """What the requests of one stream ask for, without end: `choice * keys + key`, from the seed alone.

    How they are taken makes no difference: `take(2)` and `take(3)` give what `take(5)` gives.

    Raises:
        ValueError: no key, no choice, or weights that are negative or all zero.
    """

    def __init__(self, seed: int, stream: Stream) -> None:
        weights = np.array(stream.weights, dtype=np.float64)
        if stream.keys < 1:
            raise ValueError(f"{stream.name} needs at least one key")
        if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0):
            raise ValueError(f"{stream.name}: weights are not negative, and one is above 0")
        self._rng = np.random.default_rng(derive_seed(seed, "operations", stream.name))
        self._keys = stream.keys
        self._key_steps = _zipf_steps(stream.keys) if stream.zipf else None
        self._choice_steps = _steps(weights)

    def take(self, count: int) -> Ints:
        """The next `count` operations."""
        drawn = self._rng.random((count, 2))
        if self._key_steps is None:
            key = (drawn[:, 0] * self._keys).astype(np.int64)  # 1 - 2**-53 at most: never rounds up to `keys`
        else:
            key = np.searchsorted(self._key_steps, drawn[:, 0], side="right")
        if self._choice_steps.size == 1:
            return key
        return np.searchsorted(self._choice_steps, drawn[:, 1], side="right") * self._keys + key


def _steps(weights: Floats) -> Floats:
    """The distribution function over 0, 1, …; it ends in 1 exactly at the last weight above 0, so that no draw passes it."""
    steps = np.cumsum(weights / weights.sum())
    steps[np.flatnonzero(weights)[-1] :] = 1.0
    return steps


@functools.lru_cache(maxsize=2)
def _zipf_steps(keys: int) -> Floats:
    """Made once for all targets with a key space of this size: 8 bytes a key."""
    return _steps(np.arange(1, keys + 1, dtype=np.float64) ** -ZIPF_EXPONENT)
