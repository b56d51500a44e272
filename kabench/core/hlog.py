"""An agent's log of one window: HdrHistogram's interval log, with what kabench adds in comments.

Grammar (UTF-8, one record a line, ``\\n`` ends)::

    #[Histogram log format version 1.3]
    #[StartTime: 1764000000.123 (seconds since epoch), 2025-11-24T16:00:00Z]
    #[BaseTime: 1764000000.123 (seconds since epoch)]
    #kabench:window {Header as JSON}
    "StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"
    Tag=TARGET.METRIC,0.000,1.000,0.345,HISTF…        one for every histogram that is not empty; Interval_Max in ms
    #kabench:interval {IntervalNote as JSON}          closes interval `index`: what stands before it is whole
    …
    #kabench:seal {Seal as JSON}                      last line; `sha256` is of all bytes before this line

Interval lines start at the window's start; intervals after the window's end are the drain. A file without its seal is
read up to the last `#kabench:interval` line and reported as unsealed. Other readers pass over the comments.

Merged logs have the tag PHASE.KIND.METRIC, one interval a histogram, and say `#kabench:merged` where an agent's log says
`#kabench:window`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from kabench.core.health import Health
from kabench.core.histogram import Histogram
from kabench.core.identity import Kind, Metric, Outcomes

LOG_VERSION = 1


class LoggedTarget(msgspec.Struct, frozen=True):
    """A target as the log knows it: the cell's part that is not the agent's."""

    name: str
    workload: str
    node: str
    kind: Kind
    rate_per_s: float
    connections: int
    planned: int


class Header(msgspec.Struct, frozen=True):
    """Whose log this is, of which window, and how it was driven.

    `start_ns` and `start_realtime_ns` are the window's start on the agent's two clocks; `geometry` is (lowest, highest,
    digits) in nanoseconds.
    """

    version: int
    run: str
    scenario_sha256: str
    window: str
    phase: str
    block: int
    agent: str
    instance: str
    boot_id: str
    seed: int
    arrivals: str
    start_ns: int
    start_realtime_ns: int
    warm_up_ns: int
    window_ns: int
    interval_ns: int
    timeout_ns: int
    pacer: str
    targets: tuple[LoggedTarget, ...]
    geometry: tuple[int, int, int]


class IntervalNote(msgspec.Struct, frozen=True):
    """What closes an interval: outcomes by target, by completion (`planned` is 0 here: see the header), and health."""

    index: int
    start_ns: int
    length_ns: int
    outcomes: dict[str, Outcomes]
    health: Health


class Seal(msgspec.Struct, frozen=True):
    """The window ended as it should: totals by target (with `planned`), health over all, digest of what stands before.

    `started_ns` is when the first request of the warm-up was due minus when the agent began to pace: its start skew.
    """

    intervals: int
    totals: dict[str, Outcomes]
    health: Health
    start_skew_ns: int
    sha256: str = ""


@dataclass(frozen=True)
class Interval:
    """A closed interval as the engine hands it over and the reader gives it back."""

    note: IntervalNote
    histograms: dict[tuple[str, Metric], Histogram] = field(default_factory=dict)
