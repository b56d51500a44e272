"""The canary, really probing, and what becomes of its failures."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kabench.errors import AgentError
from kabench_agent.probe import Canary
from kabench_targets import canary

MS = 1_000_000
MIB = 1024 * 1024
SMALL = (sys.executable, "-m", "kabench_targets", "canary", "--buffer-bytes", str(MIB))


async def test_a_probe_and_the_same_process_for_the_next() -> None:
    probes = Canary((*SMALL, "--parent", str(os.getpid())))
    assert probes.pid is None
    try:
        first = await probes.probe(20 * MS)
        pid = probes.pid
        second = await probes.probe(20 * MS)
        assert probes.pid == pid
    finally:
        await probes.close()
    for seen in (first, second):
        assert 20 * MS <= seen.probe_ns < 2_000 * MS
        assert seen.read_p50_ns is not None
        assert seen.read_p99_ns is not None
        assert 0 < seen.read_p50_ns <= seen.read_p99_ns
        assert seen.run_ns > 0
        assert seen.run_ns + seen.run_delay_ns <= seen.probe_ns * 1.5 + 5 * MS
        assert set(seen.psi_some) | {name.removeprefix("psi_") for name in seen.unavailable} >= {
            "cpu",
            "memory",
            "io",
        }
        assert all(0 <= share <= 1 for share in seen.psi_some.values())
    assert probes.pid is None


async def test_a_canary_that_died_is_replaced() -> None:
    probes = Canary(SMALL)
    try:
        await probes.probe(1 * MS)
        first = probes.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        with contextlib.suppress(AgentError):  # whether its end is known by now is a race
            await probes.probe(1 * MS)
        await probes.probe(1 * MS)
        assert probes.pid not in (None, first)
    finally:
        await probes.close()


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("import sys; sys.exit(3)", "it ended with code 3"),
        ("print('nonsense', flush=True); input()", "JSON is malformed"),
        ("import time; time.sleep(60)", "it took too long"),
    ],
)
async def test_a_canary_that_does_not_answer(program: str, reason: str) -> None:
    probes = Canary((sys.executable, "-c", program), patience_s=0.5 if "sleep" in program else 15)
    with pytest.raises(AgentError, match=reason):
        await probes.probe(1 * MS)
    assert probes.pid is None


async def test_a_canary_that_cannot_start(tmp_path: Path) -> None:
    with pytest.raises(AgentError, match=r"the canary did not answer: .*No such file"):
        await Canary((str(tmp_path / "none"),)).probe(1 * MS)


async def test_a_cancelled_probe_leaves_no_answer_for_the_next() -> None:
    probes = Canary(SMALL)
    try:
        await probes.probe(1 * MS)
        task = asyncio.ensure_future(probes.probe(10_000 * MS))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await probes.probe(2 * MS)).probe_ns < 5_000 * MS
    finally:
        await probes.close()


@pytest.mark.skipif(
    sys.platform != "linux", reason="the kernel ends it on Linux only; elsewhere its input does"
)
def test_the_canary_dies_with_its_parent() -> None:
    starter = (
        "import os, subprocess, sys; "
        f"p = subprocess.Popen([*{SMALL!r}, '--parent', str(os.getpid())], stdin=subprocess.PIPE, "
        "stdout=subprocess.PIPE); p.stdin.write(b'{\"duration_ns\": 1000000}\\n'); p.stdin.flush(); "
        "p.stdout.readline(); print(p.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", starter], stdout=subprocess.PIPE, check=False)
    assert done.returncode == -signal.SIGKILL
    try:
        process = os.pidfd_open(int(done.stdout))
    except ProcessLookupError:
        return  # gone already
    with open(process, closefd=True):
        assert select.select([process], [], [], 10)[0], "the canary outlived its parent"


def test_the_buffer_is_twice_the_last_level_cache(tmp_path: Path) -> None:
    def cache(size: str) -> int:
        path = tmp_path / "cpu0" / "cache" / "index3"
        path.mkdir(parents=True, exist_ok=True)
        (path / "size").write_text(size)
        return canary.buffer_bytes(tmp_path)

    assert canary.buffer_bytes(tmp_path) == 64 * MIB
    assert cache("32768K\n") == 64 * MIB
    assert cache("8192K\n") == 16 * MIB
    assert cache("1M\n") == 2 * MIB
    assert cache("512M\n") == 256 * MIB
    assert cache("unknown\n") == 64 * MIB


def test_what_the_kernel_does_not_tell_is_named(tmp_path: Path) -> None:
    assert canary.scheduled(tmp_path / "none") == "No such file or directory"
    (tmp_path / "schedstat").write_text("12 34 5\n")
    assert canary.scheduled(tmp_path / "schedstat") == (12, 34)
    (tmp_path / "cpu").write_text("some avg10=0.00 avg60=0.00 avg300=0.00 total=123\nfull avg10=0 total=7\n")
    (tmp_path / "memory").write_text("")
    totals, missing = canary.pressure(tmp_path)
    assert totals == {"cpu": 123_000}
    assert set(missing) == {"psi_memory", "psi_io"}
    assert missing["psi_io"] == "No such file or directory"


def test_without_schedstat_waiting_is_wall_time_minus_cpu_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canary, "scheduled", lambda: "Permission denied")
    seen = canary.probe(canary.Reader(MIB), 5 * MS)
    assert "Permission denied" in seen["unavailable"]["schedstat"]
    assert abs(seen["run_ns"] + seen["run_delay_ns"] - seen["probe_ns"]) < 5 * MS
