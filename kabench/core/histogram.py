"""Counts with HdrHistogram's buckets, in numpy: one geometry everywhere, and its standard text form.

The geometry is 1 ns … 60 s with 3 significant digits: 27,648 counts (216 KiB), a value is 0.1% off at most.
Up to 2047 each nanosecond has a bucket of its own; from there every doubling is cut into 1024 buckets. It is
that of the `hdrhistogram` package, value by value, which the tests prove; the package costs 0.6–1 µs a value
where this costs 12–35 ns.

Histograms are merged by adding counts. Another geometry is refused: the package would add it without a word.
"""

from __future__ import annotations

import base64
import binascii
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from kabench.errors import LogError

LOWEST_NS = 1
HIGHEST_NS = 60_000_000_000
DIGITS = 3
GEOMETRY = (LOWEST_NS, HIGHEST_NS, DIGITS)

_SUB_BITS = (2 * 10**DIGITS - 1).bit_length()  # 2048 sub-buckets resolve 2000 values one by one
_SUB_COUNT = 1 << _SUB_BITS
_HALF_BITS = _SUB_BITS - 1
_HALF = 1 << _HALF_BITS
_BUCKETS = HIGHEST_NS.bit_length() - _SUB_BITS + 1
COUNTS = (_BUCKETS + 1) * _HALF
assert COUNTS == 27_648, "the geometry is a promise to every log there is"

_MASK = _SUB_COUNT - 1
_EXPONENT_BIAS = 1023 + _HALF_BITS
_SCATTER_MAX = 256  # fewer values are added one by one: cheaper than binning the range they span

_V2_COOKIE = 0x1C849303
_V2_COMPRESSED_COOKIE = 0x1C849304
_WORD_SIZE_BITS = 0xF0  # the cookies' nibble that V2 does not use; writers put 1 there
_OUTER = struct.Struct(">II")  # cookie, length of the zlib stream
_INNER = struct.Struct(">IIIIQQd")  # cookie, length, offset, digits, lowest, highest, ratio
_MAX_PAYLOAD_BYTES = _INNER.size + COUNTS * 9
_MAX_COUNT = (1 << 55) - 1  # eight bytes of ZigZag LEB128; nine are never needed: a year at 10⁹/s is less

Ints = NDArray[np.int64]


def index_of(values_ns: Ints) -> Ints:
    """The counts' index of each value in 0 … 2³⁶ − 1, vectorised."""
    # a value this small is exact as a double, whose exponent is the bucket
    exponents = (values_ns | _MASK).astype(np.float64).view(np.int64) >> 52
    buckets = exponents - _EXPONENT_BIAS
    indices: Ints = (buckets << _HALF_BITS) + (values_ns >> buckets)
    return indices


def _lowest_values() -> Ints:
    indices = np.arange(COUNTS, dtype=np.int64)
    buckets = np.maximum((indices >> _HALF_BITS) - 1, 0)
    lowest: Ints = (indices - (buckets << _HALF_BITS)) << buckets
    return lowest


LOWEST_OF: Ints = _lowest_values()
"""The lowest value that each count stands for, in nanoseconds."""
HIGHEST_OF: Ints = np.append(LOWEST_OF[1:], 1 << (_BUCKETS + _SUB_BITS - 1)) - 1
"""The highest value that each count stands for; the last is 2³⁶ − 1."""
_MIDDLE_OF: Ints = LOWEST_OF + ((HIGHEST_OF - LOWEST_OF + 1) >> 1)


def _used(counts: Ints) -> NDArray[np.intp]:
    """Indices of the counts that are not zero (six times as fast as asking for non-zero integers)."""
    return np.flatnonzero(counts != 0)


@dataclass(frozen=True, eq=False, slots=True)
class Buckets:
    """Only the counts that are not zero: what costs little to make, encode, decode and add, where thousands pass by.

    Attributes:
        indices: ascending, into `Histogram.counts`.
        counts: as many, all above zero.
    """

    indices: Ints
    counts: Ints

    @classmethod
    def of(cls, values_ns: Ints) -> Buckets:
        """Count values in 0 … HIGHEST_NS (see `clamp`), without an array of all counts."""
        return cls(*np.unique(index_of(values_ns), return_counts=True))

    @classmethod
    def sum(cls, parts: Sequence[Buckets]) -> Buckets:
        """All of them, added."""
        if not parts:
            return NO_BUCKETS
        counts = np.concatenate([part.counts for part in parts])
        indices, of = np.unique(np.concatenate([part.indices for part in parts]), return_inverse=True)
        sums = np.zeros(indices.size, dtype=np.int64)
        np.add.at(sums, of, counts)
        return cls(indices, sums)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Buckets):
            return NotImplemented
        return np.array_equal(self.indices, other.indices) and np.array_equal(self.counts, other.counts)

    __hash__ = None  # type: ignore[assignment]  # arrays have none

    @property
    def total(self) -> int:
        """How many values were counted."""
        return int(self.counts.sum())

    @property
    def max_ns(self) -> int | None:
        """The highest bucket's highest value; None when empty."""
        return int(HIGHEST_OF[self.indices[-1]]) if self.indices.size else None

    def quantile_ns(self, q: float) -> int | None:
        """See `Histogram.quantile_ns`."""
        return self.quantiles_ns((q,))[0]

    def quantiles_ns(self, qs: Iterable[float]) -> list[int | None]:
        """See `Histogram.quantile_ns`."""
        wanted = list(qs)
        if not self.indices.size:
            return [None for _ in wanted]
        sums = np.cumsum(self.counts)
        total = int(sums[-1])
        at = self.indices[np.searchsorted(sums, [_rank(q, total) for q in wanted])]
        return [int((HIGHEST_OF if q else LOWEST_OF)[index]) for q, index in zip(wanted, at, strict=True)]

    def encode(self) -> str:
        """HdrHistogram's V2 compressed form in base64 (`HISTFAAA…`).

        Raises:
            ValueError: a count of 2⁵⁵ or more.
        """
        return next(encode_all([self]))


NO_BUCKETS = Buckets(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))


def clamp(values_ns: Ints) -> tuple[Ints, int]:
    """The values, those beyond HIGHEST_NS lowered to it, and how many those were.

    Raises:
        ValueError: a value is negative.
    """
    if not values_ns.size:
        return values_ns, 0
    if values_ns.min() < 0:
        raise ValueError(f"a duration cannot be negative: {values_ns.min()} ns")
    if values_ns.max() <= HIGHEST_NS:
        return values_ns, 0
    return np.minimum(values_ns, HIGHEST_NS), int(np.count_nonzero(values_ns > HIGHEST_NS))


class Histogram:
    """Counts of nanoseconds.

    Attributes:
        counts: int64, shape (COUNTS,).
        clamped: values recorded beyond HIGHEST_NS, counted as HIGHEST_NS. It does not survive `encode`: the
            log's health has it.
    """

    __slots__ = ("clamped", "counts")
    __hash__ = None  # type: ignore[assignment]  # mutable

    def __init__(self) -> None:
        self.counts: Ints = np.zeros(COUNTS, dtype=np.int64)
        self.clamped = 0

    def record_many(self, values_ns: Sequence[int] | NDArray[np.integer]) -> None:
        """Count each value; those beyond HIGHEST_NS as HIGHEST_NS, and in `clamped`.

        Raises:
            ValueError: a value is negative (nothing is recorded then).
        """
        values, clamped = clamp(np.asarray(values_ns, dtype=np.int64))
        if values.size == 0:
            return
        self.clamped += clamped
        indices = index_of(values)
        if values.size < _SCATTER_MAX:
            np.add.at(self.counts, indices, 1)
        else:
            low = int(indices.min())
            binned = np.bincount(indices - low)
            self.counts[low : low + binned.size] += binned

    def record(self, value_ns: int, count: int = 1) -> None:
        """Count one value `count` times.

        Raises:
            ValueError: the value or the count is negative.
        """
        if value_ns < 0 or count < 0:
            raise ValueError(f"neither a duration nor a count can be negative: {value_ns} ns, {count} times")
        if value_ns > HIGHEST_NS:
            self.clamped += count
            value_ns = HIGHEST_NS
        bucket = (value_ns | _MASK).bit_length() - _SUB_BITS
        self.counts[(bucket << _HALF_BITS) + (value_ns >> bucket)] += count

    def add(self, other: Histogram) -> None:
        """Add the other's counts to these."""
        self.counts += other.counts
        self.clamped += other.clamped

    def add_buckets(self, buckets: Buckets) -> None:
        """Add counts to these."""
        self.counts[buckets.indices] += buckets.counts

    def buckets(self) -> Buckets:
        """The counts in use, copied."""
        used = _used(self.counts)
        return Buckets(used, self.counts[used])

    def __add__(self, other: Histogram) -> Histogram:
        """A new histogram of both."""
        both = Histogram()
        np.add(self.counts, other.counts, out=both.counts)
        both.clamped = self.clamped + other.clamped
        return both

    def __eq__(self, other: object) -> bool:
        """Equal counts; `clamped` is not compared, since it is not in the text form."""
        if not isinstance(other, Histogram):
            return NotImplemented
        return bool(np.array_equal(self.counts, other.counts))

    def __repr__(self) -> str:
        return f"<Histogram of {self.total}: {self.min_ns} … {self.max_ns} ns>"

    @property
    def total(self) -> int:
        """How many values were counted."""
        return int(self.counts.sum())

    @property
    def min_ns(self) -> int | None:
        """The lowest value's bucket's lowest value; None when empty."""
        used = _used(self.counts)
        return int(LOWEST_OF[used[0]]) if used.size else None

    @property
    def max_ns(self) -> int | None:
        """The highest value's bucket's highest value; None when empty; 60.01 s for 60 s."""
        return self.buckets().max_ns

    @property
    def mean_ns(self) -> float | None:
        """The mean, each value taken as its bucket's middle; None when empty."""
        used = _used(self.counts)
        if not used.size:
            return None
        pairs = zip(self.counts[used].tolist(), _MIDDLE_OF[used].tolist(), strict=True)
        weighted: int = sum(count * middle for count, middle in pairs)  # Python's integers do not overflow
        return weighted / self.total

    @property
    def deviation_ns(self) -> float:
        """The standard deviation, each value taken as its bucket's middle; 0 when empty."""
        mean_ns = self.mean_ns
        if mean_ns is None:
            return 0.0
        used = _used(self.counts)
        squares = (_MIDDLE_OF[used] - mean_ns) ** 2
        return float(np.sqrt(np.average(squares, weights=self.counts[used])))

    def quantile_ns(self, q: float) -> int | None:
        """The value at quantile `q` in 0 … 1, by HdrHistogram's rule; None when empty.

        It is the highest value (at q = 0 the lowest) of the first bucket up to which round(q·total), at least
        one, are counted.
        """
        return self.quantiles_ns((q,))[0]

    def quantiles_ns(self, qs: Iterable[float]) -> list[int | None]:
        """`quantile_ns` of each; the counts are summed up once."""
        return self.buckets().quantiles_ns(qs)

    def supported_quantile_ns(self, q: float, beyond: int = 100) -> int | None:
        """`quantile_ns`, or None when fewer than `beyond` values lie beyond it: too few to speak of it."""
        total = self.total
        return self.quantile_ns(q) if total - _rank(q, total) >= beyond else None

    def sparse(self) -> tuple[Ints, Ints]:
        """The buckets in use, for curves: (highest value of each in nanoseconds, count), ascending."""
        used = self.buckets()
        return HIGHEST_OF[used.indices], used.counts

    def encode(self) -> str:
        """HdrHistogram's V2 compressed form in base64 (`HISTFAAA…`).

        Raises:
            ValueError: a count of 2⁵⁵ or more.
        """
        return self.buckets().encode()

    @classmethod
    def decode(cls, text: str | bytes) -> Histogram:
        """Read what `encode` or any HdrHistogram writer with this geometry wrote.

        Raises:
            LogError: it is corrupt, or of another geometry.
        """
        histogram = cls()
        histogram.add_buckets(decode_buckets(text))
        return histogram


def decode_buckets(text: str | bytes) -> Buckets:
    """Like `Histogram.decode`, a fraction of its cost.

    Raises:
        LogError: it is corrupt, or of another geometry.
    """
    return _from_words(_payload(text))


def _rank(q: float, total: int) -> int:
    """How many values lie at or below quantile `q` (the package's arithmetic, to the last bit)."""
    return max(int(min(q * 100.0, 100.0) * total / 100 + 0.5), 1)


def encode_all(histograms: Sequence[Buckets]) -> Iterator[str]:
    """`Buckets.encode` of each: an agent has dozens at a time, and most of one's cost is numpy's own.

    The first step prepares all in one pass; compressing one then takes some ten microseconds.

    Raises:
        ValueError: a count of 2⁵⁵ or more.
    """
    for words in _to_words(histograms):
        inner = _INNER.pack(_V2_COOKIE | 0x10, len(words), 0, DIGITS, LOWEST_NS, HIGHEST_NS, 1.0)
        packed = zlib.compress(inner + words)
        outer = _OUTER.pack(_V2_COMPRESSED_COOKIE | 0x10, len(packed))
        yield base64.b64encode(outer + packed).decode("ascii")


def _to_words(histograms: Sequence[Buckets]) -> list[bytes]:
    """ZigZag LEB128 by histogram: each count, and a run of n zeros as −n; nothing after the last count."""
    sizes = np.array([histogram.indices.size for histogram in histograms], dtype=np.int64)
    ends = np.cumsum(sizes)
    if not ends.size or not ends[-1]:
        return [b""] * len(histograms)
    used = np.concatenate([histogram.indices for histogram in histograms])
    recorded = np.concatenate([histogram.counts for histogram in histograms])
    if recorded.min() < 0 or recorded.max() > _MAX_COUNT:
        raise ValueError("a count is negative, or beyond 2**55 - 1")
    skipped = np.diff(used, prepend=-1) - 1
    firsts = (ends - sizes)[sizes > 0]
    skipped[firsts] = used[firsts]
    words = np.stack([2 * skipped - 1, recorded << 1], axis=1)  # the first is -1 where nothing was skipped
    length = (int(words.max()).bit_length() + 6) // 7 or 1
    rest = words[:, :, None] >> (7 * np.arange(length, dtype=np.int64))
    octets = ((rest & 0x7F) | ((rest >> 7 > 0) << 7)).astype(np.uint8)
    wanted = rest > 0
    wanted[:, :, 0] = True
    wanted &= words[:, :, None] >= 0
    stream = octets[wanted].tobytes()
    stops = np.concatenate([[0], np.cumsum(wanted.sum(axis=(1, 2)))])[np.concatenate([[0], ends])].tolist()
    return [stream[begin:end] for begin, end in pairwise(stops)]


def _payload(text: str | bytes) -> bytes:
    """The ZigZag LEB128 words in an encoded histogram, its headers checked."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise LogError(f"a histogram is not base64: {error}") from error
    if len(raw) < _OUTER.size:
        raise LogError("a histogram is cut short")
    cookie, length = _OUTER.unpack_from(raw)
    if cookie & ~_WORD_SIZE_BITS != _V2_COMPRESSED_COOKIE:
        raise LogError(f"a histogram is not in HdrHistogram's V2 compressed form (cookie {cookie:#x})")
    if length != len(raw) - _OUTER.size:
        raise LogError(f"a histogram has {len(raw) - _OUTER.size} bytes; its header says {length}")
    inflater = zlib.decompressobj()
    try:
        inner = inflater.decompress(raw[_OUTER.size :], _MAX_PAYLOAD_BYTES)
    except zlib.error as error:
        raise LogError(f"a histogram does not decompress: {error}") from error
    if not inflater.eof or inflater.unused_data or len(inner) < _INNER.size:
        raise LogError("a histogram does not decompress to one of this geometry's size")
    return _checked_words(inner)


def _checked_words(inner: bytes) -> bytes:
    cookie, length, offset, digits, lowest, highest, _ratio = _INNER.unpack_from(inner)
    if cookie & ~_WORD_SIZE_BITS != _V2_COOKIE:
        raise LogError(f"a histogram's payload is not V2 (cookie {cookie:#x})")
    if (lowest, highest, digits) != GEOMETRY:
        raise LogError(
            f"a histogram of another geometry: {lowest} … {highest}, {digits} digits; "
            f"ours is {LOWEST_NS} … {HIGHEST_NS} ns, {DIGITS} digits"
        )
    if offset:
        raise LogError(f"a histogram with a normalizing offset ({offset}) is not supported")
    if length != len(inner) - _INNER.size:
        raise LogError(
            f"a histogram's payload has {len(inner) - _INNER.size} bytes where its header says {length}"
        )
    return inner[_INNER.size :]


def _from_words(payload: bytes) -> Buckets:
    """Undo `_to_words`."""
    octets = np.frombuffer(payload, dtype=np.uint8).astype(np.int64)
    if not octets.size:
        return Buckets(octets, octets)
    ends = np.flatnonzero(octets < 0x80)
    if not ends.size or ends[-1] != octets.size - 1:
        raise LogError("a histogram's counts are cut short")
    starts = np.empty_like(ends)
    starts[0] = 0
    starts[1:] = ends[:-1] + 1
    lengths = ends - starts + 1
    if lengths.max() > 8:
        raise LogError("a histogram has a count beyond 2**55 - 1")
    shifts = 7 * (np.arange(octets.size) - np.repeat(starts, lengths))
    zigzag = np.add.reduceat((octets & 0x7F) << shifts, starts)
    words = (zigzag >> 1) ^ -(zigzag & 1)
    steps = np.where(words < 0, -words, 1)
    if steps.max() > COUNTS or steps.sum() > COUNTS:
        raise LogError(f"a histogram has more than {COUNTS} counts")
    at = np.cumsum(steps) - 1
    full = words > 0
    return Buckets(at[full], words[full])
