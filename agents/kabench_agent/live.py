"""What the controller sees of a window while it runs: intervals summed by kind, handed to whoever listens.

Everything here happens between the load's own callbacks, so the work is cut into pieces of some tenths of a millisecond.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping

from kabench.core import hlog
from kabench.core.health import Health
from kabench.core.histogram import Buckets
from kabench.core.identity import NULL_TARGET, Kind, Metric, Outcomes
from kabench.wire.messages import Interval, KindInterval
from kabench_agent.turns import Pause, no_pause

BACKLOG = 16
"""Lines that a listener may be behind; then the oldest are dropped."""


class Live:
    """The lines of one window, for any number of listeners.

    Args:
        window: its name.
        kinds: each target's kind.
    """

    def __init__(self, window: str, kinds: Mapping[str, Kind]) -> None:
        self._window, self._kinds = window, dict(kinds)
        self._totals = _Sums()
        self._count = 0
        self._listeners: set[asyncio.Queue[Interval | None]] = set()
        self._last: Interval | None = None
        self._ended = False

    async def interval(self, interval: hlog.Interval, step: Pause) -> None:
        """Take in a closed interval, and pass it on if anyone listens; `step` is called after each step of it."""
        self._count = interval.note.index + 1
        sums = _Sums()
        for name, outcomes in interval.note.outcomes.items():
            sums.count(self._kinds[name], outcomes)
        for (name, metric), buckets in interval.histograms.items():
            if metric is Metric.RESPONSE:
                sums.responses.setdefault(self._kinds[name], []).append(buckets)
            elif metric is Metric.LAG and name != NULL_TARGET:
                sums.lags.append(buckets)
        self._totals.take(sums)
        if self._listeners:
            await step()
            self._offer(await sums.line(self._window, interval.note.index, interval.note.health, step))

    async def sealed(self, seal: hlog.Seal) -> None:
        """The window's last line."""
        self._totals.outcomes = {}
        for name, outcomes in seal.totals.items():
            self._totals.count(self._kinds[name], outcomes)
        self._last = await self._totals.line(self._window, self._count, seal.health, no_pause, sealed=True)
        self._offer(self._last)

    def end(self) -> None:
        """No line follows; without `sealed` before it, the listeners see the stream end without its last line."""
        self._ended = True
        self._offer(None)

    async def lines(self, silence_s: float) -> AsyncIterator[Interval | None]:
        """The lines from now on; the last one alone if the window is over. None after each `silence_s` without one."""
        queue: asyncio.Queue[Interval | None] = asyncio.Queue(BACKLOG)
        if self._ended:
            if self._last is not None:
                yield self._last
            return
        self._listeners.add(queue)
        try:
            while True:
                try:
                    async with asyncio.timeout(silence_s):
                        line = await queue.get()
                except TimeoutError:
                    yield None
                    continue
                if line is None:
                    return
                yield line
        finally:
            self._listeners.discard(queue)

    def _offer(self, line: Interval | None) -> None:
        for queue in self._listeners:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(line)


class _Sums:
    """Sums over targets, by kind. Histograms are only collected, and added up where a line is wanted."""

    def __init__(self) -> None:
        self.outcomes: dict[str, Outcomes] = {}
        self.responses: dict[str, list[Buckets]] = {}
        self.lags: list[Buckets] = []

    def count(self, kind: str, outcomes: Outcomes) -> None:
        """Add a target's outcomes."""
        self.outcomes[kind] = self.outcomes.get(kind, Outcomes()) + outcomes

    def take(self, other: _Sums) -> None:
        """Add the other's."""
        for kind, outcomes in other.outcomes.items():
            self.count(kind, outcomes)
        for kind, parts in other.responses.items():
            self.responses.setdefault(kind, []).extend(parts)
        self.lags += other.lags

    async def line(
        self, window: str, index: int, health: Health, step: Pause, *, sealed: bool = False
    ) -> Interval:
        """The message, in steps."""
        kinds = {}
        for kind, outcomes in sorted(self.outcomes.items()):
            response = Buckets.sum(self.responses.get(kind, []))
            await step()
            kinds[str(kind)] = KindInterval(outcomes, response.encode() if response.indices.size else "")
            await step()
        lag = Buckets.sum(self.lags)
        await step()
        return Interval(window, index, kinds, health, lag.quantile_ns(0.99), sealed)
