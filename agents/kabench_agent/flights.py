"""The requests of a window, each by its index in the schedule: its instants, and whether it is under way.

Arrays rather than an object a request: nothing is allocated while driving. They are rings, which hold what is under way and
a little that is due soon: how long the window is makes no difference.
"""

from __future__ import annotations

from array import array

import numpy as np

from kabench.core.schedule import Arrivals, Ints, Schedule

NEVER = -1
"""The instant of what has not happened."""

LOW = 64
"""With fewer requests drawn ahead than these, more are drawn."""

SMALLEST = 4096

AHEAD = 3072
"""So many are drawn before the first is due: a part of them takes as long as ten requests, and there is time then."""


class Flights:
    """Instants on the agent's monotonic clock, in nanoseconds, by index of the schedule *and* `mask`.

    An index stays valid for `is_open` for ever; its place in the arrays is another's once it is over.

    Attributes:
        due_ns, target, op: from the schedule.
        issued_ns, sent_ns: NEVER until then.
        connection: number of the connection that it was sent on.
        mask: of an index, what is its place.
        count: how many the schedule has.
        first: index of the first request that is due in the window; before it lies the warm-up.
        drawn: how many of the schedule are in the arrays, or were.
        in_flight: issued and not over, the waiting ones included.
        bounded: those of them that count towards the agent's bound (all but the null echo's).
        peak: most in flight since the last `take_peak`.
        issued: how many of the schedule were got to.
    """

    __slots__ = (
        "_arrivals",
        "_oldest",
        "_open",
        "_start_ns",
        "bounded",
        "connection",
        "count",
        "drawn",
        "due_ns",
        "first",
        "in_flight",
        "issued",
        "issued_ns",
        "mask",
        "op",
        "peak",
        "sent_ns",
        "target",
        "unbounded",
    )

    def __init__(self, arrivals: Arrivals, start_ns: int, unbounded: int = NEVER) -> None:
        self._arrivals = arrivals
        self._start_ns = start_ns
        self.count = arrivals.count
        self.first = arrivals.first
        self.unbounded = unbounded
        self.mask = SMALLEST - 1
        self.due_ns = _zeros(SMALLEST)
        self.target = _zeros(SMALLEST)
        self.op = _zeros(SMALLEST)
        self.issued_ns = _zeros(SMALLEST)
        self.sent_ns = _zeros(SMALLEST)
        self.connection = _zeros(SMALLEST)
        self._open = bytearray(SMALLEST)
        self._oldest = 0  # no request before this index is under way
        self.drawn = 0
        self.in_flight = 0
        self.bounded = 0
        self.peak = 0
        self.issued = 0
        self.draw(AHEAD)

    @property
    def over(self) -> bool:
        """Everything was issued, and nothing is in flight."""
        return not self.in_flight and self.issued == self.count

    @property
    def next_ns(self) -> int | None:
        """When the next request is due; None: there are no more."""
        return self.due_ns[self.issued & self.mask] if self.issued < self.count else None

    def draw(self, ahead: int = LOW) -> None:
        """Have so many requests ahead at least, if there are as many left."""
        while self.drawn - self.issued < ahead and (part := self._arrivals.next()) is not None:
            self._put(part)

    def take_off(self, index: int, target: int) -> None:
        """`index`, of `target`, is under way: the next of the schedule."""
        self.issued = index + 1
        self._open[index & self.mask] = 1
        self.in_flight += 1
        if target != self.unbounded:
            self.bounded += 1
        if self.in_flight > self.peak:
            self.peak = self.in_flight

    def skip(self, index: int) -> None:
        """`index`, the next of the schedule, is over before it began."""
        self.issued = index + 1

    def late(self, before_ns: int) -> Ints:
        """The next of the schedule, as far as they are drawn and were due before `before_ns`."""
        ahead = np.arange(self.issued, self.drawn)
        return ahead[: np.searchsorted(as_ints(self.due_ns)[ahead & self.mask], before_ns)]

    def send(self, index: int, now_ns: int, connection: int) -> None:
        """`index` is handed to the socket of that connection."""
        at = index & self.mask
        self.sent_ns[at] = now_ns
        self.connection[at] = connection

    def land(self, index: int) -> None:
        """`index` is over."""
        at = index & self.mask
        self._open[at] = 0
        self.in_flight -= 1
        if self.target[at] != self.unbounded:
            self.bounded -= 1

    def operation(self, index: int) -> int:
        """What `index`, which is under way, asks for."""
        return self.op[index & self.mask]

    def is_open(self, index: int) -> bool:
        """Whether `index` is under way."""
        return index >= self._oldest and self._open[index & self.mask] == 1

    def oldest(self) -> int | None:
        """The request that is under way the longest; what lies before it is not looked at again."""
        self._oldest = self._first_open()
        return self._oldest if self._oldest < self.issued else None

    def take_peak(self) -> int:
        """Most in flight since the last call."""
        peak, self.peak = self.peak, self.in_flight
        return peak

    def _first_open(self) -> int:
        """The first index from `_oldest` on that is under way, else the next to be issued."""
        if not self.in_flight:
            return self.issued
        begin, end = self._oldest & self.mask, self.issued & self.mask
        wraps = self._oldest < self.issued and end <= begin
        found = self._open.find(1, begin, self.mask + 1 if wraps else end)
        if found >= 0:
            return self._oldest + found - begin
        found = self._open.find(1, 0, end) if wraps else -1
        return self._oldest + found - begin + self.mask + 1 if found >= 0 else self.issued

    def _put(self, part: Schedule) -> None:
        """Add drawn requests behind the others."""
        size = part.due_ns.size
        self._oldest = self._first_open()
        while self.drawn + size - self._oldest > self.mask + 1:
            self._grow()
        places = (np.arange(self.drawn, self.drawn + size)) & self.mask
        as_ints(self.due_ns)[places] = part.due_ns + self._start_ns
        as_ints(self.target)[places] = part.target
        as_ints(self.op)[places] = part.op
        as_ints(self.issued_ns)[places] = NEVER
        as_ints(self.sent_ns)[places] = NEVER
        as_ints(self.connection)[places] = 0
        self.drawn += size

    def _grow(self) -> None:
        """Twice the room: what was put in moves to its new places."""
        kept = np.arange(self._oldest, self.drawn)
        old, new = kept & self.mask, kept & (2 * self.mask + 1)
        for name in ("due_ns", "target", "op", "issued_ns", "sent_ns", "connection"):
            longer = _zeros(2 * (self.mask + 1))
            as_ints(longer)[new] = as_ints(getattr(self, name))[old]
            setattr(self, name, longer)
        is_open = np.zeros(2 * (self.mask + 1), dtype=np.uint8)
        is_open[new] = np.frombuffer(self._open, dtype=np.uint8)[old]
        self._open = bytearray(is_open.tobytes())
        self.mask = 2 * self.mask + 1


def as_ints(values: array[int]) -> Ints:
    """The same memory, for numpy."""
    return np.frombuffer(values, dtype=np.int64)


def _zeros(count: int) -> array[int]:
    return array("q", bytes(8 * count))
