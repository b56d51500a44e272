"""When every request of a window is due, and what it asks for: drawn ahead of time, from one seed.

Each stream (one target) draws from seeds of its own, derived by its name, so that adding a target moves no other one's
arrivals. With one seed for all agents they would send at the same instants: an agent's seed is its own.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kabench.core.profile import Floats, Points, Profile
from kabench.core.seeds import derive_seed

Ints = NDArray[np.int64]

ARRIVALS = ("poisson", "constant")
NS_PER_S = 1_000_000_000
ZIPF_EXPONENT = 0.99
"""As in YCSB: of 1,000 keys, the first gets one operation in eight."""

PIECE = 128
"""Arrivals of one stream that are drawn at once, about: some 50 µs."""

PIECE_NS = 500_000
"""Beyond 256,000/s, as many as are due in so long: at rates that nobody can send, drawing must not be the limit too."""

NO_MORE_NS = 1 << 62
"""Later than any arrival."""


@dataclass(frozen=True)
class Stream:
    """The arrivals at one target.

    Attributes:
        name: the target's.
        rate_per_s: mean arrivals a second; 0 gives none.
        weights: of the choices that an operation is one of (commands, paths), relative to each other.
        keys: size of the key space that operations draw from; 1 where there is none.
        zipf: whether low keys are drawn more often than high ones (`ZIPF_EXPONENT`); else all evenly.
        steady: the rate stays where others' change.
    """

    name: str
    rate_per_s: float
    weights: tuple[float, ...] = (1.0,)
    keys: int = 1
    zipf: bool = False
    steady: bool = False


@dataclass(frozen=True)
class Schedule:
    """Requests by due time, a part of them or all; the three arrays have the same length.

    Attributes:
        due_ns: relative to the window's start, ascending, in [-warm_up_ns, window_ns).
        target: index of the stream.
        op: the operation, as `Operations` draws it.
    """

    due_ns: Ints
    target: Ints
    op: Ints


class Arrivals:
    """Every arrival of the warm-up and the window, drawn a part at a time. The same arguments give the same arrivals.

    How many there will be is known beforehand, since all counts are drawn first: an hour of them needs no more memory than
    a second.

    Args:
        seed: the agent's own.
        arrivals: "poisson", or "constant": evenly spaced, each stream from a random phase of its own.
        streams: their order decides between requests that are due at the same nanosecond.
        warm_up_ns: what comes before the window's start, at zero.
        window_ns: length of the window.
        profile: how the rates change within it; those of streams that are `steady` do not.

    Attributes:
        planned: by stream, how many are due in the window.
        count: of all, the warm-up's included.
        first: index of the first that is due in the window.

    Raises:
        ValueError: an unknown kind of arrivals, a negative rate or time, a name that stands twice, or no profile.
    """

    def __init__(
        self,
        seed: int,
        arrivals: str,
        streams: Sequence[Stream],
        *,
        warm_up_ns: int,
        window_ns: int,
        profile: Points = (),
    ) -> None:
        _check(arrivals, streams, warm_up_ns, window_ns)
        changing, even = Profile(profile, warm_up_ns, window_ns), Profile((), warm_up_ns, window_ns)
        kind = _Poisson if arrivals == "poisson" else _Constant
        self._sources = [kind(seed, stream, even if stream.steady else changing) for stream in streams]
        self.planned = {
            stream.name: source.in_window for stream, source in zip(streams, self._sources, strict=True)
        }
        self.first = sum(source.in_warm_up for source in self._sources)
        self.count = self.first + sum(self.planned.values())
        self._given = 0

    def next(self) -> Schedule | None:
        """The next part, some hundred requests at least where there are as many; None: there are no more."""
        while self._given < self.count:
            until_ns = min((source.known_until_ns for source in self._sources), default=NO_MORE_NS)
            part = _merged([source.take(until_ns) for source in self._sources])
            for source in self._sources:
                if source.known_until_ns == until_ns < NO_MORE_NS:
                    source.draw()
            if part.due_ns.size:
                self._given += part.due_ns.size
                return part
        return None


def compute(
    seed: int,
    arrivals: str,
    streams: Sequence[Stream],
    *,
    warm_up_ns: int,
    window_ns: int,
    profile: Points = (),
) -> Schedule:
    """All of `Arrivals` at once."""
    drawn = Arrivals(seed, arrivals, streams, warm_up_ns=warm_up_ns, window_ns=window_ns, profile=profile)
    parts = list(iter(drawn.next, None))
    empty = np.empty(0, dtype=np.int64)
    return Schedule(
        np.concatenate([empty, *(part.due_ns for part in parts)]),
        np.concatenate([empty, *(part.target for part in parts)]),
        np.concatenate([empty, *(part.op for part in parts)]),
    )


def _merged(drawn: Sequence[tuple[Ints, Ints]]) -> Schedule:
    """One schedule of each stream's (due, operation)."""
    if len(drawn) == 1:  # nothing to sort
        ((due_ns, op),) = drawn
        return Schedule(due_ns, np.zeros(due_ns.size, dtype=np.int64), op)
    empty = np.empty(0, dtype=np.int64)
    due_ns = np.concatenate([empty, *(due for due, _ in drawn)])
    target = np.repeat(np.arange(len(drawn), dtype=np.int64), [due.size for due, _ in drawn])
    order = np.argsort(due_ns, kind="stable")
    return Schedule(due_ns[order], target[order], np.concatenate([empty, *(op for _, op in drawn)])[order])


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


class _Source:
    """One stream's arrivals, piece by piece. No piece has both warm-up and window in it.

    Attributes:
        in_warm_up, in_window: how many there will be.
        known_until_ns: all that is due before it was drawn.
    """

    def __init__(self, seed: int, stream: Stream, profile: Profile) -> None:
        self._rng = np.random.default_rng(derive_seed(seed, "arrivals", stream.name))
        self._operations = Operations(seed, stream)
        self._profile = profile
        self._due_ns = self._op = np.empty(0, dtype=np.int64)
        self._piece = 0
        self._counts, self._until, self._warm_up_pieces = self._plan(stream.rate_per_s / NS_PER_S)
        self.in_warm_up = int(self._counts[: self._warm_up_pieces].sum())
        self.in_window = int(self._counts[self._warm_up_pieces :].sum())
        self.known_until_ns = NO_MORE_NS if self._counts.size == 0 else -self._profile.warm_up_ns

    def _plan(self, per_ns: float) -> tuple[Ints, Floats, int]:
        """How many arrivals each piece has, the integral at its end, and how many pieces the warm-up has."""
        raise NotImplementedError

    def _places(self, piece: int, count: int) -> Floats:
        """Where the integral is at each arrival of a piece, ascending."""
        raise NotImplementedError

    def take(self, until_ns: int) -> tuple[Ints, Ints]:
        """(due, operation) of what was drawn and is due before `until_ns`, once."""
        size = self._due_ns.size if until_ns >= NO_MORE_NS else int(np.searchsorted(self._due_ns, until_ns))
        taken = self._due_ns[:size], self._op[:size]
        self._due_ns, self._op = self._due_ns[size:], self._op[size:]
        return taken

    def draw(self) -> None:
        """The next piece."""
        piece, count = self._piece, int(self._counts[self._piece])
        self._piece += 1
        if self._piece == self._counts.size:
            self.known_until_ns = NO_MORE_NS
        else:
            self.known_until_ns = int(np.floor(self._profile.instants_ns(self._until[piece : piece + 1])[0]))
        if not count:
            return
        due_ns = np.floor(self._profile.instants_ns(self._places(piece, count))).astype(np.int64)
        warm_up = piece < self._warm_up_pieces  # a rounding must not carry anything over the border
        lowest, highest = (
            (-self._profile.warm_up_ns, -1) if warm_up else (0, max(self._profile.window_ns - 1, 0))
        )
        self._due_ns = np.concatenate([self._due_ns, np.clip(due_ns, lowest, highest)])
        self._op = np.concatenate([self._op, self._operations.take(count)])


class _Poisson(_Source):
    """In each piece a Poisson count of uniform places: that is a Poisson process, without summing rounded gaps."""

    def _plan(self, per_ns: float) -> tuple[Ints, Floats, int]:
        middle, total = self._profile.warm_up_area_ns, self._profile.total_ns
        pieces = [math.ceil(area * per_ns / _piece(per_ns)) for area in (middle, total - middle)]
        borders = np.concatenate(
            [np.linspace(0, middle, pieces[0] + 1), np.linspace(middle, total, pieces[1] + 1)[1:]]
        )
        return self._rng.poisson(np.diff(borders) * per_ns), borders[1:], pieces[0]

    def _places(self, piece: int, count: int) -> Floats:
        begin = float(self._until[piece - 1]) if piece else 0.0
        places: Floats = begin + np.sort(self._rng.random(count)) * (self._until[piece] - begin)
        return places


class _Constant(_Source):
    """One every 1/rate of the integral, from a random phase. A double is exact to 1 ns for 100 days of them."""

    def _plan(self, per_ns: float) -> tuple[Ints, Floats, int]:
        self._phase = self._rng.random()
        self._period_ns = 1 / per_ns if per_ns else math.inf
        before, piece = self._before(self._profile.warm_up_area_ns), _piece(per_ns)
        sizes = [
            min(piece, last - begin)
            for first, last in ((0, before), (before, self._before(self._profile.total_ns)))
            for begin in range(first, last, piece)
        ]
        counts = np.array(sizes, dtype=np.int64)
        self._numbers = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts)])
        return counts, self._at(self._numbers[1:]), math.ceil(before / piece)

    def _places(self, piece: int, count: int) -> Floats:
        return self._at(self._numbers[piece] + np.arange(count))

    def _at(self, numbers: Ints) -> Floats:
        places: Floats = numbers.astype(np.float64)
        return (self._phase + places) * self._period_ns if numbers.size else places

    def _before(self, area_ns: float) -> int:
        """How many arrivals come before the integral reaches `area_ns`."""
        if math.isinf(self._period_ns):
            return 0
        guess = max(0, math.ceil(area_ns / self._period_ns - self._phase))
        while guess and (self._phase + guess - 1) * self._period_ns >= area_ns:
            guess -= 1
        while (self._phase + guess) * self._period_ns < area_ns:
            guess += 1
        return guess


def _piece(per_ns: float) -> int:
    """How many arrivals a piece has at that rate."""
    return max(PIECE, round(per_ns * PIECE_NS))


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
