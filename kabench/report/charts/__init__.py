"""The charts of a run, drawn from its results alone. The only place with matplotlib.

No display and no global state: figures are made and saved here, and the same results give the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from kabench.analysis.loading import is_standing
from kabench.core.result import RunResult
from kabench.errors import StoreError
from kabench.report.charts import dashboard, distribution, latency, p99, placement, search, style
from kabench.report.charts.facts import Facts
from kabench.report.charts.load_facts import LoadFacts
from kabench.report.search import tries_of

CHARTS: dict[str, Callable[[Facts], Figure]] = {
    "p99_comparison.png": p99.draw,
    "placement_accuracy.png": placement.draw,
    "latency_distribution.png": distribution.draw,
    "dashboard.png": dashboard.draw,
}
LOAD_CHARTS: dict[str, Callable[[LoadFacts], Figure]] = {"latency.png": latency.draw}


def draw_all(result: RunResult, folder: Path) -> list[Path]:
    """Draw every chart of `result` into `folder`, which must exist; returns their paths.

    A run against servers that stand already compares nothing: it has one chart of its own instead of the four.

    Raises:
        StoreError: the folder cannot be written.
        LogError: a histogram in the results is corrupt.
    """
    paths = []
    with matplotlib.rc_context(style.RC):
        for name, draw in _charts(result):
            path = folder / name
            try:
                style.save(draw(), path)
            except OSError as error:
                raise StoreError(f"{path}: cannot write the chart: {error.strerror or error}") from error
            paths.append(path)
    return paths


def _charts(result: RunResult) -> Iterator[tuple[str, Callable[[], Figure]]]:
    if is_standing(result) and tries_of(result):
        yield "latency.png", partial(search.draw, search.SearchFacts.of(result))
    elif is_standing(result):
        load_facts = LoadFacts.of(result)
        for name, draw_load in LOAD_CHARTS.items():
            yield name, partial(draw_load, load_facts)
    else:
        facts = Facts.of(result)
        for name, draw in CHARTS.items():
            yield name, partial(draw, facts)
