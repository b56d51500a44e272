"""Merging folders: each window once, by whatever way it is found; nothing lost; what is broken is named."""

import csv
import gc
import hashlib
import os
import shutil
import tracemalloc
import weakref

import msgspec
import pytest

from kabench.core.histogram import Histogram
from kabench.core.identity import Kind, Metric, Outcomes
from kabench.core.journal import BlockClosed, BlockStarted, RunStarted
from kabench.core.merge import Corrupt, parts_of_cells, summary
from kabench.core.merged_log import read_merged
from kabench.core.result import VoidReason
from kabench.core.totals import WindowTotals, read_totals
from kabench.errors import LogError, SpecError, StoreError
from kabench.store import RunStore, merge_paths, run_store
from kabench.store.cells import cells_of
from kabench.store.collect import find, read
from kabench.store.cross_check import cross_check
from kabench.store.merging import gather

AGENTS = ("node-1", "node-2")
PHASES = ("default", "mine")


@pytest.fixture
def run(tmp_path, forge):
    """A run of three blocks: valid, void, and never closed."""
    return make_run(tmp_path / "results", forge)


def make_run(results, forge):
    with RunStore.create(results, forge.run) as store:
        store.append(RunStarted(forge.run, "0.1.0", "local", "", {}, forge.scenario, 1, 10))
        for block in (1, 2, 3):
            store.append(BlockStarted(block, list(PHASES), [], {}, False, block))
            for phase in PHASES:
                for agent in AGENTS:
                    content = forge.log(block=block, phase=phase, agent=agent)
                    store.write_log(f"{block:03d}-{phase}", agent, content)
            if block < 3:
                reasons = [VoidReason("lag", phase, "0.9 ms") for phase in PHASES[: block - 1]]
                store.append(BlockClosed(block, not reasons, reasons, block))
    return store.folder


def totals_of(path):
    return read_totals(path.read_bytes().splitlines(True))


def answered(folder):
    """Requests that ended well, counted by hand."""
    paths = folder.rglob("node-*.hlog")
    return sum(
        target.outcomes.ok
        for path in paths
        for target in totals_of(path).targets.values()
        if target.target.kind is not Kind.NULL
    )


def ok_of(part):
    return sum(kind["requests"]["ok"] for phase in part.values() for kind in phase.values())


def test_a_run_is_merged_by_phase_and_kind_and_what_is_void_kept_apart(run, tmp_path):
    report = merge_paths([run], tmp_path / "out")
    assert report.corrupt == report.unjudged == []
    assert report.windows == 12
    assert set(report.summary["phases"]) == set(report.summary["void"]) == set(PHASES)
    assert ok_of(report.summary["phases"]) + ok_of(report.summary["void"]) == answered(run)
    redis = report.summary["phases"]["default"]["redis"]
    first = [totals_of(run / "logs" / "001-default" / f"{agent}.hlog") for agent in AGENTS]
    outcomes = sum((log.targets["redis-0"].outcomes for log in first), Outcomes())
    assert redis["requests"]["planned"] == outcomes.planned
    assert redis["rate_per_s"] == outcomes.ok / 2


def test_three_files_say_the_same(run, tmp_path):
    out = tmp_path / "out"
    report = merge_paths([run], out)
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in report.files)
    assert msgspec.json.decode((out / "merged.json").read_bytes()) == report.summary
    with (out / "merged.hlog").open("rb") as file:
        header, histograms = read_merged(file)
    assert len(header.members) == 12
    response = histograms[False, "mine", Kind.HTTP, Metric.RESPONSE]
    assert response.max_ns == report.summary["phases"]["mine"]["http"]["response_ns"]["max"]
    text = (out / "mine.http.response.hgrm").read_text()
    assert f"TotalCount     = {response.total:12.3f}" in text
    assert f"Max     = {response.max_ns / 1e6:12.3f}" in text
    assert len(list(out.glob("*.hgrm"))) == 8


def test_the_seconds_are_written_where_they_are_asked_for(run, tmp_path):
    report = merge_paths([run], tmp_path / "out", series=True)
    assert report.files[-1] == tmp_path / "out" / "series.csv"
    rows = list(csv.DictReader(report.files[-1].read_text().splitlines()))
    assert {row["window"] for row in rows} == {
        f"00{block}-{phase}" for block in (1, 2, 3) for phase in PHASES
    }
    assert {row["agents"] for row in rows} == {"2"}
    sent = sum(sum(int(row[name]) for name in ("ok", "error", "timeout")) for row in rows)
    counted = [*report.summary["phases"].values(), *report.summary["void"].values()]
    assert sent == sum(kind["requests"]["sent"] for phase in counted for kind in phase.values())
    assert merge_paths([run], tmp_path / "without").files == [
        tmp_path / "without" / path.name for path in report.files[:-1]
    ]


def test_merging_twice_gives_the_same_bytes(run, tmp_path):
    def contents(out):
        return {path.name: path.read_bytes() for path in out.iterdir()}

    once = merge_paths([run], run)
    first = {path.name: path.read_bytes() for path in once.files}
    again = merge_paths([run], run)  # finds its own output
    assert {path.name: path.read_bytes() for path in again.files} == first
    assert again.ignored == 1
    merge_paths([run, run / "logs", run.parent / "latest", run / "merged.hlog"], tmp_path / "c")
    assert contents(tmp_path / "c") == first
    copy = tmp_path / "copy" / run.name
    shutil.copytree(run, copy, symlinks=True)
    report = merge_paths([copy.parent, run.parent], tmp_path / "d")
    assert contents(tmp_path / "d") == first
    assert report.windows == 12
    assert report.ignored == 14


def test_links_and_loops_are_followed_once(run, tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    (place / "run").symlink_to(run)
    (place / "again").symlink_to(run)
    (place / "loop").symlink_to(place)
    (place / "nowhere").symlink_to(place / "missing")
    os.link(run / "logs" / "001-default" / "node-1.hlog", place / "hard.hlog")
    report = merge_paths([place], tmp_path / "out")
    assert report.windows == 12
    assert report.corrupt == []
    assert report.ignored == 0


def test_a_part_of_a_run_is_judged_by_the_runs_journal(run, tmp_path):
    report = merge_paths([run / "logs" / "002-mine"], tmp_path / "out")
    assert report.unjudged == []
    assert report.summary["phases"] == {}
    assert set(report.summary["void"]) == {"mine"}
    single = merge_paths([run / "logs" / "001-mine" / "node-1.hlog"], tmp_path / "out")
    assert single.windows == 1
    assert set(single.summary["phases"]) == {"mine"}


def test_logs_without_a_journal_are_counted_and_named(run, tmp_path, forge):
    spool = tmp_path / "spool" / "node-1"
    spool.mkdir(parents=True)
    forge.run = "other"
    (spool / "a.hlog").write_bytes(forge.log())
    report = merge_paths([run, tmp_path / "spool"], tmp_path / "out")
    assert report.unjudged == report.summary["unjudged"] == ["spool/node-1/a.hlog"]
    assert report.windows == 13
    with (tmp_path / "out" / "merged.hlog").open("rb") as file:
        assert [member.id.run for member in read_merged(file)[0].members if not member.judged] == ["other"]
    moved = tmp_path / "moved"
    moved.mkdir()
    (tmp_path / "out" / "merged.hlog").rename(moved / "m.hlog")
    assert merge_paths([moved], tmp_path / "out").unjudged == ["moved/m.hlog"]


def test_a_cut_log_is_named_and_its_whole_intervals_are_counted(run, tmp_path, forge):
    path = run / "logs" / "001-default" / "node-1.hlog"
    before = answered(run)
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"#kabench:seal") - 40])
    report = merge_paths([run], tmp_path / "out")
    [corrupt] = report.corrupt
    assert corrupt.path == f"{run.name}/logs/001-default/node-1.hlog"
    assert "2 whole intervals were read" in corrupt.reason
    assert report.summary["corrupt"] == [{"path": corrupt.path, "reason": corrupt.reason}]
    _, intervals, _ = forge.parts(agent="node-1")
    lost = sum(counts.ok for name, counts in intervals[2].note.outcomes.items() if name != "null-echo")
    assert ok_of(report.summary["phases"]) + ok_of(report.summary["void"]) == before - lost
    for kinds in report.summary["phases"].values():
        for kind in kinds.values():
            counts = kind["requests"]
            assert counts["planned"] == counts["sent"] + counts["skipped"]


def test_a_whole_copy_stands_in_for_a_cut_one(run, tmp_path):
    whole = merge_paths([run], tmp_path / "a").summary
    path = run / "logs" / "001-default" / "node-1.hlog"
    for name, size in (("spool/node-1/0.hlog", 3000), ("z/9.hlog", 6000)):
        (run / name).parent.mkdir(parents=True)
        (run / name).write_bytes(path.read_bytes()[:size])
    report = merge_paths([run], tmp_path / "b")
    assert report.summary["phases"] == whole["phases"]
    assert [entry.path for entry in report.corrupt] == [
        f"{run.name}/spool/node-1/0.hlog",
        f"{run.name}/z/9.hlog",
    ]
    assert all(
        f"{run.name}/logs/001-default/node-1.hlog holds the same" in entry.reason for entry in report.corrupt
    )


def test_of_two_cut_copies_the_one_with_more_in_it_counts(tmp_path, forge):
    content = forge.log()
    second = content.index(b"#kabench:interval", content.index(b'"index":1'))
    for name, size in (("a", 3000), ("b", second - 5), ("c", second + 5)):
        (tmp_path / f"{name}.hlog").write_bytes(content[:size])
    report = merge_paths([tmp_path], tmp_path / "out")
    assert report.windows == 1
    assert len(report.corrupt) == 3
    parts = [
        read_totals([*content[: second + 5].splitlines(True)]).targets[name].outcomes.ok
        for name in ("redis-0", "echo-0")
    ]
    assert ok_of(report.summary["phases"]) == sum(parts) > 0


def test_two_sealed_logs_of_one_window_are_a_contradiction(tmp_path, forge):
    for name, salt in (("a", "x"), ("b", "y"), ("c", "x")):
        (tmp_path / f"{name}.hlog").write_bytes(forge.log(salt=salt))
    report = merge_paths([tmp_path], tmp_path / "out")
    [corrupt] = report.corrupt
    assert "with other content; that one was counted" in corrupt.reason
    assert report.windows == 1


def test_what_is_no_log_is_named_and_the_rest_merged(run, tmp_path):
    (run / "logs" / "empty.hlog").write_bytes(b"")
    (run / "logs" / "noise.hlog").write_bytes(bytes(range(256)) * 64)
    (run / "logs" / "theirs.hlog").write_bytes(
        b'#[StartTime: 1]\n"StartTimestamp"\nTag=a,0.1,1.0,2.0,HISTFAAA\n'
    )
    (run / "logs" / "cut.hlog").write_bytes(b"#[Histogram log format version 1.3]\n#kabench:merged {")
    (run / "logs" / "folder.hlog").mkdir()
    report = merge_paths([run], tmp_path / "out")
    assert [(entry.path.rsplit("/", 1)[1], entry.reason.split(",")[0]) for entry in report.corrupt] == [
        ("cut.hlog", report.corrupt[0].reason.split(",")[0]),
        ("empty.hlog", "it ends before its header"),
        ("noise.hlog", "no kabench header"),
        ("theirs.hlog", "no kabench header"),
    ]
    assert "kabench:merged does not read" in report.corrupt[0].reason
    assert report.windows == 12
    only = tmp_path / "only"
    only.mkdir()
    (only / "a.hlog").write_bytes(b"")
    nothing = merge_paths([only], tmp_path / "out2")
    assert nothing.corrupt == [Corrupt("only/a.hlog", "it ends before its header")]
    assert nothing.files == []
    assert not (tmp_path / "out2").exists()


def test_what_cannot_be_read_is_named(run, tmp_path):
    (run / "logs" / "gone.hlog").symlink_to(run / "nowhere")
    report = merge_paths([run], tmp_path / "out")
    assert report.corrupt == [
        Corrupt(f"{run.name}/logs/gone.hlog", "cannot be read: No such file or directory")
    ]
    assert report.windows == 12


def test_a_corrupt_journal_is_named_and_judges_by_what_it_still_says(run, tmp_path):
    path = run / "journal.jsonl"
    lines = path.read_bytes().splitlines(True)
    path.write_bytes(b"".join([*lines[:3], b"{}\n", *lines[3:]]))
    report = merge_paths([run], tmp_path / "out")
    assert report.corrupt[0].path == f"{run.name}/journal.jsonl"
    assert "line 4 is no event" in report.corrupt[0].reason
    assert ok_of(report.summary["phases"]) > 0
    path.write_bytes(b"\n")
    assert len(merge_paths([run], tmp_path / "out").unjudged) == 12


def test_merged_logs_are_added_where_they_hold_other_windows(run, tmp_path, forge):
    forge.run = "20261125T000000Z-00cd"
    second = make_run(tmp_path / "more", forge)
    both = merge_paths([run, second], tmp_path / "both")
    a, b = tmp_path / "a", tmp_path / "b"
    merge_paths([run], a)
    merge_paths([second], b)
    of_merged = merge_paths([a, b], tmp_path / "c")
    assert of_merged.summary == both.summary
    assert (tmp_path / "c" / "merged.hlog").read_bytes() == (tmp_path / "both" / "merged.hlog").read_bytes()
    mixed = merge_paths([a, second, tmp_path / "both"], tmp_path / "d")
    assert [entry.path for entry in mixed.corrupt] == ["both/merged.hlog"]
    assert "cannot be split" in mixed.corrupt[0].reason
    assert mixed.summary["phases"] == both.summary["phases"]
    nested = merge_paths([a, b, tmp_path / "both"], tmp_path / "e")
    assert nested.summary == both.summary
    assert nested.ignored == 2


def test_different_scenarios_are_refused_unless_allowed(run, tmp_path, forge):
    forge.run, forge.scenario = "20261125T000000Z-00cd", "6" * 64
    second = make_run(tmp_path / "more", forge)
    with pytest.raises(SpecError, match="--allow-different"):
        merge_paths([run, second], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert merge_paths([run, second], tmp_path / "out", allow_different=True).windows == 24


def test_paths_that_hold_nothing_are_the_users_to_mend(tmp_path):
    with pytest.raises(SpecError, match="no such file"):
        merge_paths([tmp_path / "x"], tmp_path / "out")
    with pytest.raises(SpecError, match=r"no agent's log \(\*\.hlog\)"):
        merge_paths([tmp_path], tmp_path / "out")


def test_an_output_that_cannot_be_written_is_said(run, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(StoreError, match="out"):
        merge_paths([run], tmp_path / "out")


def test_results_and_merged_logs_agree_to_the_last_count(run, tmp_path):
    with RunStore.open(run) as store:
        (run / "spool" / "node-3").mkdir(parents=True)  # an agent that was killed left this behind
        log = run / "logs" / "001-mine" / "node-2.hlog"
        (run / "spool" / "node-3" / "x.hlog").write_bytes(log.read_bytes()[:-300])
        log.unlink()
        cells = store.read_cells()
        assert [record.cell for record in cells] == sorted(record.cell for record in cells)
        of_cells = summary(parts_of_cells(store.run, cells, [1], 2 * 10**9))
        of_logs = merge_paths([run], tmp_path / "out").summary
        assert of_cells["phases"] == of_logs["phases"]
        assert of_cells["void"] == of_logs["void"]
        assert store.summary() == of_logs
        assert of_logs["corrupt"]


def test_a_cells_series_are_its_intervals(run, forge):
    with RunStore.open(run) as store:
        cells = {
            (record.cell.block, record.cell.agent, record.cell.target): record
            for record in store.read_cells()
        }
    assert len(cells) == 3 * 2 * 2
    _, intervals, _ = forge.parts(block=1, phase="mine", agent="node-1")
    record = cells[1, "node-1", "redis-0"]
    assert record.cell.node == "node-2"
    assert record.cell.workload == "redis-latency-test"
    notes = [interval.note.outcomes["redis-0"] for interval in intervals]
    assert record.series.ok == [note.ok for note in notes]
    assert record.series.skipped == [note.skipped for note in notes]
    responses = [interval.histograms["redis-0", Metric.RESPONSE] for interval in intervals]
    assert record.series.response_p50_ns == [histogram.quantile_ns(0.5) for histogram in responses]
    assert record.series.response_max_ns == [histogram.max_ns for histogram in responses]
    assert Histogram.decode(record.histograms["response"]).total == sum(
        histogram.total for histogram in responses
    )


def test_an_agents_window_tells_the_state_of_the_instrument(run, forge):
    path = run / "logs" / "001-default" / "node-2.hlog"
    path.write_bytes(path.read_bytes()[:-200])
    roles = {"node-1": "quiet", "node-2": "noisy", "node-3": "shared"}
    with RunStore.open(run) as store:
        first, second, third = store.agent_windows("001-default", roles, {"node-1": (5, 2)})
    _, intervals, seal = forge.parts(agent="node-1")
    assert (first.agent, first.status, first.role) == ("node-1", "sealed", "quiet")
    assert (first.clock_offset_ns, first.clock_error_ns, first.start_skew_ns) == (5, 2, 1200)
    assert first.outcomes == seal.totals["redis-0"] + seal.totals["echo-0"]
    lag, null = Histogram(), Histogram()
    for interval in intervals:
        lag.add_buckets(interval.histograms["redis-0", Metric.LAG])
        lag.add_buckets(interval.histograms["echo-0", Metric.LAG])
        null.add_buckets(interval.histograms["null-echo", Metric.SERVICE])
    assert first.lag_p99_ns == lag.quantile_ns(0.99)
    assert (first.null_p50_ns, first.null_p99_ns) == (null.quantile_ns(0.5), null.quantile_ns(0.99))
    assert first.cpu_share == 0.1
    assert (second.status, second.role) == ("unsealed", "noisy")
    assert (third.status, third.outcomes) == ("missing", Outcomes())


def test_the_package_must_count_what_we_count(run):
    path = run / "logs" / "001-default" / "node-1.hlog"
    totals = totals_of(path)
    cross_check(path, totals)
    totals.targets["redis-0"].histograms[Metric.LAG].record(5)
    with pytest.raises(LogError, match=r"values of redis-0\.lag, we count"):
        cross_check(path, totals)
    path.write_bytes(path.read_bytes().replace(b"HISTFAAA", b"HISTFAAB", 1))
    with pytest.raises(LogError, match="cannot read it"):
        cross_check(path, totals)


def test_a_log_that_the_package_reads_otherwise_is_as_good_as_none(run, monkeypatch):
    def differ(path, totals):
        raise LogError("they differ")

    with RunStore.open(run) as store:
        [before] = store.agent_windows("001-default", {"node-1": "quiet"}, {})
        monkeypatch.setattr(run_store, "cross_check", differ)
        [after] = store.agent_windows("001-default", {"node-1": "quiet"}, {})
    assert (before.status, after.status) == ("sealed", "missing")


def test_the_logs_of_a_window_are_in_memory_one_at_a_time(run, monkeypatch):
    held = weakref.WeakSet()
    most = 0

    def watched(log):
        nonlocal most
        totals = Totals(**vars(read(log)))
        held.add(totals)
        most = max(most, len(held))
        return totals

    class Totals(WindowTotals):
        __hash__ = object.__hash__  # so that a set can hold it

    monkeypatch.setattr(run_store, "read", watched)
    with RunStore.open(run) as store:
        windows = list(store.agent_windows("001-default", {"node-1": "quiet", "node-2": "noisy"}, {}))
    assert [window.status for window in windows] == ["sealed", "sealed"]
    assert most == 1


def test_a_log_that_vanishes_while_merging_is_named(run):
    path = run / "logs" / "001-default" / "node-1.hlog"
    (run / "logs" / "cut.hlog").write_bytes(path.read_bytes()[:3000])
    found = find([run])
    log = found.logs[0]
    shutil.rmtree(run / "logs")
    for look in (read, cells_of):
        with pytest.raises(LogError, match="cannot be read: No such file"):
            look(log)
    gathered = gather(found)
    assert gathered.merge.members == {}
    assert len(gathered.corrupt) == 13


def test_memory_stays_flat_over_many_logs(tmp_path, forge):
    forge.intervals, forge.requests = 1, 3
    template = forge.log(block=1, kinds=(Kind.REDIS,))
    place = tmp_path / "many"
    place.mkdir()

    def peak(count):
        for number in range(count):
            log = template.replace(b'"window":"001-default"', b'"window":"%03d-default"' % number)
            body, _, seal = log.partition(b"#kabench:seal ")
            sealed = msgspec.json.decode(seal) | {"sha256": hashlib.sha256(body).hexdigest()}
            content = body + b"#kabench:seal " + msgspec.json.encode(sealed) + b"\n"
            (place / f"{number}.hlog").write_bytes(content)
        gc.collect()
        gc.disable()  # neither what other tests left behind nor a collection's luck: a cycle would grow with every log
        tracemalloc.start()
        try:
            report = merge_paths([place], tmp_path / "out")
            top = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
            gc.enable()
        assert report.windows == count
        assert report.corrupt == []
        return top

    few, many = peak(20), peak(200)
    assert many - few < 180 * 10_000  # names, headers and members; the histograms of a log take 2 MB
