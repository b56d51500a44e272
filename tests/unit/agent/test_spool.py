from __future__ import annotations

import errno
import hashlib
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from kabench.core.logline import SEAL_MARK
from kabench.errors import AgentError
from kabench_agent.spool import OpenLog, Spool, check_names

SEAL = SEAL_MARK + b"{}\n"
FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from kabench_agent.spool import Spool
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))
spool = Spool(Path(sys.argv[1]))
log = spool.open("run", "001-a")
for letter in "abc":
    log.append(letter.encode() * 1000)
log.seal(b"end")
print(log.problem)
print(log.content() == b"a" * 1000 + b"b" * 1000 + b"c" * 1000 + b"end")
print((Path(sys.argv[1]) / "run__001-a.hlog").stat().st_size)
print(log.state().bytes, log.state().sealed)
"""


def test_a_log_is_on_disk_as_it_is_written_and_kept_until_removed(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "deep" / "spool")
    log = spool.open("run", "001-a")
    path = tmp_path / "deep" / "spool" / "run__001-a.hlog"
    log.append(b"one\n")
    assert path.read_bytes() == b"one\n"
    assert not log.state().sealed
    log.seal(SEAL)
    content = b"one\n" + SEAL
    state = log.state()
    assert (state.run, state.window, state.bytes, state.sealed) == ("run", "001-a", len(content), True)
    assert state.sha256 == hashlib.sha256(content).hexdigest()
    assert spool.find("001-a").content() == content
    spool.remove(log)
    assert not path.exists()
    with pytest.raises(AgentError, match="no log of 001-a is held"):
        spool.find("001-a")


def test_another_life_finds_sealed_and_unsealed_logs(tmp_path: Path) -> None:
    first = Spool(tmp_path)
    first.open("run", "001-a").seal(b"x\n" + SEAL)
    first.open("run", "002-a").append(b"x\n")
    first.open("run", "003-a").append(b"x\n" + SEAL[:-1])  # the seal's line is cut
    first.open("run", "004-a")
    first.close()
    (tmp_path / "notes.txt").write_text("not ours")
    second = Spool(tmp_path)
    assert [(s.window, s.sealed) for s in second.states()] == [
        ("001-a", True), ("002-a", False), ("003-a", False), ("004-a", False),
    ]  # fmt: skip
    assert second.states() == first.states()[:2] + tuple(
        s for s in second.states() if s.window in ("003-a", "004-a")
    )
    with pytest.raises(AgentError, match="held already"):
        second.open("run", "001-a")
    for state in second.states():
        second.remove(second.find(state.window))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_of_two_runs_the_one_begun_last_is_meant(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.open("run-2", "001-a").seal(b"2")
    spool.open("run-1", "001-a").seal(b"1")
    assert spool.find("001-a").run == "run-1"
    assert [state.run for state in spool.states()] == ["run-1", "run-2"]


@pytest.mark.parametrize(
    ("run", "window"), [("", "a"), ("a/b", "a"), ("..", "a"), ("a", "../a"), ("a", "x__y"), ("a", "a" * 101)]
)
def test_names_that_leave_the_folder_are_refused(run: str, window: str) -> None:
    with pytest.raises(AgentError, match="does not make a file's name"):
        check_names(run, window)


def test_a_full_disk_keeps_whole_pieces_there_and_the_rest_in_memory(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, check=True
    )
    problem, whole, on_disk, state = done.stdout.splitlines()
    assert "001-a cannot be written to the spool (File too large): it is kept in memory" in problem
    assert (whole, on_disk, state) == ("True", "1000", "3003 True")


def test_a_device_without_room(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    path = tmp_path / "run__001-a.hlog"
    log = OpenLog(path, "run", "001-a")
    device = os.open(full, os.O_WRONLY)
    os.dup2(device, log._fd)
    os.close(device)
    log.append(b"lost?")
    assert os.strerror(errno.ENOSPC) in log.problem
    log.append(b" no")
    log.seal(b".")
    assert log.content() == b"lost? no."


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    spool = Spool(tmp_path / "file" / "spool")
    assert spool.problem == "the spool cannot be used: Not a directory"
    log = spool.open("run", "001-a")
    log.append(b"one")
    log.seal(b"two")
    assert (log.content(), log.state().sealed) == (b"onetwo", True)
    assert "kept in memory" in log.problem
    assert spool.problem == f"the spool cannot be used: Not a directory; {log.problem}"
    spool.remove(log)
    assert spool.problem == "the spool cannot be used: Not a directory"


def test_a_log_that_someone_cut_is_not_handed_out(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    log = spool.open("run", "001-a")
    log.seal(b"12345")
    os.truncate(tmp_path / "run__001-a.hlog", 3)
    with pytest.raises(AgentError, match="cut by someone else: 3 bytes are left"):
        log.content()
    (tmp_path / "run__001-a.hlog").unlink()
    with pytest.raises(AgentError, match="does not read: No such file"):
        log.content()


def test_many_logs_leave_no_file_open(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 128), hard))
    try:
        for number in range(200):
            spool.open("run", f"{number:03d}-a").seal(b"x")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not any(isinstance(log, OpenLog) and log.problem for log in map(spool.find, ("000-a", "199-a")))
