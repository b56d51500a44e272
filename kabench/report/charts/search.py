"""`latency.png` of a search for the highest rate: response times of every try by its rate, and what was answered."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from kabench.analysis.rate_search import answer, parse_promise
from kabench.core.result import RunResult, Tried
from kabench.report.charts import style
from kabench.report.search import tries_of

DIAGONAL = (0, (4, 2))


@dataclass(frozen=True)
class SearchFacts:
    """The tries of a run, in their order, and the limits that were promised, by the quantile's name."""

    run: str
    tries: list[Tried]
    limits_ms: dict[str, float]
    answer: str

    @classmethod
    def of(cls, result: RunResult) -> SearchFacts:
        """What the chart needs; without a try there is nothing to draw."""
        tries = tries_of(result)
        limits = parse_promise(tries[0].promise).limits_ns if tries else {}
        named = {f"p{round(100 * q, 8):g}": limit_ns / 1e6 for q, limit_ns in limits.items()}
        return cls(result.run, tries, named, answer(tries).sentence)

    @property
    def names(self) -> list[str]:
        """The quantiles that any try has a value of."""
        return list(
            dict.fromkeys(name for tried in self.tries for name, v in tried.quantiles_ns.items() if v)
        )


def draw(facts: SearchFacts) -> Figure:
    """Times above, what was answered of what was asked below."""
    fig = style.figure(1400, 1000)
    grid = fig.add_gridspec(3, 1, height_ratios=[0.34, 1.4, 0.8])
    _header(fig.add_subplot(grid[0, 0]), facts)
    times = fig.add_subplot(grid[1, 0])
    by_rate(times, facts)
    answered(fig.add_subplot(grid[2, 0], sharex=times if facts.names else None), facts.tries)
    note = (
        "a point is one window; filled: it holds, hollow: it does not, a cross: the generator was the limit"
    )
    style.foot(fig, f"{note}\n{len(facts.tries)} tries · run {facts.run}")
    return fig


def _header(ax: Axes, facts: SearchFacts) -> None:
    style.bare(ax)
    promise = facts.tries[0].promise if facts.tries else ""
    title = f"The highest rate that holds {promise}"
    style.free(ax.text(0, 1, title, fontsize=22, fontweight="bold", va="top"))
    style.free(ax.text(0, 0.6, style.wrap(facts.answer, 130), fontsize=13, color=style.MUTED, va="top"))


def by_rate(ax: Axes, facts: SearchFacts) -> None:
    """Each quantile's value by rate; what the generator limited is no figure of the target, and on no line."""
    for index, name in enumerate(facts.names):
        look = style.phase_style(index)
        known = [
            (t.rate_per_s, value / 1e6, t.outcome) for t in facts.tries if (value := t.quantiles_ns.get(name))
        ]
        line = sorted((rate, value_ms) for rate, value_ms, outcome in known if outcome != "generator")
        ax.plot(*_columns(line), color=look.color, linewidth=1.6, linestyle=look.line, zorder=2)
        for rate, value_ms, outcome in known:
            _point(ax, rate, value_ms, outcome, look)
    if not facts.names:
        style.empty(ax, "WITHHELD", "Too few requests for any percentile.")
        return
    ax.set_xscale("log")
    style.slo(ax, facts.limits_ms.values())
    style.log_ms(ax)
    ax.set_ylabel("response time, ms (log)")
    ax.tick_params(axis="x", which="both", labelbottom=False)
    handles = [_handle(index, name) for index, name in enumerate(facts.names)]
    legend = ax.legend(handles=handles, loc="lower left", bbox_to_anchor=(-0.01, 0.98), ncols=len(handles))
    legend.set_in_layout(False)
    ax.set_title(" ", fontsize=13)  # room for the legend


def _point(ax: Axes, rate: float, value: float, outcome: str, look: style.PhaseStyle) -> None:
    if outcome == "generator":
        ax.scatter([rate], [value], marker="x", s=44, color=style.MUTED, linewidths=1.5, zorder=3)
        return
    face = look.color if outcome == "holds" else "white"
    ax.scatter(
        [rate],
        [value],
        marker=look.marker,
        s=64,
        facecolors=face,
        edgecolors=look.color,
        linewidths=1.6,
        zorder=4,
    )


def _handle(index: int, name: str) -> Line2D:
    look = style.phase_style(index)
    return Line2D(
        [], [], color=look.color, marker=look.marker, linestyle=look.line, linewidth=1.6, label=name
    )


def answered(ax: Axes, tries: Sequence[Tried]) -> None:
    """What was answered in time; on the diagonal it is what was asked."""
    rates = sorted({tried.rate_per_s for tried in tries})
    ax.plot(rates, rates, color=style.INK, linewidth=1.2, linestyle=DIAGONAL, zorder=1)
    look = style.phase_style(1)
    for tried in tries:
        if tried.ok_per_s:
            _point(ax, tried.rate_per_s, tried.ok_per_s, tried.outcome, look)
    plain = FuncFormatter(lambda value, _: f"{value:,.0f}")
    wide = len(rates) > 1 and math.log10(rates[-1] / rates[0]) > 2
    ax.set_xscale("log")
    ax.set_yscale("log")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(LogLocator(10, (1,) if wide else (1, 2, 5)))
        axis.set_major_formatter(plain)
        axis.set_minor_formatter(NullFormatter())
    ax.grid(axis="both")
    ax.set_ylabel("ok/s (log)")
    ax.set_xlabel("requests/s asked (log); dashed: all of them answered")


def _columns(pairs: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in pairs], [y for _, y in pairs]
