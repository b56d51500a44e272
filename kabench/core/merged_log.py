"""The log of a merge: one histogram a phase, kind and metric, and the windows that are in it.

::

    #[Histogram log format version 1.3] …              the usual first lines; StartTime is the earliest window's
    #kabench:merged {MergedHeader as JSON}
    "StartTimestamp",…
    Tag=PHASE.KIND.METRIC,0.000,LENGTH,MAX,HISTF…      what stands; LENGTH: seconds of windows that it covers
    Tag=void.PHASE.KIND.METRIC,…                       what is void, kept apart
    #kabench:seal {MergedSeal as JSON}

The members make a merged log as good as the logs it was made of: each window still counts once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec

from kabench.core.histogram import GEOMETRY, Histogram
from kabench.core.hlog import LOG_VERSION
from kabench.core.identity import NAME, Kind, Metric, Outcomes, WindowId
from kabench.core.logline import (
    LEGEND,
    MERGED_MARK,
    SEAL_MARK,
    histogram_line,
    marked,
    preamble,
    unmarked,
    with_histograms,
)
from kabench.errors import LogError

VOID = "void"


class Member(msgspec.Struct, frozen=True, order=True):
    """A window of an agent that was merged. `sha256` is of its whole log; `judged`: a journal decided on `void`."""

    id: WindowId
    phase: str
    block: int
    window_ns: int
    start_realtime_ns: int
    scenario_sha256: str
    sha256: str
    sealed: bool
    judged: bool
    void: bool
    kinds: tuple[Kind, ...]


class Part(msgspec.Struct, frozen=True):
    """The outcomes of one phase and kind; the histograms are on their own lines."""

    void: bool
    phase: str
    kind: Kind
    outcomes: Outcomes


class MergedHeader(msgspec.Struct, frozen=True):
    """What is in a merged log, sorted."""

    version: int
    geometry: tuple[int, int, int]
    members: tuple[Member, ...]
    parts: tuple[Part, ...]


class MergedSeal(msgspec.Struct, frozen=True):
    """The digest of all bytes before this line."""

    sha256: str


Key = tuple[bool, str, Kind, Metric]
"""(void, phase, kind, metric)."""


def tag_of(key: Key) -> str:
    """`PHASE.KIND.METRIC`, with `void.` before it for what does not stand."""
    void, phase, kind, metric = key
    return f"{VOID + '.' if void else ''}{phase}.{kind}.{metric}"


def key_of(tag: str) -> Key:
    """Undo `tag_of`.

    Raises:
        LogError: it is no such tag.
    """
    fields = tag.split(".")
    void = len(fields) == 4 and fields[0] == VOID
    try:
        phase, kind, metric = fields[1:] if void else fields
        return void, phase, Kind(kind), Metric(metric)
    except ValueError as error:
        raise LogError(f"{tag!r} is not a tag of a merged log") from error


def covered_ns(members: Iterable[Member], void: bool, phase: str, kind: Kind) -> int:
    """The length of the windows that hold this phase and kind; agents share a window, so each counts once."""
    windows: dict[tuple[str, str], int] = {}
    for member in members:
        if (member.void, member.phase) == (void, phase) and kind in member.kinds:
            window = (member.id.run, member.id.window)
            windows[window] = max(windows.get(window, 0), member.window_ns)
    return sum(windows.values())


def write_merged(header: MergedHeader, histograms: dict[Key, Histogram]) -> bytes:
    """The whole log; equal content gives equal bytes."""
    start_ns = min((member.start_realtime_ns for member in header.members), default=0)
    lines = [preamble(start_ns), marked(MERGED_MARK, header), LEGEND]
    for key in sorted(histograms):
        length_ns = covered_ns(header.members, *key[:3])
        found = histograms[key]
        lines.append(histogram_line(tag_of(key), 0, length_ns, found.max_ns, found.encode()))
    body = b"".join(lines)
    return body + marked(SEAL_MARK, MergedSeal(hashlib.sha256(body).hexdigest()))


def read_merged(lines: Iterable[bytes]) -> tuple[MergedHeader, dict[Key, Histogram]]:
    """Read what `write_merged` wrote. It is whole or nothing: what it was made of can be merged again.

    Raises:
        LogError: it is not one, or is cut or changed.
    """
    digest = hashlib.sha256()
    header: MergedHeader | None = None
    seal: MergedSeal | None = None
    histograms: dict[Key, Histogram] = {}
    for line, found in with_histograms(lines):
        if seal is not None:
            raise LogError("something stands after the seal")
        if isinstance(found, LogError):
            raise found
        if line.startswith(SEAL_MARK):
            seal = unmarked(SEAL_MARK, line, MergedSeal)
            continue
        digest.update(line)
        if line.startswith(MERGED_MARK):
            header = unmarked(MERGED_MARK, line, MergedHeader)
        elif found is not None:
            tag, buckets = found
            histograms.setdefault(key_of(tag), Histogram()).add_buckets(buckets)
    if header is None or seal is None:
        raise LogError("a merged log that is cut; merge the logs it was made of again")
    if seal.sha256 != digest.hexdigest():
        raise LogError("a merged log that was changed: its SHA-256 differs")
    _check(header, histograms)
    return header, histograms


def _check(header: MergedHeader, histograms: dict[Key, Histogram]) -> None:
    if header.version != LOG_VERSION or header.geometry != GEOMETRY:
        raise LogError(f"a merged log of version {header.version} and geometry {header.geometry}")
    names = {member.phase for member in header.members} | {part.phase for part in header.parts}
    if not all(NAME.fullmatch(name) for name in names):
        raise LogError("a merged log with a phase whose name fits no tag")
    parts = {(part.void, part.phase, part.kind) for part in header.parts}
    if len(parts) != len(header.parts) or not {key[:3] for key in histograms} <= parts:
        raise LogError("a merged log whose histograms are not those its header names")
    for part in header.parts:
        response = histograms.get((part.void, part.phase, part.kind, Metric.RESPONSE))
        answered = part.outcomes.ok + part.outcomes.timeout + part.outcomes.skipped
        if not part.outcomes.reconciled or (response.total if response else 0) != answered:
            raise LogError(f"{part.phase}.{part.kind}: counts do not reconcile")
