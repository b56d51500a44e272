"""The live view of a load run: rates, percentiles now and so far, and the last seconds as curves. It only draws."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kabench.analysis.loading import factor_at
from kabench.core.spec import Load, Scenario
from kabench.report.layout import line, table
from kabench.report.sparkline import sparkline
from kabench.report.tally import AgentTally, KindTally, Pace, RoundTally
from kabench.report.units import clock, ms, per_cent

QUANTILES = (0.5, 0.99, 0.999)
FIXED_LINES = 13
"""Beside kinds, agents and notes: head, bar, rates, headings and blank lines."""
LINES_A_KIND = 3
LABEL = 16
"""Columns before a curve, and `SCALE` behind it."""
SCALE = 22
BUSY = 0.8


def view(
    scenario: Scenario,
    tally: RoundTally,
    pace: Pace,
    now_ns: int,
    stage: str,
    width: int,
    height: int,
    notes: list[str],
) -> RenderableType:
    """The whole view, no more than `height` lines of `width` columns."""
    kinds = sorted({str(target.kind) for target in scenario.targets})
    room = height - FIXED_LINES - LINES_A_KIND * len(kinds) - len(notes)
    return Group(
        *_head(scenario, pace, now_ns, stage),
        Text(),
        *_rates(scenario, tally),
        Text(),
        _kinds(tally, kinds),
        Text(),
        *_curves(tally, kinds, width),
        Text(),
        _agents(tally, max(1, room), closed=scenario.load.loop == "closed"),
        *(line(note, "dim") for note in notes),
    )


def asked_per_s(load: Load, part: float) -> float | None:
    """The rate where that part of the window has passed; None in a closed loop."""
    if load.loop == "closed":
        return None
    return load.rate_per_s * factor_at([(point.at, point.factor) for point in load.profile], part)


def _head(scenario: Scenario, pace: Pace, now_ns: int, stage: str) -> list[RenderableType]:
    head = Table.grid(expand=True)
    head.add_column(no_wrap=True)
    head.add_column(justify="right", no_wrap=True)
    left = clock(pace.left_s(now_ns))
    told = f"{clock(pace.elapsed_s(now_ns))} elapsed, about {left} left"
    head.add_row(Text(f"kabench · {scenario.name}", style="bold"), Text(told))
    names = [target.address or target.name for target in scenario.targets]
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    head.add_row(line(", ".join(names[:2]) + more), Text(stage, style="cyan"))
    bar = Table.grid(expand=True)  # a bar ends no line of its own
    bar.add_row(ProgressBar(total=1.0, completed=pace.share(now_ns)))
    return [head, bar]


def _rates(scenario: Scenario, tally: RoundTally) -> list[RenderableType]:
    outcomes = tally.outcomes
    asked = asked_per_s(scenario.load, tally.part)
    rates = f"{tally.now_per_s:,.0f}/s answered now, {tally.rate_per_s:,.0f}/s so far"
    told = f"{asked:,.0f}/s asked, {rates}" if asked is not None else f"closed loop, {rates}"
    failed = outcomes.error + outcomes.timeout + outcomes.skipped
    lag = "" if asked is None else f" · lag p99 {ms(tally.lag_p99_ns)} ms, of the worst agent"
    return [
        line(f"rate      {told}"),
        line(
            f"failures  {outcomes.error:,} errors, {outcomes.timeout:,} time-outs, {outcomes.skipped:,} skipped",
            "bold red" if failed else "",
        ),
        line(f"in flight {tally.in_flight:,} at most in the last second{lag}"),
    ]


def _kinds(tally: RoundTally, kinds: list[str]) -> Table:
    rows = table()
    rows.add_column("response, ms", no_wrap=True, min_width=LABEL - 2)
    for title in ("p50", "p99", "p99.9", "max", "requests"):
        rows.add_column(title, justify="right", no_wrap=True, min_width=8)
    for kind in kinds:
        found = tally.kinds.get(kind, KindTally())
        for name, histogram in ((f"{kind} now", found.now()), (" " * len(kind) + " so far", found.window)):
            values = histogram.quantiles_ns((*QUANTILES, 1.0))
            rows.add_row(name, *(ms(value) for value in values), f"{histogram.total:,}")
    return rows


def _curves(tally: RoundTally, kinds: list[str], width: int) -> list[RenderableType]:
    columns = max(8, width - LABEL - SCALE)
    lines: list[RenderableType] = []
    for kind in kinds:
        curve = tally.kinds.get(kind, KindTally()).curve()[-columns:]
        drawn = sparkline(curve, columns)
        known = [value for value in curve if value is not None]
        scale = f"{ms(min(known))} – {ms(max(known))} ms" if known else ""
        lines.append(_curve(f"{kind} p99", drawn, columns, scale))
    answered = tally.answered()[-columns:]
    scale = f"≤ {max(answered):,.0f}/s" if answered else ""
    lines.append(_curve("answered", sparkline(answered, columns, from_zero=True), columns, scale))
    return lines


def _curve(name: str, drawn: str, columns: int, scale: str) -> Text:
    text = line(f"{name:<{LABEL}.{LABEL}}")
    text.append(f"{drawn:<{columns}}", style="cyan")
    text.append(f" {scale}", style="dim")
    return text


def _agents(tally: RoundTally, room: int, *, closed: bool) -> Table:
    """As many as fit; of the others, how many."""
    rows = table()
    for title in ("agent", "lag p99, ms", "cpu", "state"):
        rows.add_column(title, justify="right" if title in ("lag p99, ms", "cpu") else "left", no_wrap=True)
    names = list(tally.agents)
    shown = names if len(names) <= room else names[: max(0, room - 1)]
    for name in shown:
        agent: AgentTally = tally.agents[name]
        state = Text(agent.state, style="bold red" if agent.state in ("missing", "unsealed") else "")
        cpu = Text(per_cent(agent.cpu_share), style="yellow" if (agent.cpu_share or 0) >= BUSY else "")
        rows.add_row(name, "–" if closed else ms(agent.lag_p99_ns), cpu, state)
    if len(shown) < len(names):
        rows.add_row(f"… {len(names) - len(shown)} more", "", "", "")
    return rows
