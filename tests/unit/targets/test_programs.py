"""The targets as processes: what they print, what they answer, and how they end."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import platform
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from kabench_targets import awake
from kabench_targets.__main__ import main

DEADLINE_S = 30
SCHED_GETATTR = {"x86_64": 315, "aarch64": 275}
KNOWS_SLICES = tuple(int(part) for part in platform.release().split(".")[:2] if part.isdigit()) >= (6, 12)


def has_ended(process: psutil.Process) -> bool:
    """Gone, or waiting for an init that does not reap."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@contextmanager
def program(*arguments: str, own_session: bool = False) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "kabench_targets", *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=own_session
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen[str]) -> dict[str, float]:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.stderr.read() if process.stderr else ""
    answer: dict[str, float] = json.loads(line)
    return answer


def slice_ns(pid: int) -> int:
    """The time slice that a process has asked for: `sched_runtime` in struct sched_attr."""
    found = ctypes.create_string_buffer(48)
    number = SCHED_GETATTR[platform.machine()]
    assert ctypes.CDLL(None).syscall(number, pid, found, len(found), 0) == 0
    return int(struct.unpack_from("Q", found, 24)[0])


def receive(peer: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        piece = peer.recv(65_536)
        assert piece, f"closed after {len(found)} of {size} bytes"
        found += piece
    return found


@pytest.mark.parametrize("own_session", [True, False])
def test_what_keeps_a_cpu_awake_runs_and_gives_way_to_all_else(own_session: bool) -> None:
    weight = awake.AUTOGROUP.read_text().split()[1:] if awake.AUTOGROUP.exists() else []
    with program("awake", own_session=own_session) as process:
        assert said(process) == {"awake": True}
        assert os.sched_getscheduler(process.pid) == os.SCHED_IDLE
        if awake.AUTOGROUP_ENABLED.exists() and awake.AUTOGROUP_ENABLED.read_text().strip() == "1":
            found = Path(f"/proc/{process.pid}/autogroup").read_text().split()[1:]
            assert found == (["nice", "19"] if own_session else weight)
        if KNOWS_SLICES and platform.machine() in SCHED_GETATTR:
            assert slice_ns(process.pid) == awake.LONGEST_SLICE_NS
        seen = psutil.Process(process.pid)
        deadline, before = time.monotonic() + DEADLINE_S, seen.cpu_times().user
        while seen.cpu_times().user - before < 0.05:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.terminate()
        assert process.wait(DEADLINE_S) == -signal.SIGTERM


@pytest.mark.parametrize(("refusals", "weight"), [(3, "19"), (4, None)], ids=["at last", "never"])
def test_a_kernel_that_is_asked_too_often_is_asked_again(
    refusals: int,
    weight: str | None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "enabled").write_text("1\n")
    asked: list[str] = []

    class Refusing:
        def write_text(self, text: str) -> None:
            asked.append(text)
            if len(asked) <= refusals:
                raise BlockingIOError(errno.EAGAIN, "asked too often")

    monkeypatch.setattr(awake, "AUTOGROUP_ENABLED", tmp_path / "enabled")
    monkeypatch.setattr(awake, "AUTOGROUP", Refusing())
    monkeypatch.setattr(awake, "TRIES", 4)
    monkeypatch.setattr(awake, "PAUSE_S", 0)
    monkeypatch.setattr(os, "getsid", lambda _: os.getpid())
    monkeypatch.setattr(os, "sched_setscheduler", lambda *_: pytest.fail("it stayed"))
    if weight is None:  # and it does not stay: with the weight of others it would be in their way
        monkeypatch.setattr(awake, "take_long_slices", lambda: None)
        assert awake.main([]) == 1
        assert "asked too often" in capsys.readouterr().err
    else:
        awake.weigh_least()
        assert asked == [weight] * (refusals + 1)


def test_the_null_echo_serves_where_it_says_and_ends_on_sigterm() -> None:
    blob = bytes(range(256)) * 4096
    with program("null-echo") as process:
        port = int(said(process)["port"])
        with socket.create_connection(("127.0.0.1", port), DEADLINE_S) as peer:
            for piece in (b"x", b"\r\n", blob):
                peer.sendall(piece)
                assert receive(peer, len(piece)) == piece
            process.terminate()  # handled, or a container's first process would not get it; with a peer still there
            assert process.wait(DEADLINE_S) == 0


def test_the_http_echo_answers_many_requests_and_burns_what_it_was_told() -> None:
    body = b"b" * 1000
    request = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n" + body
    reply = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + body
    with program("http-echo", "--cpu-us", "1000") as process:
        port = int(said(process)["port"])
        before = psutil.Process(process.pid).cpu_times()
        with socket.create_connection(("127.0.0.1", port), DEADLINE_S) as peer:
            for _ in range(100):
                peer.sendall(request)
                assert receive(peer, len(reply)) == reply
        after = psutil.Process(process.pid).cpu_times()
    used = after.user + after.system - before.user - before.system
    assert used >= 0.08  # 100 ms in ticks of 10 ms


def test_a_taken_port_is_an_error_and_not_a_server() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        program("null-echo", "--port", str(taken.getsockname()[1])) as process,
    ):
        _, errors = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 1
    assert "address already in use" in errors.lower()


@pytest.mark.parametrize("kind", ["cache", "membw", "cpu"])
def test_a_stressor_works_counts_and_ends_on_sigterm(kind: str) -> None:
    with program(
        "stress", "--kind", kind, "--seconds", "60", "--workers", "2", "--buffer-mib", "8"
    ) as process:
        assert said(process) == {"ready": True}
        assert len(psutil.Process(process.pid).children()) == 2
        workers = psutil.Process(process.pid).children()
        process.terminate()
        done = said(process)
        assert process.wait(DEADLINE_S) == 0
    assert done["cpu_seconds"] > 0
    assert (done["bytes"] > 0) == (kind != "cpu")
    assert not any(worker.is_running() for worker in workers)


def test_a_stressor_ends_by_itself_and_counts_in_its_unit() -> None:
    with program("stress", "--kind", "cache", "--seconds", "0.6", "--buffer-mib", "8") as process:
        said(process)
        done = said(process)
        assert process.wait(DEADLINE_S) == 0
    assert done["ops"] > 0
    assert done["ops"] % 65_536 == 0
    assert done["bytes"] == 64 * done["ops"]
    assert 0 < done["seconds"] < 5


def test_a_stressor_says_what_it_did_so_far_when_it_is_asked_and_goes_on() -> None:
    with program("stress", "--kind", "cpu", "--seconds", "60", "--workers", "2") as process:
        said(process)
        process.send_signal(signal.SIGUSR1)
        told = [said(process)]
        deadline = time.monotonic() + DEADLINE_S
        while told[-1]["ops"] == told[0]["ops"]:
            assert time.monotonic() < deadline
            process.send_signal(signal.SIGUSR1)
            told.append(said(process))
        process.terminate()
        told.append(said(process))
        assert process.wait(DEADLINE_S) == 0
    assert told[0]["cpu_seconds"] > 0
    for field in ("ops", "seconds", "cpu_seconds"):
        values = [one[field] for one in told]
        assert values == sorted(values)
        assert values[-1] > values[0]


def test_workers_die_with_a_stressor_that_is_killed() -> None:
    with program("stress", "--kind", "cpu", "--seconds", "60", "--workers", "2") as process:
        said(process)
        workers = psutil.Process(process.pid).children()
        assert len(workers) == 2
        process.kill()
        process.wait(DEADLINE_S)
        deadline = time.monotonic() + DEADLINE_S
        while not all(map(has_ended, workers)):
            assert time.monotonic() < deadline


def test_a_worker_that_is_killed_ends_the_stressor_with_an_error() -> None:
    with program("stress", "--kind", "cpu", "--seconds", "60", "--workers", "2") as process:
        said(process)
        psutil.Process(process.pid).children()[0].kill()
        _, errors = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 1
    assert "a cpu worker ended before its time" in errors


def test_an_unknown_program_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nothing"]) == 2
    assert main([]) == 2
    assert "http-echo|null-echo|stress|canary|awake" in capsys.readouterr().err
