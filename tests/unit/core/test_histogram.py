"""The geometry, the rules and the text form are the `hdrhistogram` package's, value by value."""

import base64
import importlib.util
import re
import struct
import zlib
from unittest import mock

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given, settings
from hypothesis import strategies as st

from kabench.core import inflate
from kabench.core.histogram import (
    _FEW_COUNTS,
    COUNTS,
    DIGITS,
    HIGHEST_NS,
    HIGHEST_OF,
    LOWEST_NS,
    LOWEST_OF,
    Buckets,
    Histogram,
    _words_of_few,
    _words_of_many,
    decode_all,
    decode_buckets,
    index_of,
)
from kabench.errors import LogError

values_ns = st.one_of(
    st.integers(0, 5000), st.integers(0, HIGHEST_NS), st.sampled_from([0, 1, 2047, 2048, 2049, HIGHEST_NS])
)
samples = st.lists(values_ns, max_size=300)
quantiles = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.5, 0.9, 0.99, 0.999, 1.0]))


def oracle(values=()):
    package = HdrHistogram(LOWEST_NS, HIGHEST_NS, DIGITS)
    for value in values:
        assert package.record_value(value)
    return package


def ours(values=()):
    histogram = Histogram()
    histogram.record_many(list(values))
    return histogram


def test_every_bucket_edge_has_the_packages_index():
    package = oracle()
    assert package.counts_len == COUNTS
    edges = np.unique(np.concatenate([LOWEST_OF - 1, LOWEST_OF, LOWEST_OF + 1, HIGHEST_OF]))
    edges = edges[edges >= 0]
    expected = [package.get_counts_array_index(int(edge)) for edge in edges]
    assert index_of(edges).tolist() == expected
    assert max(expected) == COUNTS - 1


def test_every_bucket_stands_for_the_packages_values():
    package = oracle()
    for index in range(0, COUNTS, 7):
        value = package.get_value_from_index(index)
        assert LOWEST_OF[index] == value
        assert HIGHEST_OF[index] == package.get_highest_equivalent_value(value)


@given(st.lists(st.integers(0, 2**36 - 1), min_size=1))
def test_any_value_has_the_packages_index(values):
    package = oracle()
    expected = [package.get_counts_array_index(value) for value in values]
    assert index_of(np.array(values)).tolist() == expected


@settings(max_examples=25, deadline=None)  # the package takes 20 ms and more for its mean
@given(samples, quantiles)
def test_statistics_are_the_packages(values, q):
    package, histogram = oracle(values), ours(values)
    assert histogram.total == package.get_total_count()
    if not values:
        assert histogram.quantile_ns(q) is histogram.min_ns is histogram.max_ns is histogram.mean_ns is None
        return
    assert histogram.min_ns == package.get_min_value()
    assert histogram.max_ns == package.get_max_value()
    assert histogram.mean_ns == pytest.approx(package.get_mean_value(), rel=1e-12)
    assert histogram.quantile_ns(q) == package.get_value_at_percentile(q * 100)


@given(samples)
def test_the_text_form_is_the_packages_but_for_how_hard_it_is_compressed(values):
    package, histogram = oracle(values), ours(values)
    text = histogram.encode()
    mine, theirs = base64.b64decode(text), base64.b64decode(package.encode())
    assert mine[:4] == theirs[:4]
    assert int.from_bytes(mine[4:8]) == len(mine) - 8
    assert zlib.decompress(mine[8:]) == zlib.decompress(theirs[8:])
    assert text.startswith("HISTFAAA")
    assert Histogram.decode(package.encode()) == histogram
    back = HdrHistogram.decode(text)
    assert back.get_total_count() == len(values)
    assert np.array_equal(np.frombuffer(back.counts, dtype=np.int64), histogram.counts)


@given(st.lists(st.tuples(values_ns, st.integers(1, 2**50)), max_size=20))
def test_large_counts_survive(pairs):
    histogram = Histogram()
    for value, count in pairs:
        histogram.record(value, count)
    assert Histogram.decode(histogram.encode()) == histogram


@given(samples)
def test_one_by_one_is_all_at_once(values):
    single = Histogram()
    for value in values:
        single.record(value)
    assert single == ours(values)


def test_many_values_are_binned_like_few():
    values = np.random.default_rng(1).lognormal(12, 2, 5000).astype(np.int64)
    pieces = Histogram()
    for piece in np.split(values, 100):
        pieces.record_many(piece)
    assert pieces == ours(values)
    assert pieces.total == 5000


def test_values_beyond_the_highest_are_clamped_and_counted():
    histogram = ours([1, HIGHEST_NS, HIGHEST_NS + 1, 2**62])
    histogram.record(2**62, count=3)
    assert histogram.clamped == 5
    assert histogram.total == 7
    assert histogram.max_ns == ours([HIGHEST_NS]).max_ns >= HIGHEST_NS
    assert (histogram + histogram).clamped == 10


def test_negative_durations_are_refused_and_nothing_is_recorded():
    histogram = Histogram()
    with pytest.raises(ValueError, match="negative"):
        histogram.record_many([5, -1])
    with pytest.raises(ValueError, match="negative"):
        histogram.record(-1)
    assert histogram.total == 0


@given(samples, samples, samples)
def test_adding_is_associative_and_commutative(a, b, c):
    x, y, z = ours(a), ours(b), ours(c)
    assert (x + y) + z == x + (y + z) == z + (y + x) == ours(a + b + c)
    x.add(y)
    assert x == ours(a + b)


def test_other_types_are_not_equal():
    assert Histogram() != 1
    assert "1 … 1 ns" in repr(ours([1]))


def test_a_quantile_is_withheld_when_too_few_lie_beyond_it():
    assert ours([7] * 9_950).supported_quantile_ns(0.99) is None  # 99 beyond it
    assert ours([7] * 10_000).supported_quantile_ns(0.99) == 7
    assert ours([7] * 99_500).supported_quantile_ns(0.999) is None
    assert ours([7] * 100_000).supported_quantile_ns(0.999) == 7
    assert ours([7] * 20).supported_quantile_ns(0.5, beyond=10) == 7
    assert Histogram().supported_quantile_ns(0.5) is None


@given(samples)
def test_sparse_gives_every_value_back(values):
    at_ns, counts = ours(values).sparse()
    assert counts.sum() == len(values)
    assert at_ns.tolist() == sorted({int(HIGHEST_OF[index_of(np.array([value]))[0]]) for value in values})


def packed(
    words=b"", lowest=LOWEST_NS, highest=HIGHEST_NS, digits=DIGITS, offset=0, cookie=0x1C849313, size=None
):
    size = len(words) if size is None else size
    inner = struct.pack(">IIIIQQd", cookie, size, offset, digits, lowest, highest, 1.0) + words
    return outer(zlib.compress(inner))


def outer(stream, cookie=0x1C849314, size=None):
    size = len(stream) if size is None else size
    return base64.b64encode(struct.pack(">II", cookie, size) + stream)


def test_the_handmade_form_is_right():
    histogram = Histogram.decode(packed(b"\x00\x00\x02\x01\x04"))  # 0, 0, 1, one zero, 2
    assert histogram == ours([2, 4, 4])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "cut short"),
        (b"!!!!", "not base64"),
        ("HISTFAAAÄ", "not base64"),
        (outer(zlib.compress(b"x" * 40), cookie=0x1C849301), "V2"),
        (outer(zlib.compress(b"x" * 40), size=3), "header says 3"),
        (outer(b"not zlib"), "decompress"),
        (outer(zlib.compress(b"x" * 40)[:-3]), "decompress"),
        (outer(zlib.compress(b"x" * 10)), "size"),
        (outer(zlib.compress(bytes(10_000_000))), "size"),
        (packed(cookie=0x1C849302), "not V2"),
        (packed(lowest=1000), "geometry"),
        (packed(highest=3_600_000_000_000), "geometry"),
        (packed(digits=2), "geometry"),
        (packed(offset=1), "offset"),
        (packed(b"\x02", size=2), "header says 2"),
        (packed(b"\x02\x80"), "cut short"),
        (packed(b"\x80" * 8 + b"\x01"), "2\\*\\*55"),
        (packed(b"\xff\xff\xff\x03"), "more than"),
        (packed(b"\x02" * (COUNTS + 1)), "more than"),
    ],
)
def test_what_is_corrupt_or_of_another_geometry_is_refused(text, why):
    with pytest.raises(LogError, match=why):
        Histogram.decode(text)


CORRUPT = (
    b"!!!!",
    packed(lowest=1000),
    packed(b"\x02\x80"),
    packed(b"\x80" * 8 + b"\x01"),
    packed(b"\xff\xff\xff\x03"),
)


@given(
    st.lists(
        st.one_of(
            samples.map(lambda values: ours(values).encode().encode()),
            st.integers(1, 2**54).map(lambda count: packed(word(-5) + word(count) + word(count % 7))),
            st.sampled_from(CORRUPT),
        ),
        max_size=8,
    )
)
def test_many_texts_at_once_are_each_by_itself(texts):
    """Whatever stands beside it, corrupt or empty."""
    for text, decoded in zip(texts, decode_all(texts), strict=True):
        if isinstance(decoded, LogError):
            with pytest.raises(LogError, match=re.escape(str(decoded))):
                decode_buckets(text)
        else:
            assert decoded == decode_buckets(text)
            assert decoded.counts.min(initial=1) > 0


def word(value):
    """ZigZag LEB128, written down plainly."""
    rest, octets = (value << 1) ^ (value >> 63), bytearray()
    while rest > 0x7F:
        octets.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes([*octets, rest])


@given(st.binary(max_size=64), st.integers(0, 80))
def test_without_the_fast_libraries_everything_is_the_same(content, cut):
    """An agent's image has only the standard library's. What is refused may be told in other words."""
    with mock.patch("importlib.util.find_spec", return_value=None):
        spec = importlib.util.spec_from_file_location("plain_inflate", inflate.__file__)
        plain = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(plain)
    assert inflate.FAST
    assert not plain.FAST
    for name, *arguments in (
        ("from_base64", base64.b64encode(content)[:cut]),
        ("inflated", zlib.compress(content)[:cut], 64),
        ("inflated", zlib.compress(content), cut),
        ("inflated", content, 64),
    ):
        results = []
        for module in (inflate, plain):
            try:
                results.append(getattr(module, name)(*arguments))
            except LogError:
                results.append(LogError)
        assert results[0] == results[1]


@given(st.data())
def test_a_flipped_byte_is_an_error_or_a_histogram_never_a_traceback(data):
    text = bytearray(ours([1, 5000, 70_000, HIGHEST_NS]).encode().encode())
    text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    try:
        histogram = Histogram.decode(bytes(text))
    except LogError:
        return
    assert histogram.counts.min() >= 0


def test_the_packages_histograms_of_another_geometry_are_refused():
    with pytest.raises(LogError, match="another geometry"):
        Histogram.decode(HdrHistogram(1, 3_600_000_000, 3).encode())


def test_a_count_that_the_text_form_cannot_hold_is_refused():
    histogram = Histogram()
    histogram.record(1, 2**55)
    with pytest.raises(ValueError, match="55"):
        histogram.encode()


@given(
    values=st.lists(st.integers(1, 3_000_000_000), min_size=1, max_size=30),
    interval_ns=st.integers(1_000_000, 2_000_000_000),
)
def test_the_correction_for_coordinated_omission_is_that_of_the_package(
    values: list[int], interval_ns: int
) -> None:
    """The package differs from the other HdrHistograms in one value: it also records what is left below the interval."""
    ours = Histogram()
    ours.record_many(values)
    corrected = ours.corrected(interval_ns)
    package = HdrHistogram(LOWEST_NS, HIGHEST_NS, DIGITS)
    rests = Histogram()
    for value_ns in HIGHEST_OF[index_of(np.array(values))].tolist():
        package.record_corrected_value(value_ns, interval_ns)
        if value_ns > interval_ns and value_ns % interval_ns:
            rests.record(value_ns % interval_ns)
    assert corrected.total + rests.total == package.get_total_count()
    corrected.add(rests)
    assert corrected == Histogram.decode(package.encode())
    assert ours.total == len(values)  # as it was


def test_the_correction_fills_in_what_a_stall_kept_from_being_measured() -> None:
    closed = Histogram()
    closed.record(1_000_000, 9_900)
    closed.record(1_000_000_000, 1)  # a second in which nothing else was asked
    corrected = closed.corrected(1_000_000)
    assert corrected.total == pytest.approx(9_901 + 999, abs=1)
    assert corrected.quantile_ns(0.99) == pytest.approx(900_000_000, rel=0.02)
    assert closed.quantile_ns(0.99) == pytest.approx(1_000_000, rel=0.001)
    with pytest.raises(ValueError, match="above zero"):
        closed.corrected(0)


@given(st.sets(st.integers(0, COUNTS - 1), min_size=1, max_size=2 * _FEW_COUNTS), st.data())
def test_few_counts_and_many_are_encoded_alike(at, data):
    counts = [data.draw(st.integers(1, 2**55 - 1)) for _ in at]
    buckets = Buckets(np.array(sorted(at)), np.array(counts))
    assert _words_of_few(buckets) == _words_of_many(buckets)
    assert decode_buckets(buckets.encode()) == buckets


@pytest.mark.parametrize("size", [1, _FEW_COUNTS, _FEW_COUNTS + 1])
@pytest.mark.parametrize("count", [-1, 2**55])
def test_a_count_that_no_log_can_hold_is_refused(size, count):
    counts = np.ones(size, dtype=np.int64)
    counts[-1] = count
    with pytest.raises(ValueError, match="a count is negative, or beyond"):
        Buckets(np.arange(size), counts).encode()


@given(st.lists(st.lists(st.integers(0, HIGHEST_NS), max_size=50), max_size=5))
def test_buckets_add_up_to_what_all_values_make(several):
    every = [value for values in several for value in values]
    assert Buckets.sum([ours(values).buckets() for values in several]) == ours(every).buckets()


def test_sums_are_exact_beyond_what_a_float_holds():
    one = Buckets(np.array([3, 9]), np.array([2**53, 1]))
    other = Buckets(np.array([3]), np.array([1]))
    assert Buckets.sum([one, other]) == Buckets(np.array([3, 9]), np.array([2**53 + 1, 1]))
