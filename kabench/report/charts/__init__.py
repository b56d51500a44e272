"""The four charts of a run, drawn from its results alone. The only place with matplotlib.

No display and no global state: figures are made and saved here, and the same results give the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from kabench.core.result import RunResult
from kabench.errors import StoreError
from kabench.report.charts import dashboard, distribution, p99, placement, style
from kabench.report.charts.facts import Facts

CHARTS: dict[str, Callable[[Facts], Figure]] = {
    "p99_comparison.png": p99.draw,
    "placement_accuracy.png": placement.draw,
    "latency_distribution.png": distribution.draw,
    "dashboard.png": dashboard.draw,
}


def draw_all(result: RunResult, folder: Path) -> list[Path]:
    """Draw every chart of `result` into `folder`, which must exist; returns their paths.

    Raises:
        StoreError: the folder cannot be written.
        LogError: a histogram in the results is corrupt.
    """
    facts = Facts.of(result)
    paths = []
    with matplotlib.rc_context(style.RC):
        for name, draw in CHARTS.items():
            path = folder / name
            try:
                style.save(draw(facts), path)
            except OSError as error:
                raise StoreError(f"{path}: cannot write the chart: {error.strerror or error}") from error
            paths.append(path)
    return paths
