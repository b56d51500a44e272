"""`latency.png` of a load run: response against service time by percentile, and both second by second with the rate."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from kabench.core.identity import Metric
from kabench.report.charts import style
from kabench.report.charts.load_facts import Course, LoadFacts, Panel

RESPONSE = style.PHASES[1].color
SERVICE = style.INK
HIDDEN = "#dbe9f4"
DASHES = (0, (4, 2))
DOTS = (0, (1, 1))
QUANTILES = {
    0.5: "p50",
    0.9: "p90",
    0.99: "p99",
    0.999: "p99.9",
    0.9999: "p99.99",
    0.99999: "p99.999",
    0.999999: "p99.9999",
}
FOOT_COLUMNS = 150


def draw(facts: LoadFacts) -> Figure:
    """The whole chart: a column for each kind of target."""
    fig = style.figure(1400, 1180)
    columns = max(1, len(facts.panels))
    grid = fig.add_gridspec(4, columns, height_ratios=[0.34, 1.25, 0.85, 0.5])
    _header(fig.add_subplot(grid[0, :]), facts)
    if not facts.panels:
        style.empty(fig.add_subplot(grid[1, 0]), "NOTHING MEASURED", "No agent's log holds a request.")
    for column, panel in enumerate(facts.panels):
        top = fig.add_subplot(grid[1, column])
        spectrum(top, panel, closed=facts.closed)
        top.set_title(panel.title, loc="left", fontsize=15)
        times = fig.add_subplot(grid[2, column])
        over_time(times, panel.courses)
        below = fig.add_subplot(grid[3, column], sharex=times)
        rate(below, panel.courses, closed=facts.closed)
        if not column:  # the others have the same lines, and less room
            _legend(times, _times_handles())
            _legend(below, _rate_handles(facts))
    style.foot(fig, _foot(facts))
    return fig


def _header(ax: Axes, facts: LoadFacts) -> None:
    style.bare(ax)
    style.free(ax.text(0, 1, "Response time beside service time", fontsize=22, fontweight="bold", va="top"))
    line = style.wrap(facts.line, 130)
    if facts.doubts:
        stamp = style.wrap(facts.doubts[0].head, 46)
        style.free(
            ax.text(1, 0.97, stamp, fontsize=14, color=style.BAD, fontweight="bold", ha="right", va="top")
        )
    style.free(ax.text(0, 0.58, line, fontsize=13, color=style.MUTED, va="top"))
    if not facts.panels:
        return
    handles = [
        Line2D([], [], color=RESPONSE, linewidth=2.6, label="response time (from when it was due)"),
        Line2D([], [], color=SERVICE, linewidth=1.6, linestyle=DASHES, label="service time (from the send)"),
        Patch(facecolor=HIDDEN, label="wait and lag: what timing from the send leaves out"),
    ]
    if facts.closed:
        handles[0].set_label("response time (closed loop: hides queueing)")
        del handles[2]
    legend = ax.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(-0.01, -0.2), ncols=3, columnspacing=1.6
    )
    legend.set_in_layout(False)


def spectrum(ax: Axes, panel: Panel, *, closed: bool) -> None:
    """Both times by percentile, on HdrHistogram's axis: 1/(1 − p), logarithmic."""
    response, service = panel.curve(Metric.RESPONSE), panel.curve(Metric.SERVICE)
    if not response[0]:
        style.empty(ax, "WITHHELD", "Too few requests for any percentile.")
        return
    shared = min(len(response[0]), len(service[0])) if service[0] else 0
    if shared and not closed:
        at, low, high = _between(response, service)
        ax.fill_between(at, low, high, color=HIDDEN, linewidth=0, zorder=1)
    ax.plot(*service, color=SERVICE, linewidth=1.6, linestyle=DASHES, zorder=3)
    ax.plot(*response, color=RESPONSE, linewidth=2.6, zorder=4)
    furthest = response[0][-1]
    for nines in (math.log10(2), 1.0, 2.0, 3.0, 4.0, 5.0, 6.0):
        if nines <= furthest + 1e-9:
            exact_ns = panel.loaded.histogram(Metric.RESPONSE).quantile_ns(1 - 10**-nines)
            value = (exact_ns or 0) / 1e6
            ax.scatter([nines], [value], marker="o", color=RESPONSE, s=46, zorder=5, edgecolors="white")
            text = ax.annotate(
                style.milliseconds(value * 1e6),
                (nines, value),
                (-7, 7) if nines > 0.5 else (0, 10),
                textcoords="offset points",
                ha="right" if nines > 0.5 else "center",
                va="bottom",
                fontsize=12,
                zorder=6,
            )
            style.free(text)
    ticks = {-math.log10(1 - q): name for q, name in QUANTILES.items()}
    ax.set_xticks(list(ticks), list(ticks.values()))
    ax.set_xlim(math.log10(2) - 0.06 * furthest, furthest + 0.12)
    low_ms, high_ms = min((*service[1], *response[1])), max((*service[1], *response[1]))
    ax.set_ylim(low_ms / 1.25, high_ms * 1.8)
    style.log_ms(ax)
    ax.grid(axis="x")
    ax.set_ylabel("ms (log)")
    count = panel.loaded.histogram(Metric.RESPONSE).total
    ax.set_xlabel(f"percentile of {count:,} requests")


def over_time(ax: Axes, courses: Sequence[Course]) -> None:
    """p50, p99 and the slowest of each second."""
    values = [
        v
        for one in courses
        for of in (one.p50_ms, one.service_p99_ms, one.max_ms)
        for v in of
        if v is not None
    ]
    if not values:
        style.empty(ax, "NO SECONDS", "The results hold no series.")
        return
    for one in courses:
        ax.scatter(*_there(one.at_s, one.max_ms), marker="^", s=16, color=style.MUTED, linewidths=0, zorder=2)
        ax.plot(one.at_s, _gaps(one.service_p99_ms), color=SERVICE, linewidth=1.4, linestyle=DASHES, zorder=3)
        few = len(one.at_s) <= 60
        ax.plot(
            one.at_s,
            _gaps(one.p99_ms),
            color=RESPONSE,
            linewidth=2.2,
            marker="o" if few else "",
            markersize=4,
            zorder=5,
        )
        ax.plot(one.at_s, _gaps(one.p50_ms), color=RESPONSE, linewidth=1.4, linestyle=DOTS, zorder=4)
    ax.set_ylim(min(values) / 1.4, max(values) * 1.6)
    style.log_ms(ax)
    ax.set_ylabel("ms (log)")
    ax.tick_params(axis="x", labelbottom=False)
    ax.set_title(" ", fontsize=13)  # room for the legend


def rate(ax: Axes, courses: Sequence[Course], *, closed: bool) -> None:
    """What was asked, answered and failed in each second."""
    for one in courses:
        if not closed:
            ax.plot(
                one.at_s,
                one.asked_per_s,
                color=style.INK,
                linewidth=1.4,
                linestyle=DASHES,
                drawstyle="steps-mid",
            )
        ax.plot(one.at_s, one.ok_per_s, color=RESPONSE, linewidth=2)
        if any(one.error_per_s):
            ax.plot(
                one.at_s,
                one.error_per_s,
                color=style.BAD,
                linewidth=1.6,
                marker="x",
                markersize=4,
                linestyle="-.",
            )
    ends = [at for one in courses for at in one.at_s]
    if ends:
        ax.set_xlim(0, max(ends) + min(ends))
    highest = max(
        (v for one in courses for of in (one.ok_per_s, one.asked_per_s * (not closed)) for v in of), default=1
    )
    ax.set_ylim(0, highest * 1.15 or 1)
    ax.set_title(" ", fontsize=13)  # room for the legend
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.grid(axis="y")
    ax.set_ylabel("requests/s")
    ax.set_xlabel("seconds into the window" if len(courses) <= 1 else "seconds since the first window")


def _times_handles() -> list[Line2D]:
    return [
        Line2D([], [], color=style.MUTED, marker="^", markersize=5, linestyle="", label="slowest response"),
        Line2D([], [], color=RESPONSE, linewidth=2.2, label="p99 response"),
        Line2D([], [], color=SERVICE, linewidth=1.4, linestyle=DASHES, label="p99 service"),
        Line2D([], [], color=RESPONSE, linewidth=1.4, linestyle=DOTS, label="p50 response"),
    ]


def _rate_handles(facts: LoadFacts) -> list[Line2D]:
    handles = [Line2D([], [], color=RESPONSE, linewidth=2, label="ok")]
    if not facts.closed:
        asked = Line2D([], [], color=style.INK, linewidth=1.4, linestyle=DASHES, label="asked")
        handles.insert(0, asked)
    if any(any(course.error_per_s) for panel in facts.panels for course in panel.courses):
        failed = "failed (errors, time-outs, skipped)"
        handles.append(
            Line2D(
                [], [], color=style.BAD, linewidth=1.6, marker="x", markersize=4, linestyle="-.", label=failed
            )
        )
    return handles


def _legend(ax: Axes, handles: Sequence[Line2D]) -> None:
    """Above its panel, in a row that the layout makes no room for."""
    legend = ax.legend(
        handles=list(handles),
        loc="lower left",
        bbox_to_anchor=(-0.01, 0.98),
        ncols=len(handles),
        columnspacing=1.2,
        fontsize=11,
    )
    legend.set_in_layout(False)


def _between(
    response: tuple[list[float], list[float]], service: tuple[list[float], list[float]]
) -> tuple[list[float], list[float], list[float]]:
    """Where both curves run: nines, service and response."""
    end = min(response[0][-1], service[0][-1])
    at = [nines for nines in response[0] if nines <= end]
    return at, [_value(service, nines) for nines in at], [_value(response, nines) for nines in at]


def _value(line: tuple[list[float], list[float]], nines: float) -> float:
    index = min(range(len(line[0])), key=lambda number: abs(line[0][number] - nines))
    return line[1][index]


def _gaps(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]


def _there(at: Sequence[float], values: Sequence[float | None]) -> tuple[list[float], list[float]]:
    kept = [(x, y) for x, y in zip(at, values, strict=True) if y is not None]
    return [x for x, _ in kept], [y for _, y in kept]


def _foot(facts: LoadFacts) -> str:
    notes = [
        "a curve ends where fewer than 100 requests lie beyond it, a second's p99 where fewer than 10 do; by completion",
        f"{facts.instrument} · run {facts.result.run}",
    ]
    if facts.result.status != "finished":
        notes.insert(0, f"the run was {facts.result.status}; this is what was measured until then")
    notes += [str(doubt) for doubt in facts.doubts] + facts.shortfalls
    if facts.left_out:
        notes.append(f"{facts.left_out} more are in results.json")
    return "\n".join(style.wrap(note, FOOT_COLUMNS) for note in notes[:6])
