"""From logs to the cells and agents' states of `results.json`."""

from __future__ import annotations

from collections.abc import Iterator

from kabench.core.histogram import NO_BUCKETS, Histogram
from kabench.core.hlog import Interval, LogReader
from kabench.core.identity import Cell, Kind, Metric, Outcomes
from kabench.core.result import AgentWindow, CellRecord, Series
from kabench.core.totals import WindowTotals, sum_up
from kabench.errors import LogError
from kabench.store.collect import FoundLog
from kabench.store.files import lines_of


def cells_of(log: FoundLog) -> list[CellRecord]:
    """A cell for every target of a log, the null echo left out.

    Raises:
        LogError: it is corrupt or gone.
    """
    try:
        with log.path.open("rb") as file:
            reader = LogReader(lines_of(file))
            names = [target.name for target in reader.header.targets if target.kind is not Kind.NULL]
            series = {name: Series([], [], [], [], [], [], []) for name in names}
            totals = sum_up(reader, _followed(reader, series))
    except OSError as error:
        raise LogError(f"cannot be read: {error.strerror}") from error
    return [_record(totals, name, series[name]) for name in names]


def agent_window(
    log: WindowTotals | None,
    agent: str,
    role: str,
    *,
    clock_offset_ns: int = 0,
    clock_error_ns: int = 0,
) -> AgentWindow:
    """The state of one instrument in one window.

    Args:
        log: the agent's log of it, summed up; None when there is none.
        agent: the node it is on.
        role: of that node in this block.
        clock_offset_ns: the agent's monotonic clock minus the controller's.
        clock_error_ns: half the best round trip.
    """
    if log is None:
        return AgentWindow(
            agent, "missing", role, clock_offset_ns=clock_offset_ns, clock_error_ns=clock_error_ns
        )
    outcomes, lag, null = Outcomes(), Histogram(), Histogram()
    closed = log.header.loop == "closed"  # there the null echo alone has a schedule, and can be late
    for target in log.targets.values():
        if target.target.kind is Kind.NULL:
            null.add(target.histograms.get(Metric.SERVICE, Histogram()))
            if closed:
                lag.add(target.histograms.get(Metric.LAG, Histogram()))
        else:
            outcomes += target.outcomes
            lag.add(target.histograms.get(Metric.LAG, Histogram()))
    null_p50_ns, null_p99_ns = null.quantiles_ns((0.5, 0.99))
    return AgentWindow(
        agent=agent,
        status="sealed" if log.seal else "unsealed",
        role=role,
        outcomes=outcomes,
        clock_offset_ns=clock_offset_ns,
        clock_error_ns=clock_error_ns,
        start_skew_ns=log.seal.start_skew_ns if log.seal else 0,
        lag_p99_ns=lag.quantile_ns(0.99),
        null_p50_ns=null_p50_ns,
        null_p99_ns=null_p99_ns,
        cpu_share=log.health.cpu_share,
        collections=log.health.collections,
        reconnects=log.health.reconnects,
        clamped=log.health.clamped,
        run_delay_ns=log.health.run_delay_ns,
        connections=log.seal.connections if log.seal else {},
    )


def _followed(reader: LogReader, series: dict[str, Series]) -> Iterator[Interval]:
    """The reader's intervals, each noted in the series as it passes."""
    for interval in reader:
        for name, curve in series.items():
            outcomes = interval.note.outcomes.get(name, Outcomes())
            response = interval.histograms.get((name, Metric.RESPONSE), NO_BUCKETS)
            p50_ns, p99_ns = response.quantiles_ns((0.5, 0.99))
            curve.ok.append(outcomes.ok)
            curve.error.append(outcomes.error)
            curve.timeout.append(outcomes.timeout)
            curve.skipped.append(outcomes.skipped)
            curve.response_p50_ns.append(p50_ns)
            curve.response_p99_ns.append(p99_ns)
            curve.response_max_ns.append(response.max_ns)
        yield interval


def _record(totals: WindowTotals, name: str, series: Series) -> CellRecord:
    header, target = totals.header, totals.targets[name]
    cell = Cell(
        phase=header.phase,
        block=header.block,
        agent=header.agent,
        target=name,
        node=target.target.node,
        workload=target.target.workload,
        kind=target.target.kind,
    )
    encoded = {
        str(metric): target.histograms[metric].encode() for metric in Metric if metric in target.histograms
    }
    return CellRecord(cell, target.outcomes, encoded, series)
