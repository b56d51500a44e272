"""A second opinion on our own logs: the `hdrhistogram` package reads them too, and must count the same."""

from __future__ import annotations

import zlib
from pathlib import Path

from hdrh.codec import HdrCookieException, HdrHistogramSettingsException, HdrLengthException
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader

from kabench.core.histogram import DIGITS, HIGHEST_NS, LOWEST_NS
from kabench.core.totals import WindowTotals
from kabench.errors import LogError

_ITS_ERRORS = (
    HdrCookieException,
    HdrHistogramSettingsException,
    HdrLengthException,
    zlib.error,
    ValueError,
    TypeError,
)


def cross_check(path: Path, totals: WindowTotals) -> None:
    """Compare, for every target and metric, how many values the package finds with how many we did.

    A log that is cut is not compared: the package reads a torn line, or stops, where we leave out the whole interval.

    Raises:
        LogError: they differ, or the package cannot read it.
    """
    if totals.problem:
        return
    theirs: dict[str, int] = {}
    reader = HistogramLogReader(str(path), HdrHistogram(LOWEST_NS, HIGHEST_NS, DIGITS))
    try:
        while histogram := reader.get_next_interval_histogram():
            tag = histogram.get_tag()
            theirs[tag] = theirs.get(tag, 0) + histogram.get_total_count()
    except _ITS_ERRORS as error:
        raise LogError(f"the hdrhistogram package cannot read it: {error}") from error
    finally:
        reader.close()
    ours = {
        f"{name}.{metric}": histogram.total
        for name, target in totals.targets.items()
        for metric, histogram in target.histograms.items()
    }
    if theirs != ours:
        tag = min(tag for tag in theirs.keys() | ours.keys() if theirs.get(tag) != ours.get(tag))
        raise LogError(
            f"the hdrhistogram package counts {theirs.get(tag, 0)} values of {tag}, we count {ours.get(tag, 0)}"
        )
