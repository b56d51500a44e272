"""A process is known by pid and start time, and no other is signalled."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import state


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def _process(child: subprocess.Popen[bytes]) -> state.Process:
    ticks = state.start_ticks(child.pid)
    assert ticks is not None
    return state.Process(child.pid, ticks)


def test_the_start_time_is_found_behind_any_name() -> None:
    rest = " ".join(str(number) for number in range(4, 53))
    assert state.parse_start_ticks(f"7 (a) b (c)) S {rest}") == 22  # proc(5): field 22


def test_a_zombie_has_no_start_time() -> None:
    assert state.parse_start_ticks("7 (gone) Z " + " ".join(["0"] * 49)) is None


def test_a_process_is_alive_until_it_is_killed(child: subprocess.Popen[bytes]) -> None:
    process = _process(child)
    assert state.alive(process)
    assert state.kill(process, wait_s=10)
    assert not state.alive(process)
    assert child.wait(10) == -signal.SIGKILL
    assert state.kill(process)  # once more does no harm


def test_another_process_with_the_same_pid_is_left_alone(child: subprocess.Popen[bytes]) -> None:
    process = _process(child)
    earlier = state.Process(process.pid, process.started_ticks - 1)
    assert not state.alive(earlier)
    assert state.kill(earlier)
    os.kill(child.pid, signal.SIGTERM)
    assert child.wait(10) == -signal.SIGTERM  # a SIGKILL would have come first


def test_the_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    assert state.load(path) is None
    known = state.State({"etcd": state.Process(3, 4)}, {"kernel/panic": "0"}, ["/var/lib/cni"], ["a.tar"])
    state.save(path, known)
    assert state.load(path) == known
    path.write_bytes(path.read_bytes()[:-1])
    assert state.load(path) is None
