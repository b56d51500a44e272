"""Wakes the engine when the next thing is due.

libuv's timers tick in milliseconds and may fire a millisecond early; a timerfd armed with the absolute due time is an
order of magnitude better. Where there is none, `call_later` serves, and the results say so (`Pacer.name`).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import select
import statistics
import sys
import time
from collections.abc import Callable
from typing import Protocol

from kabench.clock import Clock, SystemClock

LONGEST_AWAKE_NS = 50_000
COST_TRIES = 8
COST_AHEAD_NS = 100_000
"""Sooner than anything else that the CPU has a timer for, as a rule: only then does the hardware's have to be set."""


class Pacer(Protocol):
    """Calls `wake` at (never much before) the instant it is armed for; one instant at a time."""

    name: str
    """What `Hello.pacer` and the log's header say."""

    def start(self, wake: Callable[[], None]) -> None:
        """Begin, in the running event loop."""
        ...

    def arm(self, at_ns: int) -> None:
        """Wake at `at_ns` of the monotonic clock, at once if it has passed; replaces what was armed."""
        ...

    def stop(self) -> None:
        """Wake no more. Idempotent."""
        ...


class _Timerfd:
    """The three calls, from `os` (Python 3.13) or from the C library."""

    _NONBLOCK, _CLOEXEC, _ABSTIME = os.O_NONBLOCK, os.O_CLOEXEC, 1

    def __init__(self) -> None:
        create = getattr(os, "timerfd_create", None)
        self._settime_ns = getattr(os, "timerfd_settime_ns", None)
        if create is not None:
            self.fd: int = create(time.CLOCK_MONOTONIC, flags=self._NONBLOCK | self._CLOEXEC)
            return
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._spec = (ctypes.c_long * 4)()  # it_interval, it_value: seconds and nanoseconds of each
        self.fd = self._checked(
            self._libc.timerfd_create(int(time.CLOCK_MONOTONIC), self._NONBLOCK | self._CLOEXEC)
        )

    def set(self, at_ns: int) -> None:
        """Arm with an absolute instant; zero would disarm."""
        at_ns = max(at_ns, 1)
        if self._settime_ns is not None:
            self._settime_ns(self.fd, flags=self._ABSTIME, initial=at_ns)
            return
        self._spec[2], self._spec[3] = divmod(at_ns, 1_000_000_000)
        self._checked(self._libc.timerfd_settime(self.fd, self._ABSTIME, self._spec, None))

    def cost_ns(self) -> int:
        """The CPU time that a sleep takes: to set the timer, to go to sleep and to wake up. Found out in a millisecond."""
        found = []
        with select.epoll() as waiting:
            waiting.register(self.fd, select.EPOLLIN)
            for _ in range(COST_TRIES):
                before_ns = time.thread_time_ns()
                self.set(time.monotonic_ns() + COST_AHEAD_NS)
                waiting.poll()
                os.read(self.fd, 8)
                found.append(time.thread_time_ns() - before_ns)
        return round(statistics.median(found))

    @staticmethod
    def _checked(result: int) -> int:
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result


class TimerfdPacer:
    """A timerfd watched by the loop; for what is nearer than a sleep pays, turns of the loop.

    To set a timer, go to sleep and wake up takes a few microseconds of CPU time on bare metal, and 20 to 40 in many a
    virtual machine, which it leaves for that. An instant that comes sooner than that is waited for awake: dearer it is not,
    the loop reads replies meanwhile, and the CPU, which did not go to sleep, is there at once.

    Raises:
        OSError: (from `start`) the system has none to give.
    """

    name = "timerfd"

    def __init__(self) -> None:
        self._timer: _Timerfd | None = None
        self._armed_ns = -1
        self._near_ns = 0  # what lies nearer is waited for awake
        self._awake_for_ns: int | None = None
        self._turning = False

    def start(self, wake: Callable[[], None]) -> None:
        """Make the timer and have the loop watch it."""
        self._timer = _Timerfd()
        self._near_ns = min(self._timer.cost_ns(), LONGEST_AWAKE_NS)
        self._wake = wake
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._timer.fd, self._ready)

    def arm(self, at_ns: int) -> None:
        """Set the timer, where that pays; nothing is called where it is set so already."""
        if self._timer is None:
            return
        if at_ns - time.monotonic_ns() < self._near_ns:
            self._awake_for_ns = at_ns
            if not self._turning:
                self._turning = True
                self._loop.call_soon(self._turn)
            return
        self._awake_for_ns = None
        if at_ns != self._armed_ns:
            self._timer.set(at_ns)
            self._armed_ns = at_ns

    def stop(self) -> None:
        """Close the timer."""
        timer, self._timer = self._timer, None
        if timer is not None:
            self._loop.remove_reader(timer.fd)
            os.close(timer.fd)

    def _turn(self) -> None:
        """Another turn of the loop has passed."""
        at_ns = self._awake_for_ns
        if self._timer is None or at_ns is None:
            self._turning = False
        elif time.monotonic_ns() < at_ns:
            self._loop.call_soon(self._turn)
        else:
            self._turning, self._awake_for_ns = False, None
            self._wake()

    def _ready(self) -> None:
        """Setting the timer anew takes back that it went off: it is read only where it is not set."""
        if self._timer is None:
            return
        self._armed_ns = -1
        self._wake()
        if self._armed_ns < 0 and self._timer is not None:
            with contextlib.suppress(BlockingIOError):  # it was armed anew between the poll and now
                os.read(self._timer.fd, 8)


class CallLaterPacer:
    """The loop's own timers: milliseconds, and up to one early. The engine then finds nothing due, and arms again."""

    name = "call_later"

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._handle: asyncio.TimerHandle | None = None

    def start(self, wake: Callable[[], None]) -> None:
        """Keep the loop and what to call."""
        self._wake = wake
        self._loop = asyncio.get_running_loop()

    def arm(self, at_ns: int) -> None:
        """Have the loop call."""
        self.stop()
        self._handle = self._loop.call_later(max(0, at_ns - self._clock.monotonic_ns()) / 1e9, self._wake)

    def stop(self) -> None:
        """Cancel."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None


def choose_pacer(clock: Clock | None = None) -> Pacer:
    """The best pacer that this system has, on the machine's monotonic clock."""
    if sys.platform.startswith("linux"):
        return TimerfdPacer()
    return CallLaterPacer(clock or SystemClock())
