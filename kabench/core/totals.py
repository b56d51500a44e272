"""An agent's log summed up over its intervals, by target."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from kabench.core.health import Health
from kabench.core.histogram import Buckets, Histogram
from kabench.core.hlog import Header, Interval, IntervalNote, LoggedTarget, LogReader, Seal, sum_health
from kabench.core.identity import Metric, Outcomes, WindowId

PARTS_AT_ONCE = 32
"""So many intervals' histograms are added together: one by one, numpy's own cost would be most of it."""


@dataclass
class TargetTotals:
    """One target over the whole window; histograms that are empty are left out."""

    target: LoggedTarget
    outcomes: Outcomes = field(default_factory=Outcomes)
    histograms: dict[Metric, Histogram] = field(default_factory=dict)


@dataclass(frozen=True)
class WindowTotals:
    """An agent's log, summed over its intervals: by target, in the header's order."""

    header: Header
    targets: dict[str, TargetTotals]
    health: Health
    seal: Seal | None
    problem: str
    intervals: int

    @property
    def window_id(self) -> WindowId:
        """What is counted once."""
        return WindowId(self.header.run, self.header.window, self.header.agent)


def read_totals(lines: Iterable[bytes]) -> WindowTotals:
    """Sum a log up over its intervals, one in memory at a time.

    Outcomes have `planned` from the header where the log is sealed; else it is what the intervals hold, so that they
    reconcile all the same.

    Raises:
        LogError: there is no header of ours that can be read.
    """
    reader = LogReader(lines)
    return sum_up(reader, reader)


def sum_up(reader: LogReader, intervals: Iterable[Interval]) -> WindowTotals:
    """Like `read_totals`, where the caller looks at the intervals of `reader` as they pass."""
    targets = {target.name: TargetTotals(target) for target in reader.header.targets}
    notes: list[IntervalNote] = []
    parts: dict[tuple[str, Metric], list[Buckets]] = {}
    for interval in intervals:
        notes.append(msgspec.structs.replace(interval.note, outcomes={}))
        for name, outcomes in interval.note.outcomes.items():
            targets[name].outcomes += outcomes
        for key, buckets in interval.histograms.items():
            held_back = parts.setdefault(key, [])
            held_back.append(buckets)
            if len(held_back) == PARTS_AT_ONCE:
                _add(targets, key, held_back)
                held_back.clear()
    for key, held_back in parts.items():
        _add(targets, key, held_back)
    for name, totals in targets.items():
        held = totals.outcomes
        planned = reader.seal.totals[name].planned if reader.seal else held.sent + held.skipped
        totals.outcomes = msgspec.structs.replace(held, planned=planned)
    health = reader.seal.health if reader.seal else sum_health(notes)
    return WindowTotals(reader.header, targets, health, reader.seal, reader.problem, len(notes))


def _add(targets: dict[str, TargetTotals], key: tuple[str, Metric], parts: list[Buckets]) -> None:
    name, metric = key
    targets[name].histograms.setdefault(metric, Histogram()).add_many(parts)
