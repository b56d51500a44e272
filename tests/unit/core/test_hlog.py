"""An agent's log: what is written is read, other tools read it, and what is broken is named without losing the rest."""

import hashlib
import io
import re

import msgspec
import pytest
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader, HistogramLogWriter
from hypothesis import given
from hypothesis import strategies as st

from kabench.core import logline
from kabench.core.health import Health
from kabench.core.histogram import DIGITS, HIGHEST_NS, LOWEST_NS, Histogram
from kabench.core.hlog import (
    Header,
    Interval,
    IntervalNote,
    LoggedTarget,
    LogReader,
    LogWriter,
    Seal,
    read_log,
    sum_health,
)
from kabench.core.identity import Kind, Metric, Outcomes
from kabench.core.logline import INTERVAL_MARK, SEAL_MARK, WINDOW_MARK
from kabench.core.totals import read_totals
from kabench.errors import LogError


def lines(content):
    return io.BytesIO(content)


def not_empty(interval):
    return Interval(interval.note, {key: h for key, h in interval.histograms.items() if h.total})


def test_what_is_written_is_read(forge):
    header, intervals, seal = forge.parts()
    log = read_log(lines(forge.log()))
    assert log.header == header
    assert list(log.intervals) == [not_empty(interval) for interval in intervals]
    assert log.problem == ""
    assert msgspec.structs.replace(log.seal, sha256="") == seal


def test_the_seal_holds_the_digest_of_all_that_stands_before_it(forge):
    content = forge.log()
    at = content.index(SEAL_MARK)
    assert read_log(lines(content)).seal.sha256 == hashlib.sha256(content[:at]).hexdigest()
    assert content.endswith(b"}\n")


def test_the_first_lines_and_a_histograms_line_are_as_documented(forge):
    first = forge.log().splitlines()
    assert first[0] == b"#[Histogram log format version 1.3]"
    assert first[1] == b"#[StartTime: 1764000000.123 (seconds since epoch), 2025-11-24T16:00:00Z]"
    assert first[2] == b"#[BaseTime: 1764000000.123 (seconds since epoch)]"
    assert first[3].startswith(b"#kabench:window {")
    assert first[4].startswith(b'"StartTimestamp","Interval_Length"')
    assert re.fullmatch(rb"Tag=redis-0\.response,0\.000,1\.000,\d+\.\d{3},HISTFAAA[\w+/=]+", first[5])
    second = [line for line in first if line.startswith(b"Tag=redis-0.service,1.000,")]
    assert len(second) == 1


def test_the_package_reads_our_logs(forge, tmp_path):
    path = tmp_path / "a.hlog"
    path.write_bytes(forge.log())
    reader = HistogramLogReader(str(path), HdrHistogram(LOWEST_NS, HIGHEST_NS, DIGITS))
    theirs = {}
    while histogram := reader.get_next_interval_histogram():
        theirs.setdefault(histogram.get_tag(), Histogram()).add(Histogram.decode(histogram.encode()))
    assert reader.get_start_time_sec() == 1764000000.123
    reader.close()
    totals = read_totals(lines(forge.log()))
    assert theirs == {
        f"{name}.{metric}": histogram
        for name, target in totals.targets.items()
        for metric, histogram in target.histograms.items()
    }


def test_other_writers_logs_are_refused_in_a_sentence():
    text = io.StringIO()
    writer = HistogramLogWriter(text)
    writer.output_log_format_version()
    writer.output_legend()
    histogram = HdrHistogram(LOWEST_NS, HIGHEST_NS, DIGITS)
    histogram.record_value(5)
    writer.output_interval_histogram(histogram, 1, 2)
    for content in (
        text.getvalue().encode(),
        text.getvalue().splitlines(True)[-1].encode(),
        b"\x00\xff" * 100,
    ):
        with pytest.raises(LogError, match="no kabench header"):
            read_log(lines(content))
    with pytest.raises(LogError, match="before its header"):
        read_log([])
    with pytest.raises(LogError, match="merged"):
        read_log([b"#kabench:merged {}\n"])


def test_totals_are_the_sum_of_the_intervals(forge):
    _, intervals, seal = forge.parts()
    totals = read_totals(lines(forge.log()))
    assert totals.intervals == len(intervals)
    assert totals.window_id.agent == "node-1"
    for name, target in totals.targets.items():
        assert target.outcomes == seal.totals[name]
        assert target.outcomes.reconciled
        for metric, histogram in target.histograms.items():
            expected = Histogram()
            for interval in intervals:
                expected.add_buckets(interval.histograms[name, metric])
            assert histogram == expected
    assert totals.health == seal.health


def test_an_unsealed_log_counts_as_planned_what_its_intervals_hold(forge):
    content = forge.log(sealed=False)
    totals = read_totals(lines(content))
    assert totals.seal is None
    assert "unsealed" in totals.problem
    whole = read_totals(lines(forge.log()))
    for name, target in totals.targets.items():
        assert target.outcomes == whole.targets[name].outcomes
    assert totals.health == Health(cpu_share=pytest.approx(0.1), max_in_flight=3, run_delay_ns=30)


@given(data=st.data())
def test_a_changed_byte_is_noticed(data):
    content = bytearray(WHOLE)
    at = data.draw(st.integers(0, len(content) - 2))  # the last newline may go
    content[at] = data.draw(st.integers(0, 255).filter(lambda value: value != content[at]))
    try:
        log = read_log(lines(bytes(content)))
    except LogError:
        assert at < WHOLE.index(b"Tag=")
    else:  # the seal's own remarks on the instrument are all that no digest covers
        assert log.problem or at > WHOLE.index(SEAL_MARK)


HEADER = {
    "version": 1, "run": "r", "scenario_sha256": "s", "window": "001-a", "phase": "a", "block": 1, "agent": "n",
    "instance": "i", "boot_id": "b", "seed": 1, "arrivals": "constant", "start_ns": 0, "start_realtime_ns": 10**18,
    "warm_up_ns": 0, "window_ns": 10**9, "interval_ns": 10**9, "timeout_ns": 10**9, "pacer": "timerfd",
    "geometry": [LOWEST_NS, HIGHEST_NS, DIGITS],
    "targets": [
        {"name": "t", "workload": "w", "node": "n", "kind": "redis", "rate_per_s": 1.0, "connections": 1, "planned": 2}
    ],
}  # fmt: skip
TWO = {"sent": 2, "ok": 2}


def note(index=0, outcomes=TWO, name="t"):
    return IntervalNote(index, index * 10**9, 10**9, {name: Outcomes(**outcomes)}, Health())


def histogram_of(*values):
    histogram = Histogram()
    histogram.record_many(values)
    return histogram


ALL = {metric: histogram_of(5, 6) for metric in (Metric.RESPONSE, Metric.SERVICE, Metric.LAG, Metric.WAIT)}


def handmade(header=HEADER, notes=None, histograms=ALL, seal=None, extra=b""):
    """A log whose pieces a test can bend; the digest is right."""
    writer = LogWriter()
    pieces = [writer.begin(msgspec.convert(header, Header))]
    for interval_note in [note()] if notes is None else notes:
        keyed = {("t", metric): histogram.buckets() for metric, histogram in histograms.items()}
        pieces.append(writer.interval(Interval(interval_note, keyed)))
    seal = seal or Seal(1, {"t": Outcomes(planned=2, sent=2, ok=2)}, Health(), 0)
    return b"".join(pieces) + writer.seal(seal) + extra


WHOLE = handmade()


def test_the_handmade_log_is_whole():
    assert read_log(lines(WHOLE)).problem == ""


def test_an_interval_is_written_a_line_at_a_time():
    histograms = {(f"t{number}", Metric.RESPONSE): histogram_of(1, 2, 3).buckets() for number in range(20)}
    writer, again = LogWriter(), LogWriter()
    for one in (writer, again):
        one.begin(msgspec.convert(HEADER, Header))
    interval = Interval(note(), histograms)
    written = list(writer.lines(interval))
    assert [line.count(b"\n") for line in written] == [1] * 21
    assert b"".join(written) == again.interval(interval)


def test_cut_anywhere_no_whole_interval_is_lost():
    header = HEADER | {"targets": [HEADER["targets"][0] | {"planned": 4}]}
    seal = Seal(2, {"t": Outcomes(planned=4, sent=4, ok=4)}, Health(), 0)
    content = handmade(header, [note(0), note(1)], seal=seal)
    whole = read_log(lines(content))
    assert whole.problem == ""
    header_end = content.index(b"\n", content.index(WINDOW_MARK))
    ends = [match.end() for match in re.finditer(re.escape(INTERVAL_MARK) + rb"[^\n]*", content)]
    assert len(ends) == 2
    for cut in range(len(content) - 1):  # without its last newline it is still whole
        try:
            log = read_log(lines(content[:cut]))
        except LogError:
            assert cut < header_end, cut
            continue
        assert log.problem, cut
        assert log.seal is None, cut
        assert log.intervals == whole.intervals[: sum(end <= cut for end in ends)], cut
    assert read_log(lines(content[:-1])).problem == ""


LESS = {metric: histogram for metric, histogram in ALL.items() if metric is not Metric.SERVICE}


@pytest.mark.parametrize(
    ("broken", "why", "kept"),
    [
        ({"histograms": LESS}, "service holds 0 values for 2", 0),
        ({"histograms": ALL | {Metric.ERROR: histogram_of(1)}}, "error holds 1 values for 0", 0),
        ({"notes": [note(index=1)]}, "interval 1 stands where 0", 0),
        ({"notes": [note(name="x")]}, "not in the header", 0),
        ({"notes": [note(outcomes={"sent": 3, "ok": 2})]}, "sent is not", 0),
        ({"notes": [note(outcomes={"sent": 3, "ok": 2, "error": 1})]}, "classes", 0),
        ({"notes": [note(outcomes={"sent": 2, "ok": 2, "planned": 2})]}, "planned", 0),
        ({"notes": [note(outcomes={"sent": 2, "ok": 2, "skipped": -2, "timeout": 2})]}, "negative", 0),
        (
            {"seal": Seal(2, {"t": Outcomes(planned=2, sent=2, ok=2)}, Health(), 0)},
            "2 intervals were sealed",
            1,
        ),
        ({"seal": Seal(1, {}, Health(), 0)}, "other targets", 1),
        ({"seal": Seal(1, {"t": Outcomes(planned=3, sent=3, ok=3)}, Health(), 0)}, "do not reconcile", 1),
        ({"seal": Seal(1, {"t": Outcomes(planned=2, sent=2, ok=1)}, Health(), 0)}, "do not reconcile", 1),
        ({"histograms": ALL | {Metric.LAG: histogram_of(1)}}, "1 lags for 2 planned", 1),
        ({"extra": b"more\n"}, "after the seal", 1),
    ],
)
def test_what_cannot_be_true_is_named_and_what_is_whole_before_it_kept(broken, why, kept):
    log = read_log(lines(handmade(**broken)))
    assert why in log.problem
    assert len(log.intervals) == kept


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (b"Tag=t.lag", b"Tag=t.lug", "belongs to no target"),
        (b"Tag=t.lag", b"Tag=t.wait", "belongs to no target of the header, or stands twice"),
        (b"Tag=t.lag", b"Tag=u.lag", "belongs to no target"),
        (b"Tag=t.lag,", b"Tag=t.lag,,", "neither a histogram"),
        (b"Tag=t.lag,0", b"Tag=t.lag,x", "does not read"),
        (b"Tag=t.lag", b"Tag=\xff\xfe", "does not read"),
        (b"HISTFAAAA", b"HISTFAAA!", "base64"),
        (b'"index":0', b'"index":"a"', "does not read"),
        (b"\n#kabench:seal", b"\ngarbage\n#kabench:seal", "neither a histogram"),
        (b'"sha256":"', b'"sha256":"0', "SHA-256 differs"),
        (b'"cpu_share":0.0', b'"cpu_share":0.5', "SHA-256 differs"),
    ],
)
def test_garbage_is_named(old, new, why):
    content = handmade()
    assert old in content
    log = read_log(lines(content.replace(old, new, 1)))
    assert why in log.problem
    assert log.seal is None


def test_histograms_that_no_interval_closed_are_noticed():
    content = handmade()
    at = content.index(b"Tag=t.lag")
    dangling = content[at : content.index(b"\n", at) + 1]
    body = content[: content.index(SEAL_MARK)] + dangling
    seal = Seal(1, {"t": Outcomes(planned=2, sent=2, ok=2)}, Health(), 0, hashlib.sha256(body).hexdigest())
    assert "1 are whole" in read_log(lines(body + SEAL_MARK + msgspec.json.encode(seal) + b"\n")).problem


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (b'"version":1', b'"version":2', "version 2"),
        (b"60000000000", b"3600000000", "another geometry"),
        (b'"phase":"a"', b'"phase":"../a"', "fits no tag"),
        (b'"window":', b'"wind":', "window"),
        (b"{", b"{{", "does not read"),
    ],
)
def test_a_header_of_another_kind_is_refused(old, new, why):
    with pytest.raises(LogError, match=why):
        read_log(lines(handmade().replace(old, new, 1)))


def test_names_that_fit_no_tag_are_refused_when_writing(forge):
    header, intervals, _ = forge.parts()
    target = LoggedTarget("a.b,c", "w", "n", Kind.HTTP, 1.0, 1, 0)
    with pytest.raises(ValueError, match="fits no tag"):
        LogWriter().begin(msgspec.structs.replace(header, targets=(target,)))
    with pytest.raises(ValueError, match="twice"):
        LogWriter().begin(msgspec.structs.replace(header, targets=header.targets * 2))
    writer = LogWriter()
    writer.begin(msgspec.structs.replace(header, start_ns=header.start_ns + 1))
    with pytest.raises(ValueError, match="before its window"):
        writer.interval(intervals[0])


@pytest.mark.parametrize("ahead", [1, 2, 7, 1000])
def test_however_far_it_reads_ahead_it_finds_the_same(forge, monkeypatch, ahead):
    """What is wrong is told where it stands, and what stands before it is read."""
    content = forge.log()
    whole, torn = read_log(lines(content)), read_log(lines(content[: len(content) // 2]))
    monkeypatch.setattr(logline, "LINES_AHEAD", ahead)
    assert read_log(lines(content)) == whole
    again = read_log(lines(content[: len(content) // 2]))
    assert (again.intervals, again.problem) == (torn.intervals, torn.problem)
    assert len(again.intervals) == 1
    assert "cut off" in again.problem


def test_the_reader_holds_one_interval_at_a_time(forge):
    reader = LogReader(lines(forge.log()))
    first = next(iter(reader))
    assert first.note.index == 0
    assert reader.seal is None
    assert [interval.note.index for interval in reader] == [1, 2]
    assert reader.seal is not None


def test_health_over_intervals():
    notes = [
        IntervalNote(0, 0, 300, {}, Health(0.1, 1, 5, 2, 3, 10)),
        IntervalNote(1, 300, 100, {}, Health(0.5, 0, 9, 1, 0, None)),
    ]
    assert sum_health(notes) == Health(pytest.approx(0.2), 1, 9, 3, 3, None)
    assert sum_health(notes[:1]).run_delay_ns == 10
    assert sum_health([]) == Health()
