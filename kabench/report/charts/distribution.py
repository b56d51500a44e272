"""`latency_distribution.png`: response time by percentile, service time beside it, as far as the samples carry."""

from __future__ import annotations

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kabench.core.identity import Metric
from kabench.report.charts import style
from kabench.report.charts.facts import Facts, KindFacts

QUANTILES = {0.5: "p50", 0.75: "p75", 0.9: "p90", 0.95: "p95", 0.99: "p99", 0.995: "p99.5", 0.999: "p99.9"}
COMPACT = (0.5, 0.9, 0.99, 0.999)


def draw(facts: Facts) -> Figure:
    """The whole chart: a panel for each kind."""
    fig = style.figure(1400, 820)
    columns = max(1, len(facts.kinds))
    grid = fig.add_gridspec(2, columns, height_ratios=[0.14 if len(facts.phases) <= 3 else 0.19, 1])
    _header(fig.add_subplot(grid[0, :]), facts)
    if facts.nothing:
        style.empty(fig.add_subplot(grid[1, 0]), *facts.nothing)
    for column, kind in enumerate(facts.kinds):
        ax = fig.add_subplot(grid[1, column])
        panel(ax, facts, kind)
        ax.set_title(f"{kind.kind}  ·  {', '.join(kind.workloads)}", loc="left", fontsize=15)
    note = "quiet agents, valid blocks; a curve ends where fewer than 100 samples lie beyond it"
    style.foot(fig, f"{note}\n{facts.samples} a phase and kind · {facts.basis}")
    return fig


def _header(ax: Axes, facts: Facts) -> None:
    style.bare(ax)
    style.free(ax.text(0, 1, "Response time by percentile", fontsize=22, fontweight="bold", va="top"))
    if facts.kinds:
        legend = ax.legend(
            handles=_handles(facts),
            loc="lower left",
            bbox_to_anchor=(-0.01, -0.25),
            ncols=4,
            columnspacing=1.6,
        )
        legend.set_in_layout(False)


def panel(ax: Axes, facts: Facts, kind: KindFacts, *, compact: bool = False) -> None:
    """A curve for each phase on an axis of nines; service time thinner and dashed."""
    furthest = 0.0
    for index, phase in enumerate(facts.phases):
        look = style.phase_style(index)
        nines, values = kind.curve(phase, Metric.SERVICE)
        ax.plot(nines, values, color=look.color, alpha=0.55, linewidth=1.4, linestyle=(0, (2, 2)))
        nines, values = kind.curve(phase, Metric.RESPONSE)
        ax.plot(nines, values, color=look.color, linewidth=2.6, linestyle=look.line)
        if nines:
            furthest = max(furthest, nines[-1])
            ends = [(nines[-1], values[-1])]
            ends += [(2, values[_nearest(nines, 2)])] if nines[-1] > 2.05 else []
            at, ms = zip(*ends, strict=True)
            ax.scatter(
                at,
                ms,
                marker=look.marker,
                color=look.color,
                s=60,
                zorder=4,
                edgecolors="white",
            )
    if not furthest:
        style.empty(ax, "WITHHELD", "Too few samples for any percentile.")
        return
    style.slo(ax, kind.slos_ms.values())
    for limit_ms in kind.slos_ms.values():
        ax.plot([2], [limit_ms], marker="v", color=style.SLO, markersize=10, zorder=5)
    ticks = {-math.log10(1 - q): name for q, name in QUANTILES.items() if not compact or q in COMPACT}
    ax.set_xticks(list(ticks), list(ticks.values()))
    ax.set_xlim(math.log10(2), furthest + 0.12)
    style.log_ms(ax)
    ax.grid(axis="x")
    ax.set_ylabel("response time, ms (log)")
    ax.set_xlabel("percentile")


def _nearest(nines: list[float], wanted: float) -> int:
    return min(range(len(nines)), key=lambda index: abs(nines[index] - wanted))


def _handles(facts: Facts) -> list[Line2D]:
    handles = []
    for index, phase in enumerate(facts.phases):
        look = style.phase_style(index)
        count = sum(kind.requests(phase) for kind in facts.kinds)
        handles.append(
            Line2D(
                [],
                [],
                color=look.color,
                linestyle=look.line,
                marker=look.marker,
                linewidth=2.6,
                label=f"{phase} ({count:,} requests)" if len(facts.phases) <= 2 else phase,
            )
        )
    handles.append(
        Line2D(
            [], [], color=style.MUTED, linestyle=(0, (2, 2)), linewidth=1.4, label="service time of the same"
        )
    )
    return handles
