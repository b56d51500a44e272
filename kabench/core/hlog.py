r"""An agent's log of one window: HdrHistogram's interval log, with what kabench adds in comments.

Grammar (UTF-8, one record a line, ``\n`` ends)::

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

What an agent's log promises, and `LogReader` checks: outcomes add up, and the histograms hold as many values as the
outcomes say (response = ok + time-outs + skipped, service = ok, error = errors; lag = planned, over the window). In a
closed loop nothing is planned ahead and nothing can be late: `planned` is counted, and there is no lag and no wait.

Merged logs have the tag PHASE.KIND.METRIC, one interval a histogram, and say `#kabench:merged` where an agent's log
says `#kabench:window`: see `merged_log`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import msgspec

from kabench.core.health import Health
from kabench.core.histogram import GEOMETRY, Buckets
from kabench.core.identity import NAME, Kind, Metric, Outcomes
from kabench.core.logline import (
    INTERVAL_MARK,
    LEGEND,
    MERGED_MARK,
    NO_HISTOGRAM,
    SEAL_MARK,
    WINDOW_MARK,
    Tagged,
    histogram_line,
    marked,
    preamble,
    unmarked,
    with_histograms,
)
from kabench.errors import LogError

LOG_VERSION = 1


class LoggedTarget(msgspec.Struct, frozen=True):
    """A target as the log knows it: the cell's part that is not the agent's.

    `planned` is None in a closed loop: the seal says how many there were.
    """

    name: str
    workload: str
    node: str
    kind: Kind
    rate_per_s: float
    connections: int
    planned: int | None


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
    loop: str = "open"


class IntervalNote(msgspec.Struct, frozen=True):
    """What closes an interval: outcomes by target, by completion, and health.

    `start_ns` is on the agent's monotonic clock. `planned` is 0 here (see the header), and `sent` = ok + error + timeout.
    """

    index: int
    start_ns: int
    length_ns: int
    outcomes: dict[str, Outcomes]
    health: Health


class ConnectionFigure(msgspec.Struct, frozen=True):
    """What one connection saw in the window: its ok requests and their mean service time.

    `number` counts the agent's connections to the target from 0 (one that is made anew keeps it); `local` is its own end
    when it was last made, HOST:PORT, so that it can be found in the server's list of clients.
    """

    number: int
    local: str
    requests: int
    mean_service_ns: int


class Extremes(msgspec.Struct, frozen=True):
    """The fastest and the slowest connection to a target, of those with a fair share of its requests."""

    fastest: ConnectionFigure
    slowest: ConnectionFigure


class Seal(msgspec.Struct, frozen=True):
    """The window ended as it should: totals by target (with `planned`), health over all, digest of what stands before.

    `start_skew_ns` is when the agent began to pace minus when the warm-up was to begin: positive when it was late.
    `connections`: by target, where it had at least two.
    """

    intervals: int
    totals: dict[str, Outcomes]
    health: Health
    start_skew_ns: int
    sha256: str = ""
    connections: dict[str, Extremes] = {}


@dataclass(frozen=True)
class Interval:
    """A closed interval as the engine hands it over and the reader gives it back; empty histograms are left out."""

    note: IntervalNote
    histograms: dict[tuple[str, Metric], Buckets] = field(default_factory=dict)


@dataclass(frozen=True)
class WindowLog:
    """An agent's log, read whole. `seal` is None unless it is there and holds; `problem`: what is wrong, or ""."""

    header: Header
    intervals: tuple[Interval, ...]
    seal: Seal | None
    problem: str


class LogWriter:
    """Turns a window into the log's bytes, piece by piece: `begin`, `interval` …, `seal`."""

    def __init__(self) -> None:
        self._sha = hashlib.sha256()
        self._header: Header | None = None

    def begin(self, header: Header) -> bytes:
        """The lines before the first interval.

        Raises:
            ValueError: a target's name fits no tag, or stands twice.
        """
        _check_targets(header)
        self._header = header
        return self._hashed(preamble(header.start_realtime_ns) + marked(WINDOW_MARK, header) + LEGEND)

    def interval(self, interval: Interval) -> bytes:
        """The lines of a closed interval. Intervals come in order.

        Raises:
            ValueError: it starts before the window.
        """
        return b"".join(self.lines(interval))

    def lines(self, interval: Interval) -> Iterator[bytes]:
        """Like `interval`, a line at a time: an agent drives targets in between.

        Raises:
            ValueError: it starts before the window.
        """
        assert self._header is not None, "begin comes first"
        note = interval.note
        start_ns = note.start_ns - self._header.start_ns
        if start_ns < 0:
            raise ValueError(f"interval {note.index} starts {-start_ns} ns before its window")
        for (target, metric), histogram in interval.histograms.items():
            tag, text = f"{target}.{metric}", histogram.encode()
            yield self._hashed(histogram_line(tag, start_ns, note.length_ns, histogram.max_ns, text))
        yield self._hashed(marked(INTERVAL_MARK, note))

    def seal(self, seal: Seal) -> bytes:
        """The last line; its digest is filled in here."""
        return marked(SEAL_MARK, msgspec.structs.replace(seal, sha256=self._sha.hexdigest()))

    def _hashed(self, data: bytes) -> bytes:
        self._sha.update(data)
        return data


class LogReader:
    """Reads an agent's log line by line; iterating gives its closed intervals, a few in memory at a time.

    Attributes:
        header: whose log it is.
        seal: None until the end was reached and the seal holds.
        problem: after the last interval: what is wrong with the log, "" if nothing. Reading stops at what is wrong.

    Raises:
        LogError: (from the constructor) there is no header of ours that can be read.
    """

    def __init__(self, lines: Iterable[bytes]) -> None:
        self.seal: Seal | None = None
        self.problem = ""
        self._lines = iter(lines)
        self._sha = hashlib.sha256()
        self._number = 0
        self._index = 0
        self.header = self._read_header()
        self._rest = with_histograms(self._lines)
        self._names = {target.name for target in self.header.targets}
        self._keys = {f"{name}.{metric}": (name, metric) for name in self._names for metric in Metric}
        self._sums: dict[str, Outcomes] = {name: Outcomes() for name in self._names}
        self._lags: dict[str, int] = dict.fromkeys(self._names, 0)

    def __iter__(self) -> Iterator[Interval]:
        open_: dict[tuple[str, Metric], Buckets] = {}
        for line, found in self._rest:
            self._number += 1
            try:
                if self.seal is not None:
                    raise LogError("something stands after the seal")
                note = self._line(line, found, open_)
            except LogError as error:
                torn = "cut off, or " if not line.endswith(b"\n") else ""
                self.problem = f"line {self._number}: {torn}{error}; {self._index} whole intervals were read"
                return
            if note is not None:
                yield Interval(note, open_)
                open_ = {}
        if self.seal is None:
            self.problem = f"unsealed: it ends after {self._index} whole intervals"

    def _read_header(self) -> Header:
        for line in self._lines:
            self._number += 1
            self._sha.update(line)
            if line.startswith(WINDOW_MARK):
                return _checked_header(unmarked(WINDOW_MARK, line, Header))
            if line.startswith(MERGED_MARK):
                raise LogError("a merged log, not an agent's")
            if not line.startswith(b"#"):
                raise LogError(
                    "no kabench header, which would say of which run, window and targets this log is"
                )
        raise LogError("it ends before its header")

    def _line(
        self, line: bytes, found: Tagged | LogError | None, open_: dict[tuple[str, Metric], Buckets]
    ) -> IntervalNote | None:
        """Take in one line; the note if it closes an interval."""
        if line.startswith(SEAL_MARK):
            self.seal = self._checked_seal(line, bool(open_))
            return None
        self._sha.update(line)
        if line.startswith(INTERVAL_MARK):
            return self._checked_note(unmarked(INTERVAL_MARK, line, IntervalNote), open_)
        if isinstance(found, LogError):
            raise found
        if found is not None:
            tag, buckets = found
            key = self._keys.get(tag)
            if key is None or key in open_:
                raise LogError(f"the tag {tag!r} belongs to no target of the header, or stands twice")
            open_[key] = buckets
        elif line != LEGEND and not line.startswith(b"#["):
            raise LogError(NO_HISTOGRAM)
        return None

    def _checked_note(self, note: IntervalNote, open_: dict[tuple[str, Metric], Buckets]) -> IntervalNote:
        if note.index != self._index:
            raise LogError(f"interval {note.index} stands where {self._index} should")
        totals = {key: buckets.total for key, buckets in open_.items()}
        if not set(note.outcomes) <= self._names:
            raise LogError(f"interval {note.index} counts for a target that is not in the header")
        for name in self._names:
            outcomes = note.outcomes.get(name, Outcomes())
            flaw = _flaw(outcomes, {metric: totals.get((name, metric), 0) for metric in Metric})
            if flaw:
                raise LogError(f"interval {note.index}, {name}: {flaw}")
        for name, outcomes in note.outcomes.items():
            self._sums[name] += outcomes
        for name in self._names:
            self._lags[name] += totals.get((name, Metric.LAG), 0)
        self._index += 1
        return note

    def _checked_seal(self, line: bytes, dangling: bool) -> Seal:
        seal = unmarked(SEAL_MARK, line, Seal)
        if seal.sha256 != self._sha.hexdigest():
            raise LogError("the content is not what was sealed: its SHA-256 differs")
        if seal.intervals != self._index or dangling:
            raise LogError(f"{seal.intervals} intervals were sealed, {self._index} are whole")
        if set(seal.totals) != self._names:
            raise LogError("other targets were sealed than the header names")
        for target in self.header.targets:
            total = seal.totals[target.name]
            planned = total.planned if target.planned is None else target.planned
            whole = msgspec.structs.replace(self._sums[target.name], planned=planned)
            if _bare(total) != _bare(whole) or not total.reconciled:
                raise LogError(
                    f"{target.name}: counts do not reconcile: sealed {total}, intervals hold {whole}"
                )
            if self._lags[target.name] != (target.planned or 0):
                raise LogError(
                    f"{target.name}: {self._lags[target.name]} lags for {target.planned or 0} planned requests"
                )
        return seal


def read_log(lines: Iterable[bytes]) -> WindowLog:
    """Read an agent's log; where many are read, `LogReader` or `totals.read_totals` keep one interval in memory at a time.

    Raises:
        LogError: there is no header of ours that can be read.
    """
    reader = LogReader(lines)
    intervals = tuple(reader)
    return WindowLog(reader.header, intervals, reader.seal, reader.problem)


def sum_health(notes: Iterable[IntervalNote]) -> Health:
    """Health over several intervals: the CPU share by their length, the greatest in flight, sums of the rest."""
    seen = list(notes)
    length_ns = sum(note.length_ns for note in seen)
    delays = [note.health.run_delay_ns for note in seen]
    known = [delay for delay in delays if delay is not None]
    return Health(
        cpu_share=sum(note.health.cpu_share * note.length_ns for note in seen) / length_ns
        if length_ns
        else 0.0,
        collections=sum(note.health.collections for note in seen),
        max_in_flight=max((note.health.max_in_flight for note in seen), default=0),
        reconnects=sum(note.health.reconnects for note in seen),
        clamped=sum(note.health.clamped for note in seen),
        run_delay_ns=sum(known) if known and len(known) == len(delays) else None,
    )


def _bare(outcomes: Outcomes) -> Outcomes:
    """Without the classes of errors that never came."""
    return msgspec.structs.replace(outcomes, errors={name: n for name, n in outcomes.errors.items() if n})


def _flaw(outcomes: Outcomes, totals: dict[Metric, int]) -> str:
    """Why one interval's counts of one target cannot be true; "" if they can."""
    numbers = (
        outcomes.sent,
        outcomes.ok,
        outcomes.error,
        outcomes.timeout,
        outcomes.skipped,
        *outcomes.errors.values(),
    )
    if min(numbers) < 0 or outcomes.planned:
        return "a negative count, or planned requests in an interval"
    if outcomes.sent != outcomes.ok + outcomes.error + outcomes.timeout:
        return "sent is not ok + error + timeout"
    if outcomes.error != sum(outcomes.errors.values()):
        return "the errors' classes do not add up"
    expected = {
        Metric.RESPONSE: outcomes.ok + outcomes.timeout + outcomes.skipped,
        Metric.SERVICE: outcomes.ok,
        Metric.ERROR: outcomes.error,
    }
    for metric, count in expected.items():
        if totals[metric] != count:
            return f"{metric} holds {totals[metric]} values for {count} requests"
    return ""


def _check_targets(header: Header) -> None:
    names = [target.name for target in header.targets]
    for name in (header.phase, *names, *(target.workload for target in header.targets)):
        if not NAME.fullmatch(name):
            raise ValueError(f"{name!r} fits no tag: use lower-case letters, digits and hyphens")
    if len(set(names)) != len(names):
        raise ValueError("a target's name stands twice")


def _checked_header(header: Header) -> Header:
    if header.version != LOG_VERSION:
        raise LogError(f"a log of version {header.version}; this kabench reads version {LOG_VERSION}")
    if header.geometry != GEOMETRY:
        raise LogError(f"a log of another geometry, {header.geometry}; ours is {GEOMETRY}")
    try:
        _check_targets(header)
    except ValueError as error:
        raise LogError(f"the header does not read: {error}") from error
    return header
