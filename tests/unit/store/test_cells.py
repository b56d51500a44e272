"""What a closed loop's log tells of its agent: the null echo's lag, and the connections that stand out."""

import numpy as np

from kabench.core.health import Health
from kabench.core.histogram import GEOMETRY, Buckets
from kabench.core.hlog import (
    LOG_VERSION,
    ConnectionFigure,
    Extremes,
    Header,
    Interval,
    IntervalNote,
    LoggedTarget,
    LogWriter,
    Seal,
)
from kabench.core.identity import NULL_TARGET, Kind, Metric, Outcomes
from kabench.core.totals import read_totals
from kabench.store.cells import agent_window

S = 1_000_000_000
EXTREMES = {"redis-0": Extremes(ConnectionFigure(0, "h:1", 3, 100), ConnectionFigure(7, "h:8", 3, 900))}


def of(*values_ns):
    return Buckets.of(np.array(values_ns, dtype=np.int64))


def closed_log(late=NULL_TARGET):
    redis = LoggedTarget("redis-0", "redis", "n", Kind.REDIS, 1.0, 8, None)
    null = LoggedTarget(NULL_TARGET, NULL_TARGET, "", Kind.NULL, 2.0, 1, 2)
    header = Header(
        LOG_VERSION, "run-1", "5" * 64, "001-load", "load", 1, "node-1", "i", "b", 1, "poisson", 0, S, 0, S, S, S, "step",
        (redis, null), GEOMETRY, "closed",
    )  # fmt: skip
    counted = {"redis-0": Outcomes(sent=6, ok=6), NULL_TARGET: Outcomes(sent=2, ok=2)}
    served = of(100, 100, 100, 900, 900, 900)
    histograms = {
        ("redis-0", Metric.RESPONSE): served,
        ("redis-0", Metric.SERVICE): served,
        (NULL_TARGET, Metric.RESPONSE): of(70, 80),
        (NULL_TARGET, Metric.SERVICE): of(50, 60),
        (late, Metric.LAG): of(20, 21),
    }
    totals = {
        "redis-0": Outcomes(planned=6, sent=6, ok=6),
        NULL_TARGET: Outcomes(planned=2, sent=2, ok=2),
    }
    writer = LogWriter()
    return [
        *writer.begin(header).splitlines(keepends=True),
        *writer.interval(Interval(IntervalNote(0, 0, S, counted, Health()), histograms)).splitlines(
            keepends=True
        ),
        writer.seal(Seal(1, totals, Health(), 0, connections=EXTREMES)),
    ]


def test_in_a_closed_loop_the_null_echo_tells_how_late_the_agent_was():
    log = read_totals(closed_log())
    assert log.problem == ""
    assert log.targets["redis-0"].outcomes.planned == 6
    window = agent_window(log, "node-1", "quiet")
    assert window.lag_p99_ns == 21
    assert window.connections == EXTREMES


def test_a_closed_log_whose_counts_were_not_all_sealed_does_not_reconcile():
    lines = closed_log()
    assert b'"planned":6' in lines[-1]
    lines[-1] = lines[-1].replace(b'"planned":6', b'"planned":7')
    assert "do not reconcile" in read_totals(lines).problem


def test_a_lag_in_a_closed_loop_is_refused():
    assert "redis-0: 2 lags for 0 planned" in read_totals(closed_log(late="redis-0")).problem
