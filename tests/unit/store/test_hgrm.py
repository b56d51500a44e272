"""The percentile tables are the package's own, but for the unit of one figure."""

import io

from hdrh.histogram import HdrHistogram
from hypothesis import given, settings
from hypothesis import strategies as st

from kabench.core.histogram import Histogram
from kabench.store.hgrm import NS_PER_MS, percentile_table


@settings(max_examples=6)  # the package takes up to half a second a table
@given(st.lists(st.tuples(st.integers(0, 5_000), st.integers(1, 5_000)), max_size=30))
def test_the_table_is_the_packages_but_for_the_unit_of_the_deviation(pairs):
    histogram = Histogram()
    for value, count in pairs:
        histogram.record(value, count)
    package = HdrHistogram.decode(histogram.encode())
    text = io.BytesIO()
    package.output_percentile_distribution(text, NS_PER_MS)
    deviation = package.get_stddev()
    wrong, right = (b"StdDeviation   = %12.3f]" % value for value in (deviation, deviation / NS_PER_MS))
    assert percentile_table(histogram) == text.getvalue().replace(wrong, right)


def test_a_table_is_in_milliseconds_throughout():
    histogram = Histogram()
    histogram.record_many([1_000_000, 3_000_000] * 50)
    lines = percentile_table(histogram).decode().splitlines()
    assert lines[0].split() == ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]
    assert lines[2].split() == ["1.000", "0.000000000000", "50", "1.00"]
    assert lines[-3].split()[2:3] + lines[-3].split()[5:6] == ["2.000,", "1.000]"]
