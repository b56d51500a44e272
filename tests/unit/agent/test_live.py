"""The live view of a window, in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator

from agent_kit import an_interval, an_order, http_target

from kabench.core import hlog
from kabench.core.health import Health
from kabench.core.histogram import Histogram
from kabench.core.identity import NULL_TARGET, Kind, Metric, Outcomes
from kabench.wire.messages import Interval
from kabench_agent import live as live_module
from kabench_agent.live import Live
from kabench_agent.turns import no_pause

MS = 1_000_000
KINDS = {"echo-0": Kind.HTTP, "echo-1": Kind.HTTP, "redis-0": Kind.REDIS, NULL_TARGET: Kind.NULL}
ORDER = an_order(*(http_target(1, name) for name in KINDS))


def closed(index: int, *values_ns: int) -> hlog.Interval:
    return an_interval(ORDER, 0, index, list(values_ns))


def of(*values_ns: int) -> Histogram:
    histogram = Histogram()
    histogram.record_many(list(values_ns))
    return histogram


async def listening(live: Live) -> AsyncIterator[Interval | None]:
    """Listen, and wait until that has begun."""
    lines = live.lines(silence_s=0.001)
    assert await anext(lines) is None
    return lines


async def test_targets_of_a_kind_are_summed_and_the_null_echo_does_not_count_as_lag() -> None:
    live = Live("001-a", KINDS)
    lines = await listening(live)
    interval = closed(0, 1 * MS, 2 * MS)
    interval.histograms[NULL_TARGET, Metric.LAG] = of(900 * MS).buckets()
    await live.interval(interval, no_pause)
    line = await anext(lines)
    assert line is not None
    assert set(line.kinds) == {"http", "redis", "null"}
    assert line.kinds["http"].outcomes == Outcomes(sent=4, ok=4)
    assert Histogram.decode(line.kinds["http"].response) == of(1 * MS, 2 * MS) + of(1 * MS, 2 * MS)
    assert Histogram.decode(line.kinds["redis"].response) == of(1 * MS, 2 * MS)
    assert line.lag_p99_ns == of(20_000).quantile_ns(0.99)
    assert not line.sealed


async def test_a_line_is_made_in_steps_and_its_lag_is_of_all_targets() -> None:
    live = Live("001-a", KINDS)
    lines = await listening(live)
    interval = closed(0, 1 * MS)
    interval.histograms["redis-0", Metric.LAG] = of(5 * MS, 6 * MS).buckets()
    steps = []

    async def step() -> None:
        steps.append(1)

    await live.interval(interval, step)
    line = await anext(lines)
    assert line is not None
    assert line.lag_p99_ns == of(6 * MS).quantile_ns(0.99)
    assert len(steps) == 1 + 2 * 3 + 1  # taken in; summed and encoded, of three kinds; the lags


async def test_the_last_line_has_the_windows_totals() -> None:
    live = Live("001-a", {"echo-0": Kind.HTTP})
    for index, value in enumerate((1 * MS, 5 * MS)):
        interval = an_interval(an_order(http_target(1)), 0, index, [value])
        await live.interval(interval, no_pause)
    total = Outcomes(planned=2, sent=2, ok=2)
    await live.sealed(hlog.Seal(2, {"echo-0": total}, Health(cpu_share=0.5), start_skew_ns=0))
    live.end()
    (line,) = [line async for line in live.lines(silence_s=60)]
    assert line is not None
    assert (line.index, line.sealed, line.health.cpu_share) == (2, True, 0.5)
    assert line.kinds["http"].outcomes == total
    assert Histogram.decode(line.kinds["http"].response) == of(1 * MS, 5 * MS)


async def test_a_slow_listener_loses_the_oldest_lines_and_not_the_last() -> None:
    live = Live("001-a", KINDS)
    lines = await listening(live)
    count = live_module.BACKLOG + 5
    for index in range(count):
        await live.interval(closed(index, MS), no_pause)
    total = Outcomes(planned=count, sent=count, ok=count)
    await live.sealed(hlog.Seal(count, dict.fromkeys(KINDS, total), Health(), start_skew_ns=0))
    live.end()
    seen = []
    while (line := await anext(lines, None)) is not None:
        seen.append(line.index)
    assert seen == list(range(count - live_module.BACKLOG + 2, count + 1))


async def test_an_empty_interval_has_no_histogram() -> None:
    live = Live("001-a", {"echo-0": Kind.HTTP})
    lines = await listening(live)
    note = hlog.IntervalNote(0, 0, MS, {"echo-0": Outcomes()}, Health())
    await live.interval(hlog.Interval(note), no_pause)
    line = await anext(lines)
    assert line is not None
    assert (line.kinds["http"].response, line.lag_p99_ns) == ("", None)


async def test_a_window_that_ended_without_its_seal_has_no_lines() -> None:
    live = Live("001-a", KINDS)
    lines = await listening(live)
    live.end()
    assert [line async for line in lines] == []
    assert [line async for line in live.lines(silence_s=60)] == []
