"""Counts with HdrHistogram's buckets, in numpy: one geometry everywhere, and its standard text form.

The geometry is 1 ns … 60 s with 3 significant digits: 27,648 counts (216 KiB), a value is 0.1% off at most.
Up to 2047 each nanosecond has a bucket of its own; from there every doubling is cut into 1024 buckets. It is
that of the `hdrhistogram` package, value by value, which the tests prove; the package costs 0.6–1 µs a value
where this costs 12–35 ns.

Histograms are merged by adding counts. Another geometry is refused: the package would add it without a word.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from kabench.core.inflate import from_base64, inflated
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
_WINDOW_BITS, _MEMORY_LEVEL = 12, 5
"""Of zlib when it compresses. The usual 15 and 8 take 256 KiB for each histogram, got from the kernel page by page: eight
times as dear, and a few hundred bytes get no shorter."""
_FEW_COUNTS = 128
"""So many are encoded one by one."""
_MAX_PAYLOAD_BYTES = _INNER.size + COUNTS * 9
_COUNT_REFUSED = "a count is negative, or beyond 2**55 - 1"
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
        known_total: their sum, where whoever made them knew it; else -1.
    """

    indices: Ints
    counts: Ints
    known_total: int = -1

    @classmethod
    def of(cls, values_ns: Ints) -> Buckets:
        """Count values in 0 … HIGHEST_NS (see `clamp`), without an array of all counts."""
        return cls(*np.unique(index_of(values_ns), return_counts=True))

    @classmethod
    def sum(cls, parts: Sequence[Buckets]) -> Buckets:
        """All of them, added."""
        if not parts:
            return NO_BUCKETS
        at = np.concatenate([part.indices for part in parts])
        if not at.size:
            return NO_BUCKETS
        sums = np.zeros(int(at.max()) + 1, dtype=np.int64)  # far cheaper than to sort the indices
        np.add.at(sums, at, np.concatenate([part.counts for part in parts]))
        used = np.flatnonzero(sums != 0)
        return cls(used.astype(np.int64), sums[used])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Buckets):
            return NotImplemented
        return np.array_equal(self.indices, other.indices) and np.array_equal(self.counts, other.counts)

    __hash__ = None  # type: ignore[assignment]  # arrays have none

    @property
    def total(self) -> int:
        """How many values were counted."""
        return int(self.counts.sum()) if self.known_total < 0 else self.known_total

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
        words = _words(self)
        inner = _INNER.pack(_V2_COOKIE | 0x10, len(words), 0, DIGITS, LOWEST_NS, HIGHEST_NS, 1.0)
        small = zlib.compressobj(method=zlib.DEFLATED, wbits=_WINDOW_BITS, memLevel=_MEMORY_LEVEL)
        packed = small.compress(inner + words) + small.flush()
        outer = _OUTER.pack(_V2_COMPRESSED_COOKIE | 0x10, len(packed))
        return base64.b64encode(outer + packed).decode("ascii")


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

    def add_many(self, parts: Sequence[Buckets]) -> None:
        """Add the counts of all of them."""
        if parts:
            indices = np.concatenate([part.indices for part in parts])
            np.add.at(self.counts, indices, np.concatenate([part.counts for part in parts]))

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

    def corrected(self, expected_interval_ns: int) -> Histogram:
        """A copy that has, for each value above the interval, also those that it kept from being measured.

        HdrHistogram's correction for coordinated omission (`copyCorrectedForCoordinatedOmission`): a request that took
        v where one was meant to leave every i kept others back, which would have taken v − i, v − 2i, … down to i. Each
        value is taken as its bucket's highest. It is an estimate for closed loops; an open loop has measured them.

        Raises:
            ValueError: the interval is not above zero.
        """
        if expected_interval_ns <= 0:
            raise ValueError(f"an interval must be above zero, not {expected_interval_ns} ns")
        copy = Histogram()
        copy.add(self)
        used = self.buckets()
        for value_ns, count in zip(HIGHEST_OF[used.indices].tolist(), used.counts.tolist(), strict=True):
            missing_ns = value_ns - expected_interval_ns
            if missing_ns >= expected_interval_ns:
                copy.counts += count * _every(expected_interval_ns, missing_ns)
        return copy

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


def _every(interval_ns: int, highest_ns: int) -> Ints:
    """How many of `highest_ns`, `highest_ns` − interval, … down to the interval each bucket holds."""
    top = np.minimum(HIGHEST_OF, highest_ns)
    bottom = np.maximum(LOWEST_OF, interval_ns)
    last = (
        highest_ns - bottom
    ) // interval_ns  # steps down to the lowest that is still in the bucket, or above it
    first = -((top - highest_ns) // interval_ns)  # steps down to the highest in the bucket
    counts: Ints = np.where(top >= bottom, np.maximum(last - first + 1, 0), 0)
    return counts


def decode_buckets(text: str | bytes) -> Buckets:
    """Like `Histogram.decode`, a fraction of its cost.

    Raises:
        LogError: it is corrupt, or of another geometry.
    """
    (decoded,) = decode_all([text])
    if isinstance(decoded, LogError):
        raise decoded
    return decoded


def decode_all(texts: Sequence[str | bytes]) -> list[Buckets | LogError]:
    """`decode_buckets` of each, or the error that it would raise: most of one's cost is numpy's own.

    The buckets are views of arrays that all share.
    """
    decoded: list[Buckets | LogError] = [NO_BUCKETS] * len(texts)
    numbers: list[int] = []
    payloads: list[bytes] = []
    for number, text in enumerate(texts):
        try:
            payload = _payload(text)
        except LogError as error:
            decoded[number] = error
            continue
        if payload:
            numbers.append(number)
            payloads.append(payload)
    for number, result in zip(numbers, _from_words(payloads), strict=True):
        decoded[number] = result
    return decoded


def _rank(q: float, total: int) -> int:
    """How many values lie at or below quantile `q` (the package's arithmetic, to the last bit)."""
    return max(int(min(q * 100.0, 100.0) * total / 100 + 0.5), 1)


def _words(histogram: Buckets) -> bytes:
    """ZigZag LEB128: each count, and a run of n zeros as −n; nothing after the last count."""
    few = histogram.indices.size <= _FEW_COUNTS
    return _words_of_few(histogram) if few else _words_of_many(histogram)


def _words_of_many(histogram: Buckets) -> bytes:
    used, recorded = histogram.indices, histogram.counts
    if recorded.min() < 0 or recorded.max() > _MAX_COUNT:
        raise ValueError(_COUNT_REFUSED)
    skipped = np.diff(used, prepend=-1) - 1
    words = np.stack([2 * skipped - 1, recorded << 1], axis=1)  # the first is -1 where nothing was skipped
    length = (int(words.max()).bit_length() + 6) // 7
    rest = words[:, :, None] >> (7 * np.arange(length, dtype=np.int64))
    octets = ((rest & 0x7F) | ((rest >> 7 > 0) << 7)).astype(np.uint8)
    wanted = rest > 0
    wanted[:, :, 0] = True
    wanted &= words[:, :, None] >= 0
    return octets[wanted].tobytes()


def _words_of_few(histogram: Buckets) -> bytes:
    """The same one by one: numpy takes 0.1 ms to begin with, and several times that where it was not called just before."""
    octets = bytearray()
    expected = 0
    for index, count in zip(histogram.indices.tolist(), histogram.counts.tolist(), strict=True):
        if not 0 <= count <= _MAX_COUNT:
            raise ValueError(_COUNT_REFUSED)
        skipped = index - expected
        expected = index + 1
        for word in (2 * skipped - 1, count << 1) if skipped else (count << 1,):
            while word > 0x7F:
                octets.append(word & 0x7F | 0x80)
                word >>= 7
            octets.append(word)
    return bytes(octets)


def _payload(text: str | bytes) -> bytes:
    """The ZigZag LEB128 words in an encoded histogram, its headers checked."""
    raw = from_base64(text)
    if len(raw) < _OUTER.size:
        raise LogError("a histogram is cut short")
    cookie, length = _OUTER.unpack_from(raw)
    if cookie & ~_WORD_SIZE_BITS != _V2_COMPRESSED_COOKIE:
        raise LogError(f"a histogram is not in HdrHistogram's V2 compressed form (cookie {cookie:#x})")
    if length != len(raw) - _OUTER.size:
        raise LogError(f"a histogram has {len(raw) - _OUTER.size} bytes; its header says {length}")
    inner = inflated(raw[_OUTER.size :], _MAX_PAYLOAD_BYTES)
    if len(inner) < _INNER.size:
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


def _from_words(payloads: Sequence[bytes]) -> list[Buckets | LogError]:
    """Undo `_to_words`; where one is corrupt, each is decoded by itself, so that the others are not lost with it."""
    if not payloads:
        return []
    try:
        return list(_decoded_words(payloads))
    except LogError as error:
        if len(payloads) == 1:
            return [error]
        return [result for payload in payloads for result in _from_words([payload])]


def _decoded_words(payloads: Sequence[bytes]) -> Iterator[Buckets]:
    """The buckets of words none of which is empty, all in one pass.

    Raises:
        LogError: one of them is corrupt.
    """
    octets = np.frombuffer(b"".join(payloads), dtype=np.uint8)
    stops = np.cumsum([len(payload) for payload in payloads])
    if (octets[stops - 1] >= 0x80).any():
        raise LogError("a histogram's counts are cut short")
    words, high = _leb128(octets)
    skips = words & 1  # a run of n zeros is 2n - 1, a count of n is 2n
    halves = words >> 1
    steps = (halves * skips + 1).astype(np.int64)
    steps[high] = 0
    if steps.max() > COUNTS:  # first: the sums of larger ones might not fit
        raise LogError(f"a histogram has more than {COUNTS} counts")
    after = np.cumsum(steps)
    lasts = stops - 1
    bases = np.concatenate([[0], after[lasts]])
    if np.diff(bases).max() > COUNTS:
        raise LogError(f"a histogram has more than {COUNTS} counts")
    full = np.flatnonzero(halves * (skips ^ 1) != 0)
    cuts = np.concatenate([[0], np.searchsorted(full, lasts, side="right")])
    indices = after[full] - np.repeat(bases[:-1] + 1, np.diff(cuts))
    counts = halves[full].astype(np.int64)
    totals = np.diff(np.concatenate([[0], np.cumsum(counts)])[cuts]).tolist()
    for (begin, end), total in zip(pairwise(cuts.tolist()), totals, strict=True):
        yield Buckets(indices[begin:end], counts[begin:end], total)


Words = NDArray[np.integer]
_WIDE = [np.dtype(name) for name in ("u1", "u2", "u4", "u4", "i8", "i8", "i8", "i8")]
"""What holds a word, by the number of octets before its last."""


def _leb128(octets: NDArray[np.uint8]) -> tuple[Words, NDArray[np.intp]]:
    """Each word where its last octet stands, and where the other octets stand, whose place holds 0: they are few.

    Words are as wide as the longest needs: hardly any has more than one octet or two, and narrow ones are gone through in a
    fraction of the time.

    Raises:
        LogError: a word has more than eight octets.
    """
    high = np.flatnonzero(octets >= 0x80)
    if not high.size:
        return octets, high
    firsts = np.flatnonzero(np.diff(high, prepend=-2) > 1)
    lengths = np.diff(firsts, append=high.size)
    if lengths.max() > 7:
        raise LogError("a histogram has a count beyond 2**55 - 1")
    wide = _WIDE[lengths.max()]
    words = octets.astype(wide)
    low = (words[high] & 0x7F) << (7 * (np.arange(high.size) - np.repeat(firsts, lengths))).astype(wide)
    words[high] = 0
    ends = high[firsts] + lengths
    words[ends] <<= (7 * lengths).astype(wide)
    words[ends] += np.add.reduceat(low, firsts)
    return words, high
