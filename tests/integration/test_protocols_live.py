"""What protocols have beside requests and replies, over real sockets: TLS, logins, goodbyes, half-closed sockets."""

import asyncio
import resource

import pytest
import reaching_kit
import redis_kit
import uvloop
from msgspec.structs import replace
from window_kit import MS, drive, order

from kabench.core.commands import COMMANDS
from kabench.errors import AgentError
from kabench.wire.messages import HttpLoad, RedisLoad, Target

LOOPS = pytest.mark.parametrize("loop", ["open", "closed"])


def redis_target(port, **load):
    return Target(
        "redis-0", "redis", "n", "127.0.0.1", port, RedisLoad(**({"keys": 20} | load)), 300.0, 2, 4, fill=True
    )


def http_target(port, **load):
    return Target("echo-0", "echo", "n", "127.0.0.1", port, HttpLoad(**load), 300.0, connections=2)


@LOOPS
@pytest.mark.parametrize("resp", [2, 3])
def test_every_command_in_both_versions_behind_tls_a_password_and_a_database(tmp_path, loop, resp):
    mix = (*((name, 1.0) for name in COMMANDS), ("SETEX __key__ 100 __data__", 1.0), ("SPOP nothing", 1.0))
    authority = reaching_kit.Authority(tmp_path)

    async def main(server):
        async with reaching_kit.serving(reaching_kit.to(server.port), authority.server()) as port:
            target = redis_target(
                port,
                mix=mix,
                user="default",
                password="secret",
                database=5,
                resp=resp,
                key_distribution="zipf",
            )
            return await drive(order(replace(target, tls=authority.tls()), loop=loop))

    with redis_kit.Redis(tmp_path, "--requirepass", "secret") as server:
        counts, service = uvloop.run(main(server))
        said = server.ask("AUTH secret", "INFO commandstats", "SELECT 5", "DBSIZE", "GET kabench:0")
    assert counts.ok == counts.sent == service.total > 30
    for name in (*COMMANDS, "setex", "spop"):
        assert f"cmdstat_{name}:" in said
    assert ("cmdstat_hello:" in said) == (resp == 3)
    assert "\r\n$64\r\nx" in said


@LOOPS
def test_a_password_that_is_wrong_is_told_by_the_server(tmp_path, loop):
    with redis_kit.Redis(tmp_path, "--requirepass", "secret") as server:
        target = redis_target(server.port, password="wr0ng")
        with pytest.raises(AgentError, match=r"no connection to target redis-0: WRONGPASS [^\n]*$") as caught:
            uvloop.run(drive(order(target, loop=loop), ready=False, patience_ns=200 * MS))
    assert "wr0ng" not in str(caught.value)


def answering(reply, closes=False, half=False):
    """A server that answers every request so; it closes after each, or only its own half."""

    async def talk(reader, writer):
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(reply)
            if half:
                writer.write_eof()
                await reader.read()
            if closes:
                return

    return talk


def window(talk, loop, context=None, tls=None, **load):
    async def main():
        async with reaching_kit.serving(talk, context) as port:
            target = replace(http_target(port, **load), tls=tls)
            return await drive(order(target, loop=loop), ready=False)

    return uvloop.run(main())


@LOOPS
def test_http_over_tls(tmp_path, loop):
    authority = reaching_kit.Authority(tmp_path)
    context = authority.server("other")
    counts, _ = window(reaching_kit.http, loop, context, authority.tls(server_name="other"))
    assert counts.ok == counts.sent > 30


@LOOPS
@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nto the end",
        b"HTTP/1.0 200 OK\r\n\r\nto the end",
        b"HTTP/1.1 200 OK\r\n\r\nto the end",
        b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nConnection: close\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ],
)
@pytest.mark.parametrize("half", [False, True], ids=["closed", "half-closed"])
def test_replies_after_which_the_server_closes_are_whole(loop, reply, half):
    counts, _ = window(answering(reply, closes=True, half=half), loop)
    assert counts.ok == counts.sent > 10


@LOOPS
def test_a_reply_that_the_end_cuts_off_is_a_reset(loop):
    cut = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nto the"
    counts, _ = window(answering(cut, closes=True), loop)
    assert counts.ok == 0
    assert "reset" in counts.errors


@LOOPS
def test_without_keep_alive_every_request_has_a_connection_of_its_own(loop):
    heads = []

    async def talk(reader, writer):
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(reaching_kit.HTTP_OK)
        await reader.read()  # it is us who close

    counts, _ = window(talk, loop, keep_alive=False)
    assert counts.ok == counts.sent > 10
    assert all(b"\r\nConnection: close\r\n" in head for head in heads)


@LOOPS
def test_a_reply_to_head_has_no_body(loop):
    counts, _ = window(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"), loop, method="HEAD")
    assert counts.ok == counts.sent > 30


@LOOPS
def test_a_server_that_closes_between_requests_is_asked_again_on_another_connection(loop):
    """Each connection lives for three replies; what was sent on one that was just closed is a reset, and nothing more."""

    async def talk(reader, writer):
        for _ in range(3):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(reaching_kit.HTTP_OK)

    counts, _ = window(talk, loop)
    assert counts.ok > 20
    assert set(counts.errors) <= {"reset"}


def test_what_an_agent_sends_over_tls_is_not_readable(tmp_path):
    """The proof that `tls` is not forgotten on the way: a server in the clear sees a handshake and no request."""
    seen = []

    async def talk(reader, writer):
        seen.append(await reader.read(100))

    authority = reaching_kit.Authority(tmp_path)

    async def main():
        async with reaching_kit.serving(talk) as port:
            target = replace(http_target(port), tls=authority.tls())
            await drive(order(target), ready=False, patience_ns=200 * MS)

    with pytest.raises(AgentError, match="no connection to target echo-0"):
        asyncio.run(main())
    assert seen
    assert all(data[0] == 22 for data in seen if data)  # a TLS handshake's record


@LOOPS
@pytest.mark.parametrize(
    ("target", "head", "more"),
    [
        (redis_target, b"$500000000\r\n", b"x" * 65536),
        (redis_target, b"*2000000000\r\n", b"+x\r\n" * 16384),
        (http_target, b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65536),
        (http_target, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"8000\r\n" + b"x" * 32768 + b"\r\n"),
    ],
    ids=["string", "list", "body", "chunks"],
)  # fmt: skip
def test_a_reply_without_end_times_out_and_is_not_kept(loop, target, head, more):
    async def talk(reader, writer):
        await reader.read(1000)
        writer.write(head)
        while True:
            writer.write(more)
            await writer.drain()

    async def main():
        async with reaching_kit.serving(talk) as port:
            prepare = order(target(port), loop=loop, timeout_ns=100 * MS, window_ns=500 * MS, warm_up_ns=0)
            return await drive(prepare, ready=False)

    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    counts, _ = uvloop.run(main())
    assert counts.ok == 0
    assert counts.timeout > 0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 64 * 1024
