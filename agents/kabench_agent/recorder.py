"""Keeps what became of every request, and folds an interval into histograms once it has closed.

While driving, three numbers are appended a request; counting them with numpy afterwards costs tens of nanoseconds a value
where recording each at once would cost near a microsecond. All targets are folded in one pass, and into the counts in use
alone: whole histograms cost every agent 25 ms a second, and it showed in their lag. All of a request enters the interval in
which it was over.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from kabench.core.health import Health
from kabench.core.histogram import COUNTS, Buckets, clamp, index_of
from kabench.core.hlog import Interval, IntervalNote
from kabench.core.identity import Metric, Outcomes
from kabench.core.schedule import Ints
from kabench_agent.flights import NEVER, Flights, as_ints
from kabench_agent.protocols.base import Verdict
from kabench_agent.vitals import Sample, Vitals

Octets = NDArray[np.uint8]


@dataclass
class _Landed:
    """Requests in the order in which they were over."""

    index: array[int] = field(default_factory=lambda: array("q"))
    at_ns: array[int] = field(default_factory=lambda: array("q"))
    verdict: bytearray = field(default_factory=bytearray)


class Closed(NamedTuple):
    """An interval that nothing is added to any more, not folded yet."""

    number: int
    start_ns: int
    length_ns: int
    landed: _Landed
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

    Attributes:
        closed: intervals to fold, oldest first.
        reconnects: to be counted up by the pools.
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
    ) -> None:
        self.closed: deque[Closed] = deque()
        self.reconnects = 0
        self.end_ns = 0
        self._flights = flights
        self._names = names
        self._window_end_ns = start_ns + window_ns
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
        if index >= self._flights.first:
            landed = self._landed
            landed.index.append(index)
            landed.at_ns.append(at_ns)
            landed.verdict.append(verdict)

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
        return self._start_ns >= self._window_end_ns and not self._landed.index and self._flights.over

    async def fold(self, closed: Closed, pause: Callable[[], Awaitable[None]]) -> Interval:
        """All metrics of all targets in one pass, in steps of some tenths of a millisecond with a `pause` after each."""
        index = as_ints(closed.landed.index)
        verdict = np.frombuffer(closed.landed.verdict, dtype=np.uint8)
        at_ns = as_ints(closed.landed.at_ns)
        targets = as_ints(self._flights.target)[index]
        found = list(self._values(index, at_ns, verdict, targets))
        await pause()
        values_ns, clamped = clamp(np.concatenate([values for _, values, _ in found]))
        count = len(self._names)
        of = np.concatenate([owners + number * count for number, (_, _, owners) in enumerate(found)])
        binned = _binned(values_ns, of)
        await pause()
        histograms = {}
        for owner, buckets in binned:
            metric, target = divmod(owner, count)
            histograms[self._names[target], found[metric][0]] = buckets
        await pause()
        health = msgspec.structs.replace(closed.health, clamped=clamped)
        outcomes = self._outcomes(targets, verdict)
        return Interval(
            IntervalNote(closed.number, closed.start_ns, closed.length_ns, outcomes, health), histograms
        )

    def _values(
        self, index: Ints, at_ns: Ints, verdict: Octets, targets: Ints
    ) -> Iterator[tuple[Metric, Ints, Ints]]:
        """What each metric holds, and the target of each value."""
        due_ns = as_ints(self._flights.due_ns)[index]
        issued_ns = as_ints(self._flights.issued_ns)[index]
        sent_ns = as_ints(self._flights.sent_ns)[index]
        took_ns = at_ns - due_ns
        ok = verdict == Verdict.OK
        late = (verdict == Verdict.TIMEOUT) | (verdict == Verdict.SKIPPED)
        answered = ok | late
        response_ns = np.where(late, np.maximum(took_ns, self._timeout_ns), took_ns)
        reached = sent_ns != NEVER
        failed = verdict >= Verdict.CONNECT
        yield Metric.RESPONSE, response_ns[answered], targets[answered]
        yield Metric.SERVICE, (at_ns - sent_ns)[ok], targets[ok]
        yield Metric.LAG, issued_ns - due_ns, targets
        yield Metric.WAIT, (sent_ns - issued_ns)[reached], targets[reached]
        yield Metric.ERROR, took_ns[failed], targets[failed]

    def _outcomes(self, targets: Ints, verdict: Octets) -> dict[str, Outcomes]:
        """Outcomes of every target in one interval."""
        kinds = max(Verdict) + 1
        counts = np.bincount(targets * kinds + verdict, minlength=len(self._names) * kinds)
        rows = counts.reshape(len(self._names), kinds).tolist()
        return {name: _counted(row) for name, row in zip(self._names, rows, strict=True)}

    def _open(self, start_ns: int) -> None:
        self._start_ns = start_ns
        end_ns = start_ns + self._interval_ns
        if start_ns < self._window_end_ns:
            end_ns = min(end_ns, self._window_end_ns)
        self.end_ns = end_ns
        self._landed = _Landed()

    def _close(self, now_ns: int, length_ns: int) -> None:
        health = self._health(now_ns)
        self.closed.append(Closed(self._next_index, self._start_ns, length_ns, self._landed, health))
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
            max_in_flight=self._flights.take_peak(),
            reconnects=reconnects,
            run_delay_ns=_run_delay_ns(before, after),
        )


def _run_delay_ns(before: Sample, after: Sample) -> int | None:
    if before.run_delay_ns is None or after.run_delay_ns is None:
        return None
    return after.run_delay_ns - before.run_delay_ns


def _binned(values_ns: Ints, of: Ints) -> Iterator[tuple[int, Buckets]]:
    """The values' histogram by owner; only owners with values. Counted at once, cut up as they are asked for."""
    keys, counts = np.unique(of * COUNTS + index_of(values_ns), return_counts=True)
    owners = keys // COUNTS
    firsts = np.flatnonzero(np.diff(owners, prepend=-1)).tolist()

    def cut() -> Iterator[tuple[int, Buckets]]:
        for first, end in pairwise([*firsts, keys.size]):
            owner = int(owners[first])
            yield owner, Buckets(keys[first:end] - owner * COUNTS, counts[first:end])

    return cut()


def _counted(row: Sequence[int]) -> Outcomes:
    """Outcomes from how often each verdict came."""
    errors = {v.name.lower(): row[v] for v in Verdict if v >= Verdict.CONNECT and row[v]}
    error = sum(errors.values())
    ok, timeout = row[Verdict.OK], row[Verdict.TIMEOUT]
    return Outcomes(
        sent=ok + error + timeout,
        ok=ok,
        error=error,
        timeout=timeout,
        skipped=row[Verdict.SKIPPED],
        errors=errors,
    )
