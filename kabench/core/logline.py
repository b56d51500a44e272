"""The lines of interval logs: HdrHistogram's own, and ours in its comments."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import TypeVar

import msgspec
import numpy as np

from kabench.core.histogram import Buckets, decode_all
from kabench.errors import LogError

LEGEND = b'"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"\n'
WINDOW_MARK = b"#kabench:window "
MERGED_MARK = b"#kabench:merged "
INTERVAL_MARK = b"#kabench:interval "
SEAL_MARK = b"#kabench:seal "

TAG = b"Tag="
NO_HISTOGRAM = "neither a histogram with its tag nor a comment"

LINES_AHEAD, BYTES_AHEAD = 128, 1 << 16
"""So many lines are read ahead of the one that is asked for, and about so many bytes: numpy's work fits into the caches."""

_HEAP_BYTES = 1 << 23
"""A block of this size, once freed, has the C library keep the memory of arrays up to this size (mallopt(3),
M_MMAP_THRESHOLD). Else every step of decoding gets its own from the kernel anew, page by page: that is most of its time."""

Tagged = tuple[str, Buckets]
"""A histogram and its tag."""

Struct = TypeVar("Struct", bound=msgspec.Struct)


def preamble(start_realtime_ns: int) -> bytes:
    """The lines every HdrHistogram reader expects first."""
    seconds = f"{start_realtime_ns // 1_000_000_000}.{start_realtime_ns // 1_000_000 % 1000:03d}"
    date = datetime.fromtimestamp(start_realtime_ns // 1_000_000_000, UTC)
    return (
        "#[Histogram log format version 1.3]\n"
        f"#[StartTime: {seconds} (seconds since epoch), {date:%Y-%m-%dT%H:%M:%SZ}]\n"
        f"#[BaseTime: {seconds} (seconds since epoch)]\n"
    ).encode()


def histogram_line(tag: str, start_ns: int, length_ns: int, max_ns: int | None, encoded: str) -> bytes:
    """One encoded histogram, as every HdrHistogram reader knows it; empty for one without a highest value."""
    if max_ns is None:
        return b""
    times = f"{start_ns / 1e9:.3f},{length_ns / 1e9:.3f},{max_ns / 1e6:.3f}"
    return f"Tag={tag},{times},{encoded}\n".encode()


def marked(mark: bytes, content: msgspec.Struct) -> bytes:
    """A comment line of ours."""
    return mark + msgspec.json.encode(content) + b"\n"


def unmarked(mark: bytes, line: bytes, kind: type[Struct]) -> Struct:
    """Undo `marked`.

    Raises:
        LogError: it is not what `kind` says.
    """
    try:
        return msgspec.json.decode(line[len(mark) :], type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise LogError(f"{mark.decode().strip()} does not read: {error}") from error


def with_histograms(lines: Iterable[bytes]) -> Iterator[tuple[bytes, Tagged | LogError | None]]:
    """Each line, and the histogram of one that begins with `TAG`, or what is wrong with it; None beside any other.

    Lines are read ahead, so that histograms are decoded many at a time: that costs a fraction.
    """
    np.empty(_HEAP_BYTES, dtype=np.uint8)
    source = iter(lines)
    while piece := _ahead(source):
        found = iter(_parsed([line for line in piece if line.startswith(TAG)]))
        for line in piece:
            yield line, next(found) if line.startswith(TAG) else None


def _ahead(source: Iterator[bytes]) -> list[bytes]:
    piece: list[bytes] = []
    size = 0
    for line in source:
        piece.append(line)
        size += len(line)
        if len(piece) == LINES_AHEAD or size >= BYTES_AHEAD:
            break
    return piece


def _parsed(lines: list[bytes]) -> list[Tagged | LogError]:
    """The tag and the histogram of each `Tag=` line, or that it is none, is corrupt or of another geometry."""
    heads = [_head(line) for line in lines]
    decoded = iter(decode_all([head[1] for head in heads if not isinstance(head, LogError)]))
    found: list[Tagged | LogError] = []
    for head in heads:
        if isinstance(head, LogError):
            found.append(head)
        else:
            buckets = next(decoded)
            found.append(buckets if isinstance(buckets, LogError) else (head[0], buckets))
    return found


def _head(line: bytes) -> tuple[str, bytes] | LogError:
    """The tag and the encoded histogram."""
    fields = line.split(b",")
    if len(fields) != 5:
        return LogError(NO_HISTOGRAM)
    tag, start, length, most, text = fields
    try:
        float(start), float(length), float(most)
        return tag[len(TAG) :].decode(), text.rstrip(b"\n")
    except ValueError as error:
        return LogError(f"a histogram's line does not read: {error}")
