"""The recorder by itself: borders, several intervals at once, and vitals."""

import asyncio
import os

import engine_kit as kit
import numpy as np
import pytest

from kabench.core.histogram import HIGHEST_OF, Histogram
from kabench.core.identity import Metric, Outcomes
from kabench.core.schedule import Schedule
from kabench_agent import folding, vitals
from kabench_agent.flights import Flights
from kabench_agent.protocols.base import Verdict
from kabench_agent.recorder import Recorder
from kabench_agent.vitals import Sample, SystemVitals

START_NS = 1_000_000


class Counting:
    """Vitals that tick at each sample."""

    def __init__(self, run_delay_ns=7):
        self.samples = 0
        self.run_delay_ns = run_delay_ns

    def sample(self):
        self.samples += 1
        delay = None if self.run_delay_ns is None else self.run_delay_ns * self.samples
        return Sample(500 * self.samples, self.samples, delay)


def made(due, targets=None, names=("a",), window_ns=2_500, vitals=None):
    due = np.array(due, dtype=np.int64)
    schedule = Schedule(due, np.array(targets or [0] * due.size, dtype=np.int64), np.zeros_like(due))
    flights = Flights(kit.Given(schedule), START_NS)
    news = []
    recorder = Recorder(
        flights,
        names,
        start_ns=START_NS,
        window_ns=window_ns,
        interval_ns=1_000,
        timeout_ns=400,
        vitals=vitals or Counting(),
        on_closed=lambda: news.append(1),
    )
    return flights, recorder, news


def through(flights, recorder, index, issued, sent, over, verdict=Verdict.OK):
    recorder.roll(START_NS + issued)
    flights.take_off(index, flights.target[index])
    flights.issued_ns[index] = START_NS + issued
    if sent is not None:
        flights.sent_ns[index] = START_NS + sent
    recorder.add(index, START_NS + over, verdict)
    flights.land(index)


def folded(recorder):
    intervals = []
    while recorder.closed:
        folding = recorder.fold(recorder.closed.popleft(), lambda: asyncio.sleep(0))
        intervals.append(asyncio.run(folding))
    return intervals


def test_requests_that_are_all_well_are_counted_in_each_metric_and_for_their_connections():
    flights, recorder, _ = made([0, 100, 200], targets=[0, 1, 0], names=("a", "b"))
    for index, (issued, sent, over) in enumerate([(1, 3, 30), (105, 109, 150), (210, 217, 290)]):
        through(flights, recorder, index, issued, sent, over)
    recorder.roll(START_NS + 1_000)
    (interval,) = folded(recorder)
    assert interval.histograms == {
        (name, metric): kit.histogram(values).buckets()
        for name, metric, values in [
            ("a", Metric.RESPONSE, [30, 90]),
            ("a", Metric.SERVICE, [27, 73]),
            ("a", Metric.LAG, [1, 10]),
            ("a", Metric.WAIT, [2, 7]),
            ("b", Metric.RESPONSE, [50]),
            ("b", Metric.SERVICE, [41]),
            ("b", Metric.LAG, [5]),
            ("b", Metric.WAIT, [4]),
        ]
    }
    assert recorder.connections._counts.tolist() == [2, 1]
    assert recorder.connections._sums_ns.tolist() == [100, 41]


@pytest.mark.parametrize(("size", "steps"), [(512, 5), (2, 2 * 5 + 4), (1, 3 * 5 + 4)])
def test_counting_an_interval_can_be_interrupted_within_each_slice_and_after_each_sum(
    size, steps, monkeypatch
):
    monkeypatch.setattr(folding, "SLICE", size)
    flights, recorder, _ = made([0, 100, 200], targets=[0, 1, 0], names=("a", "b"))
    for index, (issued, sent, over) in enumerate([(1, 3, 30), (105, 109, 150), (210, 217, 290)]):
        through(flights, recorder, index, issued, sent, over)
    recorder.roll(START_NS + 1_000)
    taken = []

    async def step():
        taken.append(1)

    interval = asyncio.run(recorder.fold(recorder.closed.popleft(), step))
    assert len(taken) == steps
    assert interval.histograms["a", Metric.RESPONSE] == kit.histogram([30, 90]).buckets()


def test_due_at_the_windows_start_is_recorded_and_a_nanosecond_before_is_not():
    flights, recorder, _ = made([-1, 0])
    through(flights, recorder, 0, -1, -1, 50)
    through(flights, recorder, 1, 0, 0, 60)
    recorder.roll(START_NS + 2_500)
    recorder.finish(START_NS + 2_500)
    intervals = folded(recorder)
    assert sum(i.note.outcomes["a"].ok for i in intervals) == 1
    assert intervals[0].histograms["a", Metric.RESPONSE].max_ns == 60


def test_completions_at_a_border_open_the_next_interval():
    flights, recorder, news = made([0, 0, 0, 0, 0])
    for index, over in enumerate([0, 999, 1_000, 2_499, 2_500]):
        through(flights, recorder, index, 0, 0, over)
    recorder.finish(START_NS + 2_600)
    intervals = folded(recorder)
    assert [i.note.outcomes["a"].ok for i in intervals] == [2, 1, 1, 1]
    assert [i.note.start_ns - START_NS for i in intervals] == [0, 1_000, 2_000, 2_500]
    assert [i.note.length_ns for i in intervals] == [1_000, 1_000, 500, 101]
    assert len(news) == 4


def test_every_metric_holds_what_its_definition_says():
    flights, recorder, _ = made([0, 10, 20, 30, 40, 50], [0, 0, 0, 1, 0, 0], ("a", "b"))
    through(flights, recorder, 0, 1, 5, 100)
    through(flights, recorder, 1, 12, None, 120, Verdict.CONNECT)
    through(flights, recorder, 2, 23, 30, 150, Verdict.STATUS)
    through(flights, recorder, 3, 30, 31, 160)
    through(flights, recorder, 4, 40, 41, 340, Verdict.TIMEOUT)  # 300 after it was due: enters at 400
    through(flights, recorder, 5, 700, None, 700, Verdict.SKIPPED)  # 650 late already
    recorder.roll(START_NS + 2_500)
    first = folded(recorder)[0]
    exact = {
        key: np.repeat(HIGHEST_OF[held.indices], held.counts).tolist()
        for key, held in first.histograms.items()
    }
    assert exact == {
        ("a", Metric.RESPONSE): [100, 400, 650],
        ("a", Metric.SERVICE): [95],
        ("a", Metric.LAG): [0, 1, 2, 3, 650],
        ("a", Metric.WAIT): [1, 4, 7],
        ("a", Metric.ERROR): [110, 130],
        ("b", Metric.RESPONSE): [130],
        ("b", Metric.SERVICE): [129],
        ("b", Metric.LAG): [0],
        ("b", Metric.WAIT): [1],
    }
    assert first.note.outcomes == {
        "a": Outcomes(sent=4, ok=1, error=2, timeout=1, skipped=1, errors={"connect": 1, "status": 1}),
        "b": Outcomes(sent=1, ok=1),
    }


def test_intervals_that_close_together_share_one_sample():
    counting = Counting()
    _, recorder, _ = made([0], vitals=counting)
    recorder.roll(START_NS)
    recorder.reconnects = 3
    recorder.roll(START_NS + 2_000)
    first, second = folded(recorder)
    assert counting.samples == 2
    assert (first.note.health.cpu_share, second.note.health.cpu_share) == (0.25, 0.25)
    assert (first.note.health.collections, second.note.health.collections) == (1, 0)
    assert (first.note.health.run_delay_ns, second.note.health.run_delay_ns) == (7, 0)
    assert (first.note.health.reconnects, second.note.health.reconnects) == (3, 0)


def test_what_the_kernel_does_not_tell_is_none():
    _, recorder, _ = made([0], vitals=Counting(run_delay_ns=None))
    recorder.roll(START_NS)
    recorder.roll(START_NS + 1_000)
    assert folded(recorder)[0].note.health.run_delay_ns is None


def test_nothing_closes_before_the_window_begins():
    _, recorder, news = made([0])
    recorder.roll(START_NS - 1)
    assert recorder.next_ns == START_NS
    recorder.roll(START_NS)
    assert recorder.next_ns == START_NS + 1_000
    assert news == []


def test_folding_many_values_is_the_same_as_recording_each():
    rng = np.random.default_rng(3)
    count = 2_000
    due = np.sort(rng.integers(0, 900, count))
    flights, recorder, _ = made(due.tolist(), rng.integers(0, 3, count).tolist(), ("a", "b", "c"))
    took = np.sort(rng.integers(0, 99, count))
    for index in range(count):
        flights.take_off(index, flights.target[index])
        flights.issued_ns[index] = flights.sent_ns[index] = flights.due_ns[index]
    over = np.sort(due + took)
    recorder.roll(START_NS)
    for index in range(count):
        recorder.add(index, START_NS + int(over[index]), Verdict.OK)
    recorder.roll(START_NS + 1_000)
    interval = folded(recorder)[0]
    for number, name in enumerate("abc"):
        expected = Histogram()
        for index in np.flatnonzero(np.array(flights.target)[:count] == number):
            expected.record(int(over[index] - due[index]))
        assert interval.histograms[name, Metric.RESPONSE] == expected.buckets()
    assert (
        interval.note.outcomes["a"].ok + interval.note.outcomes["b"].ok + interval.note.outcomes["c"].ok
        == count
    )


def test_vitals_are_this_processs():
    before = SystemVitals().sample()
    sum(range(300_000))
    after = SystemVitals().sample()
    assert after.cpu_ns > before.cpu_ns
    assert after.collections >= before.collections
    assert (after.run_delay_ns is None) == (not os.path.exists(vitals.SCHEDSTAT))


@pytest.mark.parametrize("text", [None, "", "12", "a b c"])
def test_where_there_is_no_schedstat_the_run_delay_is_none(tmp_path, monkeypatch, text):
    path = tmp_path / "schedstat"
    if text is not None:
        path.write_text(text)
    monkeypatch.setattr(vitals, "SCHEDSTAT", str(path))
    assert SystemVitals().sample().run_delay_ns is None
