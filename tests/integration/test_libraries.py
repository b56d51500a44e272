"""Client libraries as drivers, against real servers: the engine counts what they did and what went wrong, in either loop."""

import asyncio

import pytest
import reaching_kit
import redis_kit
import uvloop
from msgspec.structs import replace
from window_kit import MS, drive, order

from kabench.core.commands import COMMANDS
from kabench.errors import AgentError
from kabench.wire.messages import HttpLoad, RedisLoad, Target, Tls
from kabench_agent.flights import SMALLEST

LOOPS = pytest.mark.parametrize("loop", ["open", "closed"])


def redis_target(port, **load):
    return Target(
        "redis-0", "redis", "n", "127.0.0.1", port, RedisLoad(**({"keys": 20} | load)), 300.0, 2, 4,
        fill=True, driver="asyncio-redis",
    )  # fmt: skip


def http_target(port, **load):
    return Target(
        "echo-0", "echo", "n", "127.0.0.1", port, HttpLoad(**load), 300.0, connections=2, driver="aiohttp"
    )


@LOOPS
def test_asyncio_redis_asks_every_command_that_is_known_by_name(tmp_path, loop):
    mix = tuple((name, 1.0) for name in COMMANDS)
    with redis_kit.Redis(tmp_path, "--requirepass", "secret") as server:
        target = redis_target(server.port, mix=mix, password="secret", database=3)
        counts, service = uvloop.run(drive(order(target, loop=loop)))
        stats = server.ask("AUTH secret", "INFO commandstats")
    assert counts.ok == counts.sent > 30
    assert service.total == counts.ok
    for name in COMMANDS:
        assert f"cmdstat_{name}:" in stats


@LOOPS
@pytest.mark.parametrize(
    ("prepare", "mix", "errors"),
    [
        ("LPUSH kabench:0 a", "get", {"reply"}),  # WRONGTYPE
        ("PING", "get", {"miss"}),  # nothing was filled
        ("PING", "lrange", set()),
    ],
)
def test_asyncio_redis_tells_errors_from_replies(tmp_path, loop, prepare, mix, errors):
    with redis_kit.Redis(tmp_path) as server:
        server.ask(prepare)
        target = replace(redis_target(server.port, keys=1, mix=((mix, 1.0),)), fill=False)
        counts, _ = uvloop.run(drive(order(target, loop=loop)))
    assert set(counts.errors) == errors
    assert (counts.error if errors else counts.ok) == counts.sent > 30


def test_nil_is_no_error_of_keys_that_nobody_filled(tmp_path):
    with redis_kit.Redis(tmp_path) as server:
        target = replace(redis_target(server.port, fill=False, mix=(("mget", 1.0), ("get", 1.0))), fill=False)
        counts, _ = uvloop.run(drive(order(target)))
    assert counts.ok == counts.sent > 30


def test_an_open_loop_goes_on_when_its_rings_have_turned(tmp_path):
    """More requests than are kept at a time: each has its own operation and instants all the same."""
    with redis_kit.Redis(tmp_path) as server:
        target = replace(redis_target(server.port), rate_per_s=3000.0, connections=8)
        counts, service = uvloop.run(drive(order(target, window_ns=2000 * MS)))
    assert counts.sent == counts.planned > SMALLEST
    assert counts.ok == counts.sent == service.total


@LOOPS
def test_aiohttp_asks_paths_by_weight_as_the_load_says(tmp_path, loop):
    asked = []

    async def talk(reader, writer):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            asked.append((head.split(b" ")[:2], b"X-Token: abc\r\n" in head, await reader.readexactly(4)))
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno")

    async def main():
        authority = reaching_kit.Authority(tmp_path)
        async with reaching_kit.serving(talk, authority.server("other")) as port:
            target = http_target(
                port,
                paths=(("/a", 9.0), ("/b?c", 1.0)),
                method="PUT",
                headers=(("X-Token", "abc"),),
                body=b"\x00bcd",
                expect_status=(404,),
            )
            target = replace(target, tls=authority.tls(server_name="other"))
            return await drive(order(target, loop=loop), ready=False)

    counts, service = uvloop.run(main())
    assert counts.ok == counts.sent == service.total > 30
    assert {(tuple(words), *rest) for words, *rest in asked} == {
        ((b"PUT", b"/a"), True, b"\x00bcd"),
        ((b"PUT", b"/b?c"), True, b"\x00bcd"),
    }


@LOOPS
@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n", "status"),
        (b"nonsense\r\n\r\n", "malformed"),
        (b"", "reset"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", "reset"),
    ],
)
def test_aiohttp_tells_what_went_wrong(loop, answer, error):
    async def talk(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)

    async def main():
        async with reaching_kit.serving(talk) as port:
            return await drive(order(http_target(port), loop=loop, warm_up_ns=0), ready=False)

    counts, _ = uvloop.run(main())
    assert set(counts.errors) == {error}
    assert counts.ok == 0
    assert counts.error > (20 if error != "malformed" else 0)  # after nonsense, a pause


@LOOPS
@pytest.mark.parametrize("driver", ["asyncio-redis", "aiohttp"])
def test_a_server_that_says_nothing_times_out_and_what_was_asked_is_over(loop, driver):
    async def talk(reader, writer):
        await reader.read()

    async def main():
        async with reaching_kit.serving(talk) as port:
            target = redis_target(port) if driver == "asyncio-redis" else http_target(port)
            prepare = order(target, loop=loop, timeout_ns=50 * MS, window_ns=200 * MS, warm_up_ns=0)
            return await drive(prepare, ready=False)

    counts, _ = uvloop.run(main())
    assert counts.ok == 0
    assert counts.timeout > 0


@LOOPS
def test_a_redis_that_closes_is_found_again(tmp_path, loop):
    async def main(server):
        async def kill():
            await asyncio.sleep(0.2)
            await asyncio.to_thread(server.ask, "CLIENT KILL TYPE normal")

        prepare = order(redis_target(server.port), loop=loop, window_ns=500 * MS)
        async with asyncio.TaskGroup() as group:
            group.create_task(kill(), name="kill")
            found = group.create_task(drive(prepare), name="drive")
        return found.result()

    with redis_kit.Redis(tmp_path) as server:
        counts, _ = uvloop.run(main(server))
        assert "total_connections_received" in server.ask("INFO stats")
    assert counts.ok > 30
    assert set(counts.errors) <= {"reset", "connect"}


@pytest.mark.parametrize(
    ("target", "why"),
    [
        (replace(redis_target(1), tls=Tls()), "redis-0: asyncio-redis knows no TLS; use the wire driver"),
        (redis_target(1, resp=3), "asyncio-redis speaks RESP2 only; use the wire driver"),
        (redis_target(1, mix=(("PING", 1.0),)), "asyncio-redis is asked by method, and 'PING' is none"),
        (replace(redis_target(1), driver="aiohttp"), "redis-0: there is no driver 'aiohttp' for its kind"),
        (replace(http_target(1), driver="asyncio-redis"), "echo-0: there is no driver 'asyncio-redis'"),
    ],
)
def test_what_a_library_cannot_do_is_refused_beforehand(target, why):
    with pytest.raises(AgentError, match=why):
        asyncio.run(drive(order(target), ready=False))


def test_a_certificate_is_checked_by_aiohttp_too(tmp_path):
    async def main():
        authority = reaching_kit.Authority(tmp_path)
        async with reaching_kit.serving(reaching_kit.http, authority.server("other")) as port:
            return await drive(order(replace(http_target(port), tls=authority.tls())), ready=False)

    counts, _ = uvloop.run(main())
    assert set(counts.errors) == {"connect"}
