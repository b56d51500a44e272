"""An agent as a process of its own, driven over the link as the controller does it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kabench.backends.base import AgentEndpoint
from kabench.clock import SystemClock
from kabench.controller.link import AgentLink
from kabench.core.hlog import WindowLog, read_log
from kabench.core.identity import NULL_TARGET
from kabench.errors import AgentLost
from kabench.wire.messages import PROTOCOL, Ack, Arm, HttpLoad, Interval, Prepare, Probe, Target

TOKEN = "token-of-a-process"
MS = 1_000_000


@dataclass
class Running:
    process: subprocess.Popen[str]
    link: AgentLink


def start(*arguments: str, token: str | None = TOKEN) -> subprocess.Popen[str]:
    env = {name: value for name, value in os.environ.items() if name != "KABENCH_TOKEN"}
    return subprocess.Popen(
        [sys.executable, "-m", *arguments],
        env=env if token is None else {**env, "KABENCH_TOKEN": token},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Its exit code and what it said on stderr."""
    _, errors = process.communicate(timeout=15)
    return process.returncode, errors


@contextlib.contextmanager
def echo(program: str) -> Iterator[int]:
    """One of our echo servers; yields its port."""
    process = start("kabench_targets", program, token=None)
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["port"]
    finally:
        process.kill()
        process.communicate()


@contextlib.asynccontextmanager
async def running(spool: Path, *arguments: str) -> AsyncIterator[Running]:
    process = start(
        "kabench_agent", "--node", "node-1", "--listen", "127.0.0.1:0", "--spool", str(spool), *arguments
    )
    assert process.stdout is not None
    hello = json.loads(await asyncio.to_thread(process.stdout.readline))
    assert hello["pid"] == process.pid
    link = AgentLink(AgentEndpoint("node-1", f"http://127.0.0.1:{hello['port']}", TOKEN), SystemClock())
    try:
        yield Running(process, link)
    finally:
        await link.close()
        process.kill()
        process.communicate()


def order(port: int, window_ns: int = 400 * MS) -> Prepare:
    target = Target("echo-0", "echo", "node-2", "127.0.0.1", port, HttpLoad(), rate_per_s=200.0)
    return Prepare(
        protocol=PROTOCOL,
        run="run-1",
        scenario_sha256="0" * 64,
        window="001-default",
        phase="default",
        block=1,
        seed=11,
        arrivals="constant",
        targets=(target,),
        warm_up_ns=100 * MS,
        window_ns=window_ns,
        timeout_ns=1_000 * MS,
        max_in_flight=100,
        interval_ns=100 * MS,
        null_rate_per_s=50.0,
    )


async def armed(agent: Running, order: Prepare) -> None:
    await agent.link.prepare(order)
    _, offset = await agent.link.hello()
    begin_ns = SystemClock.monotonic_ns() + offset.offset_ns + 100 * MS
    await agent.link.arm(Arm(order.window, begin_ns + order.warm_up_ns))


def read(content: bytes) -> WindowLog:
    return read_log(content.splitlines(keepends=True))


async def test_a_window_from_hello_to_the_end(tmp_path: Path) -> None:
    with echo("http-echo") as port, echo("null-echo") as null_port:
        async with running(tmp_path, "--null", f"127.0.0.1:{null_port}") as agent:
            hello, offset = await agent.link.hello()
            assert (hello.node, set(hello.cpus)) == ("node-1", os.sched_getaffinity(0))
            assert "null-echo" in hello.capabilities
            assert hello.environment["python"] == ".".join(map(str, sys.version_info[:3]))
            assert not any(os.getcwd() in value for value in hello.environment.values())
            assert abs(offset.offset_ns) <= offset.error_ns

            seen = await agent.link.probe(Probe(20 * MS))
            assert seen.run_ns > 0

            order_ = order(port)
            prepared = await agent.link.prepare(order_)
            assert 79 <= prepared.planned["echo-0"] <= 81
            begin_ns = SystemClock.monotonic_ns() + offset.offset_ns + 100 * MS
            await agent.link.arm(Arm(order_.window, begin_ns + order_.warm_up_ns))
            lines = [line async for line in agent.link.stream(order_.window)]
            content = await agent.link.fetch(order_.window)
            await agent.link.ack(order_.window, Ack(hashlib.sha256(content).hexdigest()))
            check_window(lines, content, prepared.planned)
            assert (await agent.link.windows()).windows == ()

            agent.process.send_signal(signal.SIGINT)  # ignored: the controller decides
            assert (await agent.link.status()).state == "idle"
            agent.process.terminate()
            assert await asyncio.to_thread(ended, agent.process) == (0, "")


def check_window(lines: list[Interval], content: bytes, planned: dict[str, int]) -> None:
    log = read(content)
    assert log.problem == ""
    assert log.seal is not None
    assert [line.index for line in lines] == list(range(len(log.intervals) + 1))
    assert lines[-1].kinds["http"].outcomes == log.seal.totals["echo-0"]
    assert {name: total.planned for name, total in log.seal.totals.items()} == planned
    assert log.seal.totals["echo-0"].ok == planned["echo-0"]
    assert [target.name for target in log.header.targets] == ["echo-0", NULL_TARGET]


async def test_sigterm_in_a_window_keeps_what_was_measured_for_the_next_life(tmp_path: Path) -> None:
    with echo("http-echo") as port:
        async with running(tmp_path) as agent:
            await armed(agent, order(port, window_ns=20_000 * MS))
            lines = agent.link.stream("001-default")
            assert (await anext(lines)).index == 0
            assert (await anext(lines)).index == 1
            await lines.aclose()  # type: ignore[attr-defined]  # it is a generator
            agent.process.terminate()
            assert await asyncio.to_thread(ended, agent.process) == (0, "")
        async with running(tmp_path) as agent:
            (held,) = (await agent.link.windows()).windows
            log = read(await agent.link.fetch(held.window))
            assert (held.sealed, log.seal, log.header.run) == (False, None, "run-1")
            assert len(log.intervals) >= 2
            assert log.problem.startswith("unsealed")


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for the canary")
async def test_a_killed_agent_leaves_its_log_and_no_canary(tmp_path: Path) -> None:
    with echo("http-echo") as port:
        async with running(tmp_path) as agent:
            await agent.link.probe(Probe(1 * MS))
            (canary,) = children(agent.process.pid)
            await armed(agent, order(port, window_ns=20_000 * MS))
            await anext(agent.link.stream("001-default"))
            process = os.pidfd_open(canary)
            agent.process.kill()
            with pytest.raises(AgentLost, match="agent node-1"):
                await agent.link.arm(Arm("001-default", 1))
            await asyncio.to_thread(gone, process)
        assert len(read((tmp_path / "run-1__001-default.hlog").read_bytes()).intervals) >= 1


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def gone(process: int) -> None:
    with open(process) as handle:
        assert select.select([handle], [], [], 10)[0], "the canary outlived its agent"


def test_a_port_already_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        code, errors = ended(
            start("kabench_agent", "--node", "n", "--listen", listen, "--spool", str(tmp_path))
        )
    assert (code, errors) == (2, f"agent n: cannot listen on {listen}: Address already in use\n")


def test_no_token(tmp_path: Path) -> None:
    arguments = ("kabench_agent", "--node", "n", "--listen", "127.0.0.1:0", "--spool", str(tmp_path))
    assert ended(start(*arguments, token=None)) == (
        2,
        "agent n: KABENCH_TOKEN is not set: the run's token is needed\n",
    )


@pytest.mark.parametrize("listen", ["8080", "host:", "host:99999", "host:x"])
def test_a_wrong_address(listen: str, tmp_path: Path) -> None:
    code, errors = ended(start("kabench_agent", "--node", "n", "--listen", listen, "--spool", str(tmp_path)))
    assert code == 2
    assert f"{listen!r} is not HOST:PORT" in errors
