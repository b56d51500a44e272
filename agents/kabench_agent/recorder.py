"""Keeps what became of every request, and folds an interval into histograms once it has closed.

While driving, five numbers are appended a request; counting them with numpy afterwards costs tens of nanoseconds a value
where recording each at once would cost near a microsecond (see `folding`). All of a request enters the interval in which it
was over.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from kabench.core.health import Health
from kabench.core.hlog import Interval, IntervalNote
from kabench.core.schedule import Ints
from kabench_agent.flights import NEVER, Flights, as_ints
from kabench_agent.folding import Connections, Folding
from kabench_agent.landed import Landed, Runs, pack_landed, pack_skipped
from kabench_agent.protocols.base import Verdict
from kabench_agent.turns import Pause
from kabench_agent.vitals import Sample, Vitals


class Closed(NamedTuple):
    """An interval that nothing is added to any more, not folded yet."""

    number: int
    start_ns: int
    length_ns: int
    landed: Landed
    runs: list[Runs]
    health: Health


class Recorder:
    """The intervals of one window.

    Args:
        flights: the requests.
        names: of the targets, by their index.
        start_ns, window_ns: the window. After its end, intervals of the drain follow on.
        interval_ns: length of an interval; the window's last one may be shorter.
        timeout_ns: what time-outs and skipped requests enter the response time with, at least.
        vitals: sampled at each interval's end.
        on_closed: called when an interval has closed.
        in_closed_loop: how many targets are driven in a closed loop; they are the first of `names`.
        also_in_flight: how many requests of theirs are in flight now.
        most_connections: to one target.

    Attributes:
        closed: intervals to fold, oldest first.
        reconnects: to be counted up by the pools.
        runs: of the open interval, by target in a closed loop: appended to by their pools.
        connections: what each connection saw, in the intervals folded so far.
    """

    def __init__(
        self,
        flights: Flights,
        names: Sequence[str],
        *,
        start_ns: int,
        window_ns: int,
        interval_ns: int,
        timeout_ns: int,
        vitals: Vitals,
        on_closed: Callable[[], None],
        in_closed_loop: int = 0,
        also_in_flight: Callable[[], int] = lambda: 0,
        most_connections: int = 1,
    ) -> None:
        self.closed: deque[Closed] = deque()
        self.reconnects = 0
        self.end_ns = 0
        self._flights = flights
        self._names = names
        self.connections = Connections(len(names), most_connections)
        self._also_in_flight = also_in_flight
        self._in_closed_loop = in_closed_loop
        self._window_start_ns, self._window_end_ns = start_ns, start_ns + window_ns
        self._interval_ns = interval_ns
        self._timeout_ns = timeout_ns
        self._vitals = vitals
        self._on_closed = on_closed
        self._next_index = 0
        self._start_ns = start_ns
        self._began = False
        self._cpu_share = 0.0
        self._open(start_ns)

    def add(self, index: int, at_ns: int, verdict: Verdict) -> None:
        """Request `index` was over at `at_ns`; the warm-up's are forgotten. Calls come in the order of `at_ns`."""
        if at_ns >= self.end_ns:
            self.roll(at_ns)
        flights = self._flights
        if index >= flights.first:
            landed, at = self._landed, index & flights.mask
            landed.due_ns.append(flights.due_ns[at])
            landed.issued_ns.append(flights.issued_ns[at])
            landed.sent_ns.append(flights.sent_ns[at])
            landed.at_ns.append(at_ns)
            landed.what.append(pack_landed(flights.connection[at], flights.target[at], verdict))

    def skip(self, indices: Ints, at_ns: int) -> None:
        """Requests that were got to at `at_ns`, too late to be sent."""
        if at_ns >= self.end_ns:
            self.roll(at_ns)
        flights = self._flights
        counted = indices[indices >= flights.first]
        places = counted & flights.mask
        landed, now = self._landed, np.full(counted.size, at_ns, dtype=np.int64)
        landed.due_ns.frombytes(as_ints(flights.due_ns)[places].tobytes())
        landed.issued_ns.frombytes(now.tobytes())
        landed.sent_ns.frombytes(np.full(counted.size, NEVER, dtype=np.int64).tobytes())
        landed.at_ns.frombytes(now.tobytes())
        landed.what.frombytes(pack_skipped(as_ints(flights.target)[places]).tobytes())

    def roll(self, now_ns: int) -> None:
        """Begin the window where `now_ns` has reached it, and close the intervals whose end it has reached."""
        if not self._began:
            if now_ns < self._start_ns:
                return
            self._began = True
            self._sampled_ns = now_ns
            self._sample = self._vitals.sample()
            self.reconnects = 0
            self._flights.take_peak()
            self.runs = self._no_runs()  # the warm-up's
        while now_ns >= self.end_ns and not self._drained:
            end_ns = self.end_ns
            self._close(now_ns, end_ns - self._start_ns)
            self._open(end_ns)

    def finish(self, now_ns: int) -> None:
        """Close the last interval, unless it would hold nothing but time after the window."""
        self.roll(now_ns)
        if not self._drained:
            self._close(now_ns, now_ns - self._start_ns + 1)  # so that the last instant lies inside

    @property
    def next_ns(self) -> int:
        """When to call `roll` next."""
        return self.end_ns if self._began else self._start_ns

    @property
    def _drained(self) -> bool:
        """The window is over, and so is every request: no interval is needed any more."""
        nothing = not self._landed.what and not any(runs.what for runs in self.runs)
        over = self._flights.over and not self._also_in_flight()
        return self._start_ns >= self._window_end_ns and nothing and over

    async def fold(self, closed: Closed, step: Pause) -> Interval:
        """Histograms and outcomes of all targets; `step` is called after each step of it: see `folding`."""
        folding = Folding(self._names, self._timeout_ns, self.connections)
        await folding.scheduled(closed.landed, step)
        for target, runs in enumerate(closed.runs):
            await folding.closed_loop(target, runs, self._window_start_ns, step)
        health = msgspec.structs.replace(closed.health, clamped=folding.clamped)
        note = IntervalNote(closed.number, closed.start_ns, closed.length_ns, folding.outcomes, health)
        return Interval(note, folding.histograms)

    def _open(self, start_ns: int) -> None:
        self._start_ns = start_ns
        end_ns = start_ns + self._interval_ns
        if start_ns < self._window_end_ns:
            end_ns = min(end_ns, self._window_end_ns)
        self.end_ns = end_ns
        self._landed = Landed()
        self.runs = self._no_runs()

    def _no_runs(self) -> list[Runs]:
        return [Runs() for _ in range(self._in_closed_loop)]

    def _close(self, now_ns: int, length_ns: int) -> None:
        health = self._health(now_ns)
        self.closed.append(
            Closed(self._next_index, self._start_ns, length_ns, self._landed, self.runs, health)
        )
        self._next_index += 1
        self._on_closed()

    def _health(self, now_ns: int) -> Health:
        """Since the last sample. Where several intervals close at once, they share it: sums are the first's."""
        before, spent_ns = self._sample, now_ns - self._sampled_ns
        after = before
        if spent_ns:
            after = self._sample = self._vitals.sample()
            self._sampled_ns = now_ns
            self._cpu_share = (after.cpu_ns - before.cpu_ns) / spent_ns
        reconnects, self.reconnects = self.reconnects, 0
        return Health(
            cpu_share=self._cpu_share,
            collections=after.collections - before.collections,
            max_in_flight=self._flights.take_peak() + self._also_in_flight(),
            reconnects=reconnects,
            run_delay_ns=_run_delay_ns(before, after),
        )


def _run_delay_ns(before: Sample, after: Sample) -> int | None:
    if before.run_delay_ns is None or after.run_delay_ns is None:
        return None
    return after.run_delay_ns - before.run_delay_ns
