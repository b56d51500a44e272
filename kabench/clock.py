"""The only reader of time.

`Clock.monotonic_ns` is CLOCK_MONOTONIC, which a timerfd can be armed with; the realtime clock only dates a log.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What the rest of the code knows of time."""

    def monotonic_ns(self) -> int:
        """Nanoseconds of a clock that never goes back; its zero is arbitrary."""
        ...

    def realtime_ns(self) -> int:
        """Nanoseconds since the Unix epoch."""
        ...


class SystemClock:
    """The machine's clocks."""

    monotonic_ns = staticmethod(time.monotonic_ns)
    realtime_ns = staticmethod(time.time_ns)


class ManualClock:
    """A clock that moves only when told to: tests' virtual time.

    Args:
        monotonic_ns: where the monotonic clock stands.
        epoch_ns: what the realtime clock says when the monotonic one is at zero.
    """

    def __init__(self, monotonic_ns: int = 0, epoch_ns: int = 1_700_000_000_000_000_000) -> None:
        self._now_ns = monotonic_ns
        self._epoch_ns = epoch_ns

    def monotonic_ns(self) -> int:
        """Where the clock stands."""
        return self._now_ns

    def realtime_ns(self) -> int:
        """The epoch plus where the clock stands."""
        return self._epoch_ns + self._now_ns

    def advance_to(self, monotonic_ns: int) -> None:
        """Move to `monotonic_ns`; raises ValueError on a step back."""
        if monotonic_ns < self._now_ns:
            raise ValueError(f"a clock does not go back: {self._now_ns} -> {monotonic_ns}")
        self._now_ns = monotonic_ns

    def advance(self, by_ns: int) -> None:
        """Move forward by `by_ns`."""
        self.advance_to(self._now_ns + by_ns)
