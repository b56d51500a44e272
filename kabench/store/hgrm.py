"""HdrHistogram's percentile tables (`.hgrm`): the package writes them, numpy finds what it writes.

By itself the package walks all 27,648 counts three times in Python, for 0.4 s a table; this takes milliseconds.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from hdrh.histogram import HdrHistogram

from kabench.core.histogram import DIGITS, HIGHEST_NS, LOWEST_NS, Histogram

NS_PER_MS = 1_000_000
TICKS_PER_HALF = 5
"""Lines for each halving of the distance to 100%: the package's own default."""


@dataclass(frozen=True)
class Tick:
    """A line of the table, by the names that the package's writer asks for."""

    value_iterated_to: int
    percentile_level_iterated_to: float
    total_count_to_this_value: int


def ticks_of(histogram: Histogram) -> Iterator[Tick]:
    """The lines of the table: percentiles ever closer to 100, until all values are below one, and 100 itself."""
    values, counts = histogram.sparse()
    if not counts.size:
        return
    sums = np.cumsum(counts)
    shares = 100.0 * sums / sums[-1]
    percentile = 0.0
    while True:
        at = int(np.searchsorted(shares, percentile))
        yield Tick(int(values[at]), percentile, int(sums[at]))
        if at == counts.size - 1:
            break
        halvings = math.log2(100 / (100.0 - percentile)) + 1
        percentile += 100.0 / (TICKS_PER_HALF * math.pow(2, halvings))
    yield Tick(int(values[-1]), 100.0, int(sums[-1]))


class _Answered(HdrHistogram):  # type: ignore[misc]  # the package has no types
    """The package's histogram, for its writer's sake, with our answers."""

    def __init__(self, histogram: Histogram) -> None:
        super().__init__(LOWEST_NS, HIGHEST_NS, DIGITS)
        self._histogram = histogram

    def get_percentile_iterator(self, ticks_per_half_distance: int) -> Iterator[Tick]:
        assert ticks_per_half_distance == TICKS_PER_HALF
        return ticks_of(self._histogram)

    def get_mean_value(self) -> float:
        return self._histogram.mean_ns or 0.0

    def get_stddev(self) -> float:
        # the writer scales every figure to the unit asked for but this one
        return self._histogram.deviation_ns / NS_PER_MS

    def get_max_value(self) -> int:
        return self._histogram.max_ns or 0

    def get_total_count(self) -> int:
        return self._histogram.total


def percentile_table(histogram: Histogram) -> bytes:
    """The `.hgrm` text, in milliseconds."""
    text = io.BytesIO()
    _Answered(histogram).output_percentile_distribution(text, NS_PER_MS)
    return text.getvalue()
