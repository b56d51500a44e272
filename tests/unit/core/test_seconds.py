"""Second by second, over all agents: counts are added, percentiles are those of the sum."""

from __future__ import annotations

import csv
from collections.abc import Sequence

import numpy as np
import pytest

from kabench.core.histogram import Buckets, Histogram
from kabench.core.hlog import Interval
from kabench.core.identity import Kind, Metric
from kabench.core.seconds import HELD_BACK, QUANTILES, Seconds, _compact, csv_lines


def followed(parts: Sequence[tuple]) -> Seconds:
    seconds = Seconds()
    for header, intervals, _ in parts:
        assert list(seconds.follow(header, intervals)) == intervals
    return seconds


def test_each_second_is_the_sum_of_its_agents(forge) -> None:
    agents = HELD_BACK + 3
    parts = [forge.parts(agent=f"node-{number}") for number in range(agents)]
    records = {(r.kind, r.target): r for _, r in followed(parts).records()}
    assert set(records) == {("redis", "redis-0"), ("http", "echo-0")}
    record = records["redis", "redis-0"]
    assert (record.window, record.phase, record.block) == ("001-default", "default", 1)
    assert (record.window_ns, record.interval_ns) == (2_000_000_000, 1_000_000_000)
    for index in range(forge.intervals):
        whole: list[Interval] = [intervals[index] for _, intervals, _ in parts]
        notes = [interval.note.outcomes["redis-0"] for interval in whole]
        assert record.agents[index] == agents
        assert record.ok[index] == sum(note.ok for note in notes)
        assert record.error[index] == sum(note.error for note in notes)
        assert record.timeout[index] == sum(note.timeout for note in notes)
        assert record.skipped[index] == sum(note.skipped for note in notes)
        for metric, found in ((Metric.RESPONSE, record.response_ns), (Metric.SERVICE, record.service_ns)):
            total = Histogram()
            for interval in whole:
                total.add_buckets(interval.histograms["redis-0", metric])
            assert {name: found[name][index] for name in QUANTILES} == {
                name: total.quantile_ns(q) for name, q in QUANTILES.items()
            }
            assert found["max"][index] == total.max_ns


def test_a_kind_with_several_targets_has_a_sum_of_its_own(forge, monkeypatch) -> None:
    import sys

    kit = sys.modules[type(forge).__module__]
    monkeypatch.setattr(kit, "TARGETS", (("redis-0", "redis", Kind.REDIS), ("redis-1", "redis", Kind.REDIS)))
    records = [r for _, r in followed([forge.parts(agent="a"), forge.parts(agent="b")]).records()]
    assert [(r.kind, r.target) for r in records] == [
        ("redis", ""),
        ("redis", "redis-0"),
        ("redis", "redis-1"),
    ]
    kind, *targets = records
    assert kind.ok == [sum(counts) for counts in zip(*(r.ok for r in targets), strict=True)]
    assert kind.agents == targets[0].agents == [2, 2, 2]
    assert max(kind.response_ns["max"]) == max(max(r.response_ns["max"]) for r in targets)


def test_windows_stay_apart_and_a_cut_log_ends_early(forge) -> None:
    whole, cut, other = forge.parts(agent="a"), forge.parts(agent="b"), forge.parts(block=2)
    records = list(followed([whole, (cut[0], cut[1][:1], None), other]).records())
    by_window = {r.window: r for _, r in records if r.kind == "redis"}
    assert by_window["001-default"].agents == [2, 1, 1]
    assert by_window["002-default"].agents == [1, 1, 1]
    assert {run for run, _ in records} == {forge.run}


def test_the_csv_has_a_row_a_second_and_nothing_where_nothing_was_over(forge) -> None:
    header, intervals, _ = forge.parts(agent="a", kinds=(Kind.REDIS,))
    quiet = Interval(intervals[1].note, {})
    seconds = followed([(header, [intervals[0], quiet, intervals[2]], None)])
    rows = list(csv.DictReader("".join(csv_lines(seconds.records())).splitlines()))
    assert [row["second"] for row in rows] == ["0", "1", "2"]
    assert [row["in_window"] for row in rows] == ["1", "1", "0"]
    assert {row["target"] for row in rows} == {"redis-0"}
    assert int(rows[0]["ok"]) == intervals[0].note.outcomes["redis-0"].ok
    assert int(rows[0]["response_p99_ns"]) == intervals[0].histograms["redis-0", Metric.RESPONSE].quantile_ns(
        0.99
    )
    assert int(rows[0]["service_max_ns"]) == intervals[0].histograms["redis-0", Metric.SERVICE].max_ns
    assert rows[1]["response_p50_ns"] == rows[1]["service_max_ns"] == ""
    assert int(rows[1]["start_realtime_ns"]) - int(rows[0]["start_realtime_ns"]) == header.interval_ns


@pytest.mark.parametrize("count", [1, (1 << 32) - 1, 1 << 32, (1 << 55) - 1])
def test_what_is_held_back_loses_no_count(count: int) -> None:
    buckets = Buckets(np.array([0, 27_647]), np.array([1, count]))
    assert Buckets.sum([_compact(buckets)]) == buckets
    assert Buckets.sum([_compact(buckets), buckets]).total == 2 * (count + 1)
