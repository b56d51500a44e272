"""What a run against standing servers found, as tables for a terminal: from its results alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from kabench.analysis.connections import apart
from kabench.analysis.instrument import Doubt, Proof, all_proofs, busy, doubts
from kabench.analysis.loading import Loaded, is_closed, loaded_of, shortfalls
from kabench.core.histogram import Histogram
from kabench.core.identity import Metric
from kabench.core.result import RunResult
from kabench.report.layout import say, show, table
from kabench.report.units import ms, per_cent

SPECTRUM = {
    "p50": 0.5,
    "p75": 0.75,
    "p90": 0.9,
    "p99": 0.99,
    "p99.9": 0.999,
    "p99.99": 0.9999,
}
TIMES = (Metric.RESPONSE, Metric.SERVICE, Metric.WAIT, Metric.LAG)
HIDES = (
    "A closed loop asks again only once it has a reply, so a slow server is asked less and queueing does not show: these "
    "times flatter it. Lag and wait are not defined here. For what a user would feel, give a rate."
)
NOT_REACHED = "offered not reached"
APART = 1.1
"""Response over service from which on their difference is worth a sentence."""


def print_load(console: Console, result: RunResult, correct_ns: int | None = None) -> None:
    """All figures of a load run.

    Args:
        console: where to.
        result: of a run whose phases are standing.
        correct_ns: also show response times corrected for coordinated omission, where a request was meant to leave
            every so many nanoseconds on each connection.

    Raises:
        LogError: a histogram is corrupt.
    """
    found = loaded_of(result)
    closed = is_closed(result.scenario)
    if not found:
        say(console, "Nothing was measured.", "yellow")
        return
    show(console, "requests", _requests(found))
    for line in error_lines(found):
        say(console, line, "red")
    show(console, "rates, 1/s", _rates(found, closed=closed))
    for loaded in found:
        if loaded.target:
            continue
        show(console, f"{_name(loaded, found)}, ms", _spectrum(loaded, closed=closed, correct_ns=correct_ns))
        for line in reading(loaded, closed=closed, correct_ns=correct_ns):
            say(console, line, "dim")
    if any(loaded.target for loaded in found):
        show(console, "response time by target, ms", _by_target(found))
    for odd in apart(window for record in result.rounds for window in record.agents):
        say(console, str(odd))
    for line in not_reached(found):
        say(console, line, "yellow")
    agents = all_proofs(result)
    show(console, "the instrument, ms (null: the echo beside each agent)", _instrument(agents, closed=closed))
    said = load_doubts(found, agents)
    for doubt in said:
        say(console, str(doubt), "bold yellow")
    if not said and agents:
        say(console, calm(found), "dim")


def load_line(scenario: Mapping[str, Any]) -> str:
    """How the targets were driven, in one line."""
    load, timing = scenario["load"], scenario["timing"]
    ours = _count(load["connections"], "connection")
    each = f"{ours} of each of {_count(scenario['agents'], 'agent')} to each target"
    if load.get("pipeline", 1) > 1:
        each += f", {load['pipeline']} requests in flight on each"
    if is_closed(scenario):
        how = "closed loop"
    else:
        rate = f"{load['rate_per_s']:,.10g}/s"
        profile = load.get("profile") or ()
        if profile:
            rates = [load["rate_per_s"] * point["factor"] for point in profile]
            rate = f"{' → '.join(f'{one:,.6g}' for one in _ends(rates))}/s"
        how = f"open loop, {load['arrivals'].replace('poisson', 'Poisson')} arrivals, {rate} in all"
    return f"{how}, for {timing['window_s']:g} s; {each}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _ends(rates: Sequence[float]) -> list[float]:
    """The steps of a profile, each once; of many the first, the highest and the last."""
    steps = [rate for index, rate in enumerate(rates) if not index or rate != rates[index - 1]]
    return steps if len(steps) <= 6 else [steps[0], max(steps), steps[-1]]


def load_doubts(found: Sequence[Loaded], agents: Sequence[Proof]) -> list[Doubt]:
    """Why a figure may be the generator's, by kind of target, and what holds for all."""
    said = []
    for loaded in found:
        if not loaded.target:
            response, service = loaded.histogram(Metric.RESPONSE), loaded.histogram(Metric.SERVICE)
            said += doubts(_name(loaded, found), response, service, agents)
    return said + busy(agents)


def calm(found: Sequence[Loaded]) -> str:
    """What may be said where there is no doubt: where a target's p99 is withheld, that is because none could be had."""
    times = [
        loaded.histogram(m)
        for loaded in found
        for m in (Metric.RESPONSE, Metric.SERVICE)
        if not loaded.target
    ]
    if any(histogram.supported_quantile_ns(0.99) is None for histogram in times):
        return "Too few requests to hold the instrument's times against the targets' p99."
    return "The instrument's own times are well below the targets'."


def reading(loaded: Loaded, *, closed: bool, correct_ns: int | None = None) -> Iterator[str]:
    """What a reader must know beside the spectrum."""
    if closed:
        yield HIDES
        if correct_ns:
            yield (
                f"Corrected: as if each request slower than {ms(correct_ns)} ms had kept others from leaving, one every "
                f"{ms(correct_ns)} ms. An estimate: nobody measured them."
            )
            median_ns = loaded.histogram(Metric.RESPONSE).quantile_ns(0.5)
            if median_ns is not None and correct_ns < median_ns:
                yield (
                    f"The median is above {ms(correct_ns)} ms, so no connection ever asked that often: the interval is too "
                    "short, and the estimate means little."
                )
        return
    response, service = (
        loaded.histogram(m).supported_quantile_ns(0.99) for m in (Metric.RESPONSE, Metric.SERVICE)
    )
    sentence = "Service time is what tools that time a request from its send report"
    if response and service and response >= APART * service:
        wait_ns, lag_ns = (loaded.histogram(m).quantile_ns(0.99) or 0 for m in (Metric.WAIT, Metric.LAG))
        sentence += f": a p99 of {ms(service)} ms"
        if wait_ns >= lag_ns:
            sentence += f", where users feel {ms(response)} ms"
        else:
            sentence += (
                f". The {ms(response)} ms from when they were due hold the agents' own lag ({ms(lag_ns)} ms)"
            )
    yield f"{sentence}."


def not_reached(found: Sequence[Loaded]) -> list[str]:
    """Where less reached a target than was asked, and why; of a kind with several targets, each by itself."""
    several = {(loaded.phase, loaded.kind) for loaded in found if loaded.target}
    return [
        f"{_name(loaded, found)}: {NOT_REACHED}: {line}"
        for loaded in found
        if loaded.target or (loaded.phase, loaded.kind) not in several
        for line in shortfalls(loaded)
    ]


def error_lines(found: Sequence[Loaded]) -> list[str]:
    """What the errors were, a line a kind that had any."""
    lines = []
    for loaded in found:
        if not loaded.target and loaded.outcomes.error:
            classes = sorted(loaded.outcomes.errors.items(), key=lambda entry: -entry[1])
            named = ", ".join(f"{name} {count:,}" for name, count in classes if count)
            lines.append(f"{_name(loaded, found)}: errors: {named}")
    return lines


def _name(loaded: Loaded, found: Sequence[Loaded]) -> str:
    """The kind, or the target; with its phase where there are several."""
    name = loaded.target or loaded.kind
    return f"{name} in {loaded.phase}" if len({one.phase for one in found}) > 1 else name


def _label(loaded: Loaded, found: Sequence[Loaded]) -> str:
    """In tables targets stand below their kind, indented, with their address."""
    if not loaded.target:
        return _name(loaded, found)
    return f"  {loaded.address or loaded.target}"


def _requests(found: Sequence[Loaded]) -> Table:
    rows = table()
    rows.add_column("target")
    for title in ("planned", "sent", "ok", "error", "time-out", "skipped"):
        rows.add_column(title, justify="right", no_wrap=True)
    for loaded in found:
        o = loaded.outcomes
        counts = (o.planned, o.sent, o.ok, o.error, o.timeout, o.skipped)
        rows.add_row(_label(loaded, found), *(f"{count:,}" for count in counts))
    return rows


def _rates(found: Sequence[Loaded], *, closed: bool) -> Table:
    """Asked by the scenario, offered (the planned count of the arrivals drawn), sent and ok, over the window."""
    rows = table()
    rows.add_column("target")
    for title in ("sent", "ok") if closed else ("asked", "offered", "sent", "ok"):
        rows.add_column(title, justify="right", no_wrap=True)
    for loaded in found:
        o = loaded.outcomes
        rates = [loaded.per_s(count) for count in (o.sent, o.ok)]
        if not closed:
            rates = [loaded.asked_per_s, loaded.per_s(o.planned), *rates]
        rows.add_row(_label(loaded, found), *(_rate(rate) for rate in rates))
    return rows


def _rate(per_s: float | None) -> str:
    if per_s is None:
        return "–"
    return f"{per_s:,.0f}" if per_s >= 100 else f"{per_s:,.3g}"


def _spectrum(loaded: Loaded, *, closed: bool, correct_ns: int | None) -> Table:
    """A line a percentile; "–" where fewer than 100 requests lie beyond it."""
    columns = {str(metric): loaded.histogram(metric) for metric in TIMES[: 2 if closed else None]}
    if closed and correct_ns:
        columns["corrected"] = loaded.histogram(Metric.RESPONSE).corrected(correct_ns)
    rows = table()
    rows.add_column("")
    for title in columns:
        rows.add_column(title, justify="right", no_wrap=True)
    for name, q in SPECTRUM.items():
        rows.add_row(name, *(ms(histogram.supported_quantile_ns(q)) for histogram in columns.values()))
    rows.add_row("max", *(ms(histogram.max_ns) for histogram in columns.values()))
    rows.add_row("requests", *(f"{histogram.total:,}" for histogram in columns.values()), style="dim")
    return rows


def _by_target(found: Sequence[Loaded]) -> Table:
    rows = table()
    rows.add_column("target")
    for title in (*SPECTRUM, "max"):
        rows.add_column(title, justify="right", no_wrap=True)
    for loaded in found:
        if loaded.target:
            response: Histogram = loaded.histogram(Metric.RESPONSE)
            values = [response.supported_quantile_ns(q) for q in SPECTRUM.values()]
            rows.add_row(_label(loaded, found).strip(), *(ms(value) for value in (*values, response.max_ns)))
    return rows


def _instrument(agents: Sequence[Proof], *, closed: bool) -> Table:
    rows = table()
    rows.add_column("agent")
    late = "null's lag p99" if closed else "lag p99"  # nothing else is due there
    for title in (late, "null p50", "null p99", "CPU", "waited for CPU"):
        rows.add_column(title, justify="right", no_wrap=True)
    for agent in agents:
        lag = ms(agent.null_lag_p99_ns if closed else agent.lag_p99_ns)
        null = (ms(agent.null_p50_ns), ms(agent.null_p99_ns))
        rows.add_row(agent.agent, lag, *null, per_cent(agent.cpu_share), per_cent(agent.starved))
    return rows
