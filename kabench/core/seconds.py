"""Second by second: what became of the requests to each target, all agents' counts added, and percentiles of the sum.

By completion, an entry an interval of the logs; what came in after the window is its drain. A second holds far fewer
requests than a window, and each entry has their number beside its percentiles: nothing is withheld here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from kabench.core.histogram import NO_BUCKETS, Buckets
from kabench.core.hlog import Header, Interval
from kabench.core.identity import Kind, Metric, Outcomes
from kabench.core.result import SecondsRecord

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}
METRICS = (Metric.RESPONSE, Metric.SERVICE)
HELD_BACK = 8
"""So many agents' histograms of a second wait to be added together."""


class Where(NamedTuple):
    """Whose seconds: of one target, or of all of a kind (`target` is "")."""

    run: str
    window: str
    kind: str
    target: str


@dataclass
class _Window:
    phase: str
    block: int
    start_realtime_ns: int
    window_ns: int
    interval_ns: int


@dataclass
class _Second:
    outcomes: Outcomes = field(default_factory=Outcomes)
    agents: int = 0
    histograms: dict[Metric, list[Buckets]] = field(default_factory=dict)

    def add(self, metric: Metric, buckets: Buckets) -> None:
        held = self.histograms.setdefault(metric, [])
        held.append(_compact(buckets))
        if len(held) == HELD_BACK:
            held[:] = [_compact(Buckets.sum(held))]

    def total(self, metric: Metric) -> Buckets:
        return Buckets.sum(self.histograms.get(metric, []))


class Seconds:
    """A growing sum of agents' logs. Its memory is that of the seconds, however many agents there are."""

    def __init__(self) -> None:
        self._windows: dict[tuple[str, str], _Window] = {}
        self._seconds: dict[Where, dict[int, _Second]] = {}

    def follow(self, header: Header, intervals: Iterable[Interval]) -> Iterator[Interval]:
        """The same intervals, each added as it passes. A log must come once only."""
        known = self._windows.setdefault(
            (header.run, header.window),
            _Window(
                header.phase, header.block, header.start_realtime_ns, header.window_ns, header.interval_ns
            ),
        )
        known.start_realtime_ns = min(known.start_realtime_ns, header.start_realtime_ns)
        targets = [target for target in header.targets if target.kind is not Kind.NULL]
        kinds = [target.kind for target in targets]
        places = [
            (target.name, [own, all_] if kinds.count(target.kind) > 1 else [own])
            for target in targets
            for own in [Where(header.run, header.window, str(target.kind), target.name)]
            for all_ in [own._replace(target="")]
        ]
        for interval in intervals:
            seen: set[Where] = set()
            for name, wheres in places:
                for where in wheres:
                    self._add(where, name, interval, first=where not in seen)
                    seen.add(where)
            yield interval

    def _add(self, where: Where, name: str, interval: Interval, *, first: bool) -> None:
        second = self._seconds.setdefault(where, {}).setdefault(interval.note.index, _Second())
        second.agents += first
        second.outcomes += interval.note.outcomes.get(name, Outcomes())
        for metric in METRICS:
            buckets = interval.histograms.get((name, metric), NO_BUCKETS)
            if buckets.indices.size:
                second.add(metric, buckets)

    def records(self) -> Iterator[tuple[str, SecondsRecord]]:
        """(run, its record) of every target and kind, sorted; a kind before its targets."""
        for where in sorted(self._seconds):
            window, seconds = self._windows[where.run, where.window], self._seconds[where]
            ordered = [seconds.get(index, _Second()) for index in range(max(seconds) + 1)]
            yield (
                where.run,
                SecondsRecord(
                    window=where.window,
                    phase=window.phase,
                    block=window.block,
                    kind=where.kind,
                    target=where.target,
                    start_realtime_ns=window.start_realtime_ns,
                    window_ns=window.window_ns,
                    interval_ns=window.interval_ns,
                    agents=[second.agents for second in ordered],
                    ok=[second.outcomes.ok for second in ordered],
                    error=[second.outcomes.error for second in ordered],
                    timeout=[second.outcomes.timeout for second in ordered],
                    skipped=[second.outcomes.skipped for second in ordered],
                    response_ns=_quantiles(second.total(Metric.RESPONSE) for second in ordered),
                    service_ns=_quantiles(second.total(Metric.SERVICE) for second in ordered),
                ),
            )


def _compact(buckets: Buckets) -> Buckets:
    """A copy in six bytes a count: indices fit into two, and a second's counts into four."""
    counts = buckets.counts
    small = counts.astype(np.uint32) if counts.max() < 1 << 32 else counts.copy()
    return Buckets(buckets.indices.astype(np.uint16), small)  # type: ignore[arg-type]  # only ever summed up


def _quantiles(histograms: Iterable[Buckets]) -> dict[str, list[int | None]]:
    found: dict[str, list[int | None]] = {name: [] for name in (*QUANTILES, "max")}
    for buckets in histograms:
        for name, value in zip(QUANTILES, buckets.quantiles_ns(QUANTILES.values()), strict=True):
            found[name].append(value)
        found["max"].append(buckets.max_ns)
    return found


HEAD = (
    "run,window,phase,block,kind,target,second,start_realtime_ns,in_window,agents,ok,error,timeout,skipped,"
    + ",".join(f"{metric}_{name}_ns" for metric in METRICS for name in (*QUANTILES, "max"))
    + "\n"
)
"""The columns of `series.csv`. What has no value (no request was over in that second) is empty."""


def csv_lines(records: Iterable[tuple[str, SecondsRecord]]) -> Iterator[str]:
    """`series.csv`: a row for each second of each target; `target` is a kind's sum where it is empty.

    Names hold neither commas nor quotes, so nothing needs quoting.
    """
    yield HEAD
    for run, record in records:
        front = f"{run},{record.window},{record.phase},{record.block},{record.kind},{record.target}"
        within = -(-record.window_ns // record.interval_ns)
        for index, agents in enumerate(record.agents):
            values: list[int | None] = [
                index,
                record.start_realtime_ns + index * record.interval_ns,
                int(index < within),
                agents,
                *(getattr(record, name)[index] for name in ("ok", "error", "timeout", "skipped")),
                *(
                    of[name][index]
                    for of in (record.response_ns, record.service_ns)
                    for name in (*QUANTILES, "max")
                ),
            ]
            yield f"{front},{','.join('' if value is None else str(value) for value in values)}\n"
