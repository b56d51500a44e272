"""The lines of interval logs: HdrHistogram's own, and ours in its comments."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TypeVar

import msgspec

from kabench.core.histogram import Buckets, decode_buckets
from kabench.errors import LogError

LEGEND = b'"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"\n'
WINDOW_MARK = b"#kabench:window "
MERGED_MARK = b"#kabench:merged "
INTERVAL_MARK = b"#kabench:interval "
SEAL_MARK = b"#kabench:seal "

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


def parse_histogram_line(line: bytes) -> tuple[str, Buckets]:
    """The tag and the histogram of a `Tag=` line.

    Raises:
        LogError: it is not one, or its histogram is corrupt or of another geometry.
    """
    fields = line.rstrip(b"\n").split(b",")
    if len(fields) != 5 or not fields[0].startswith(b"Tag="):
        raise LogError("neither a histogram with its tag nor a comment")
    try:
        tag = fields[0][4:].decode()
        _ = [float(number) for number in fields[1:4]]
    except ValueError as error:
        raise LogError(f"a histogram's line does not read: {error}") from error
    return tag, decode_buckets(fields[4])
