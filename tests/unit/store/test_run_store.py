"""The run's folder: what is written is whole or absent, and what the system refuses is said in a sentence."""

import errno
import os
import subprocess
import sys

import msgspec
import pytest

from kabench.core.journal import BlockClosed, BlockStarted, RunEnded, RunStarted
from kabench.core.result import Comparison, RunResult
from kabench.errors import StoreError
from kabench.store import RunStore, free_bytes, read_journal, read_result
from kabench.store import files as store_files
from kabench.store.run_store import run_folders

RUN = "20261124T160000Z-00ab"
STARTED = RunStarted(RUN, "0.1.0", "local", "simulated placement", {"name": "s"}, "5" * 64, 1, 10)
BLOCK = BlockStarted(1, ["a", "b"], ["node-1"], {"node-1": "noisy"}, False, 11)
CLOSED = BlockClosed(1, True, [], 12)


@pytest.fixture
def store(tmp_path):
    with RunStore.create(tmp_path / "results", RUN) as store:
        yield store


def result(**changes):
    base = RunResult(
        run=RUN,
        schema=1,
        kabench="0.1.0",
        status="finished",
        started_realtime_ns=1,
        finished_realtime_ns=2,
        backend="local",
        placement_note="",
        scenario={},
        scenario_sha256="",
        seed=1,
        environment={},
        nodes=[],
        blocks=[],
        rounds=[],
        cells=[],
        summary={},
        comparison=Comparison(),
    )
    return msgspec.structs.replace(base, **changes)


def test_latest_points_to_the_newest_run(tmp_path):
    for run in (RUN, "20261124T170000Z-00cd"):
        with RunStore.create(tmp_path / "results", run) as store:
            assert store.run == run
            assert store.folder == tmp_path / "results" / run
        assert os.readlink(tmp_path / "results" / "latest") == run
    assert [folder.name for folder in run_folders(tmp_path / "results")] == [RUN, "20261124T170000Z-00cd"]


def test_a_run_is_never_written_over(store):
    with pytest.raises(StoreError, match="exists already"):
        RunStore.create(store.folder.parent, RUN)


def test_a_folder_in_the_way_of_latest_is_named(tmp_path):
    (tmp_path / "latest").mkdir()
    with pytest.raises(StoreError, match="latest"):
        RunStore.create(tmp_path, RUN)
    RunStore.open(tmp_path / RUN).close()  # not left locked


def test_the_journal_comes_back_in_order(store):
    assert store.journal() == []
    for event in (STARTED, BLOCK, CLOSED):
        store.append(event)
    assert store.journal() == read_journal(store.folder) == [STARTED, BLOCK, CLOSED]


def test_a_torn_last_line_is_passed_over_and_the_next_event_has_its_own(store):
    store.append(STARTED)
    store.close()
    path = store.folder / "journal.jsonl"
    whole = path.read_bytes() + msgspec.json.encode(BLOCK) + b"\n"
    for cut in range(len(whole) - 1, whole.index(b"\n"), -7):
        path.write_bytes(whole[:cut])
        assert read_journal(store.folder) == [STARTED]
        with RunStore.open(store.folder) as again:
            again.append(CLOSED)
            assert again.journal() == [STARTED, CLOSED]


def test_a_corrupt_line_in_the_journal_is_an_error_for_who_wants_to_go_on(store):
    store.append(STARTED)
    with (store.folder / "journal.jsonl").open("ab") as file:
        file.write(b"\xff\n")
    store.append(BLOCK)
    with pytest.raises(StoreError, match=r"line 2 is no event .*; 1 events"):
        store.journal()
    store.close()
    with pytest.raises(StoreError, match="line 2"):
        RunStore.open(store.folder)


def test_a_folder_without_a_journal_is_not_a_runs(tmp_path):
    for ask in (RunStore.open, read_journal):
        with pytest.raises(StoreError, match="not a run's folder"):
            ask(tmp_path)


def test_two_controllers_do_not_write_one_folder(store):
    with pytest.raises(StoreError, match="another kabench is writing"):
        RunStore.open(store.folder)
    script = (
        "import sys, pathlib\nfrom kabench.store import RunStore\nfrom kabench.errors import StoreError\n"
        "try: RunStore.open(pathlib.Path(sys.argv[1]))\nexcept StoreError as error: print(error)\n"
    )
    ask = [sys.executable, "-c", script, str(store.folder)]
    assert "another kabench" in subprocess.run(ask, capture_output=True, text=True, check=True).stdout
    store.close()
    store.close()
    assert subprocess.run(ask, capture_output=True, text=True, check=True).stdout == ""


def test_a_run_can_be_opened_by_its_link(store):
    store.append(STARTED)
    store.close()
    with RunStore.open(store.folder.parent / "latest") as again:
        assert again.folder == store.folder
        assert again.run == RUN


def test_logs_are_kept_by_window_and_node(store, forge):
    content = forge.log()
    path = store.write_log("001-default", "node-1", content)
    assert (
        path
        == store.folder / "logs" / "001-default" / "node-1.hlog"
        == store.log_path("001-default", "node-1")
    )
    assert path.read_bytes() == content
    assert [entry.name for entry in path.parent.iterdir()] == ["node-1.hlog"]
    for wrong in ("../x", "", ".x", "a/b", "a\0b"):
        with pytest.raises(StoreError, match="no name for a file"):
            store.write_log("001-default", wrong, b"")
        with pytest.raises(StoreError, match="no name for a file"):
            store.write_log(wrong, "node-1", b"")


def test_results_come_back(store):
    with pytest.raises(StoreError, match="written when a run ends"):
        read_result(store.folder)
    path = store.write_result(result())
    assert path.name == "results.json"
    assert read_result(store.folder) == read_result(path) == result()
    store.write_result(result(schema=2))
    with pytest.raises(StoreError, match="schema 2; this kabench reads 1"):
        read_result(path)
    path.write_bytes(b"{}")
    with pytest.raises(StoreError, match="not a run's results"):
        read_result(path)


class FullDisk:
    """The operating system's door, with a disk behind it that takes `room` more bytes."""

    def __init__(self, monkeypatch, room, code=errno.ENOSPC):
        self.room, self.code, self.write = room, code, os.write
        monkeypatch.setattr(os, "write", self)

    def __call__(self, descriptor, data):
        if not self.room:
            raise OSError(self.code, os.strerror(self.code))
        done = self.write(descriptor, bytes(data)[: self.room])
        self.room -= done
        return done


def test_a_result_with_seconds_leaves_them_as_csv_too(store, forge):
    own, forge.run = forge.run, "another-run"
    store.write_log("002-default", "node-1", forge.log(block=2))
    assert store.read_seconds() == []
    forge.run = own
    for agent in ("node-1", "node-2"):
        store.write_log("001-default", agent, forge.log(agent=agent))
    seconds = store.read_seconds()
    assert [(one.target, one.agents) for one in seconds] == [("echo-0", [2, 2, 2]), ("redis-0", [2, 2, 2])]
    store.write_result(result())
    assert not (store.folder / "series.csv").exists()
    store.write_result(msgspec.structs.replace(result(), seconds=seconds))
    lines = (store.folder / "series.csv").read_text().splitlines()
    assert len(lines) == 1 + 2 * 3
    assert lines[1].startswith(f"{store.run},001-default,default,1,http,echo-0,0,")
    assert read_result(store.folder).seconds == seconds


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has a disk that is always full")
def test_a_disk_that_is_really_full_is_said_in_a_sentence(store):
    store.close()
    (store.folder / "journal.jsonl").unlink()
    (store.folder / "journal.jsonl").symlink_to("/dev/full")
    with (
        RunStore(store.folder) as again,
        pytest.raises(StoreError, match=r"journal\.jsonl: no space is left"),
    ):
        again.append(STARTED)


@pytest.mark.parametrize("room", [0, 1, 30])
def test_a_full_disk_leaves_the_journal_whole(store, monkeypatch, room):
    store.append(STARTED)
    disk = FullDisk(monkeypatch, room)
    with pytest.raises(StoreError, match="no space is left on its disk"):
        store.append(BLOCK)
    disk.room = 10_000
    store.append(CLOSED)
    assert store.journal() == [STARTED, CLOSED]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "no space"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permission"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_what_the_system_refuses_is_said_in_words_and_leaves_the_old_file(store, monkeypatch, code, words):
    path = store.write_log("001-a", "n", b"old")

    def refuse(descriptor):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StoreError, match=words):
        store.write_log("001-a", "n", b"new")
    with pytest.raises(StoreError, match=words):
        store.append(RunEnded("failed", 1))
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in path.parent.iterdir()] == ["n.hlog"]
    assert store.journal() == []


def test_a_file_where_the_folder_should_be_is_named(tmp_path):
    (tmp_path / "results").write_text("")
    with pytest.raises(StoreError, match="results"):
        RunStore.create(tmp_path / "results", RUN)


def test_a_nearly_full_disk_is_refused_before_the_run(tmp_path, monkeypatch):
    assert free_bytes(tmp_path / "not" / "yet") > 0
    usage = type("Usage", (), {"free": 1 << 20})
    monkeypatch.setattr(store_files.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(StoreError, match="less than 64 MiB"):
        RunStore.create(tmp_path, RUN)
    assert list(tmp_path.iterdir()) == []
