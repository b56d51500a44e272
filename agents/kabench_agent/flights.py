"""The requests of a window, each by its index in the schedule: its instants, and whether it is under way.

Arrays rather than an object a request: nothing is allocated while driving, and the recorder reads them with numpy.
"""

from __future__ import annotations

from array import array

import numpy as np

from kabench.core.schedule import Ints, Schedule

NEVER = -1
"""The instant of what has not happened."""


class Flights:
    """Instants on the agent's monotonic clock, in nanoseconds, by index of the schedule.

    Attributes:
        due_ns, target, op: from the schedule.
        issued_ns, sent_ns: NEVER until then.
        count: how many the schedule has.
        first: index of the first request that is due in the window; before it lies the warm-up.
        in_flight: issued and not over, the waiting ones included.
        bounded: those of them that count towards the agent's bound (all but the null echo's).
        peak: most in flight since the last `take_peak`.
        issued: how many of the schedule were got to.
        connection: number of the connection that it was sent on; 0 until then.
    """

    __slots__ = (
        "_open",
        "bounded",
        "connection",
        "count",
        "due_ns",
        "first",
        "in_flight",
        "issued",
        "issued_ns",
        "op",
        "peak",
        "sent_ns",
        "target",
        "unbounded",
    )

    def __init__(self, schedule: Schedule, start_ns: int, unbounded: int = NEVER) -> None:
        count = schedule.due_ns.size
        self.count = count
        self.due_ns = _array(schedule.due_ns + start_ns)
        self.target = _array(schedule.target)
        self.op = _array(schedule.op)
        self.issued_ns = array("q", [NEVER]) * count
        self.sent_ns = array("q", [NEVER]) * count
        self.connection = array("q", [0]) * count
        self.first = int(np.searchsorted(schedule.due_ns, 0))
        self._open = bytearray(count)
        self.in_flight = 0
        self.bounded = 0
        self.peak = 0
        self.issued = 0
        self.unbounded = unbounded

    @property
    def over(self) -> bool:
        """Everything was issued, and nothing is in flight."""
        return not self.in_flight and self.issued == self.count

    def take_off(self, index: int, target: int) -> None:
        """`index`, of `target`, is under way: the next of the schedule."""
        self.issued = index + 1
        self._open[index] = 1
        self.in_flight += 1
        if target != self.unbounded:
            self.bounded += 1
        if self.in_flight > self.peak:
            self.peak = self.in_flight

    def skip(self, index: int) -> None:
        """`index`, the next of the schedule, is over before it began."""
        self.issued = index + 1

    def land(self, index: int) -> None:
        """`index` is over."""
        self._open[index] = 0
        self.in_flight -= 1
        if self.target[index] != self.unbounded:
            self.bounded -= 1

    def is_open(self, index: int) -> bool:
        """Whether `index` is under way."""
        return self._open[index] == 1

    def first_open(self, begin: int) -> int | None:
        """The first request under way from `begin` on."""
        found = self._open.find(1, begin, self.issued)
        return found if found >= 0 else None

    def take_peak(self) -> int:
        """Most in flight since the last call."""
        peak, self.peak = self.peak, self.in_flight
        return peak


def as_ints(values: array[int]) -> Ints:
    """The same memory, for numpy."""
    return np.frombuffer(values, dtype=np.int64)


def _array(values: Ints) -> array[int]:
    return array("q", np.ascontiguousarray(values, dtype=np.int64).tobytes())
