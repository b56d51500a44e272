"""Connections over TLS, with a handshake of the protocol's own, and why there is none: against real sockets."""

import asyncio
import re
import socket

import pytest
import reaching_kit as kit
import uvloop

from kabench.wire.messages import RedisLoad, Tls
from kabench_agent.drivers import AsyncioTransport, OpeningRefusedError
from kabench_agent.protocols.resp import RespCodec
from kabench_agent.tls import context, reason

PATIENCE_NS = 5_000_000_000
LOOPS = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return kit.Authority(tmp_path_factory.mktemp("ca"))


class Asker(asyncio.Protocol):
    """Sends one request, and keeps what comes back."""

    def __init__(self, request):
        self.request, self.data = request, b""
        self.answered = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport
        transport.write(self.request)

    def data_received(self, data):
        self.data += data
        if not self.answered.done():
            self.answered.set_result(None)


async def ask(transport, port, request=b"GET / HTTP/1.1\r\n\r\n", host="127.0.0.1"):
    asker = Asker(request)
    made = await transport.reach(host, port, asker)
    async with asyncio.timeout(5):
        await asker.answered
    made.abort()
    return asker.data


async def failure(transport, port, host="127.0.0.1"):
    """What the pool is told."""
    told = asyncio.get_running_loop().create_future()
    transport.connect(host, port, asyncio.Protocol(), told.set_result)
    async with asyncio.timeout(5):
        return await told


@LOOPS
def test_a_server_that_proves_who_it_is_is_asked(run, authority):
    async def main():
        async with kit.serving(kit.http, authority.server()) as port:
            return await ask(AsyncioTransport(PATIENCE_NS, authority.tls()), port)

    assert run(main()) == kit.HTTP_OK


@LOOPS
@pytest.mark.parametrize(
    ("name", "expired", "more", "why"),
    [
        ("other", False, {}, "its certificate is refused: .*(127.0.0.1|mismatch)"),
        ("127.0.0.1", True, {}, "its certificate is refused: certificate has expired"),
        ("127.0.0.1", False, {"ca_file": None}, "its certificate is refused: .*(issuer|self.signed)"),
        ("other", False, {"server_name": "other"}, ""),
        ("other", True, {"verify": False}, ""),
    ],
    ids=["another's name", "expired", "unknown authority", "the name that is asked for", "not verified"],
)
def test_a_certificate_is_checked_as_is_said(run, authority, name, expired, more, why):
    tls = Tls(**({"ca_file": authority.file} | more))

    async def main():
        async with kit.serving(kit.http, authority.server(name, expired=expired)) as port:
            transport = AsyncioTransport(PATIENCE_NS, tls)
            if not why:
                assert await ask(transport, port) == kit.HTTP_OK
                return ""
            return reason(await failure(transport, port))

    told = run(main())
    assert "\n" not in told
    assert (not told) == (not why)
    assert re.match(why, told)


@LOOPS
def test_a_server_in_the_clear_does_not_pass_for_one_with_tls(run, authority):
    async def talk(reader, writer):
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()

    async def main():
        async with kit.serving(talk) as port:
            return reason(await failure(AsyncioTransport(PATIENCE_NS, authority.tls()), port))

    assert run(main()).startswith("it does not speak TLS as it should: ")


def test_authorities_that_are_not_there_are_named(tmp_path):
    (tmp_path / "empty.pem").write_text("nothing")
    for name, why in (("none.pem", "No such file"), ("empty.pem", "no certificate in it")):
        with pytest.raises(ValueError, match=rf"authorities to trust, .*{name}: {why}"):
            context(Tls(ca_file=str(tmp_path / name)))


def opened(**load):
    codec = RespCodec(RedisLoad(**load))
    return AsyncioTransport(PATIENCE_NS, opening=codec.opening)


def redis(*answers):
    """A server that waits for a command and gives an answer, one after the other."""

    async def talk(reader, writer):
        for answer in answers:
            data = await reader.read(1000)
            assert data
            for byte in answer:
                writer.write(bytes([byte]))
                await writer.drain()
        await reader.read()

    return talk


@LOOPS
def test_a_connection_counts_once_its_opening_is_accepted(run):
    async def main():
        async with kit.serving(redis(b"+OK\r\n+OK\r\n", b"+PONG\r\n")) as port:
            return await ask(opened(password="a", database=1), port, b"PING\r\n")

    assert run(main()) in b"+PONG\r\n"  # the answers to the opening are not among it


@LOOPS
def test_an_opening_that_is_refused_is_told_in_the_servers_words(run):
    async def main():
        async with kit.serving(redis(b"-WRONGPASS invalid username-password pair\r\n")) as port:
            return await failure(opened(user="ada", password="secret"), port)

    error = run(main())
    assert isinstance(error, OpeningRefusedError)
    assert reason(error) == "WRONGPASS invalid username-password pair"


@LOOPS
def test_a_server_that_closes_instead_of_answering_is_a_failure(run):
    async def talk(reader, writer):
        await reader.read(1000)

    async def main():
        async with kit.serving(talk) as port:
            return reason(await failure(opened(password="a"), port))

    assert run(main()) == "it closed the connection before it answered"


@LOOPS
def test_a_server_that_keeps_silent_is_given_up(run):
    async def talk(reader, writer):
        await reader.read(1000)
        await reader.read()
        closed.set()

    closed = asyncio.Event()

    async def main():
        transport = AsyncioTransport(50_000_000, opening=RespCodec(RedisLoad(password="a")).opening)
        async with kit.serving(talk) as port, asyncio.timeout(5):
            error = await failure(transport, port)
            await closed.wait()
            return reason(error)

    assert run(main()) == "it did not answer in time"


@LOOPS
def test_attempts_under_way_are_given_up_at_the_end(run):
    async def talk(reader, writer):
        asked.set()
        await reader.read()
        await reader.read()
        closed.set()

    asked, closed = asyncio.Event(), asyncio.Event()

    async def main():
        transport = opened(password="a")
        async with kit.serving(talk) as port, asyncio.timeout(5):
            transport.connect("127.0.0.1", port, asyncio.Protocol(), lambda error: pytest.fail(str(error)))
            await asked.wait()
            await transport.close()
            await closed.wait()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())


@LOOPS
def test_where_nobody_listens_and_what_is_no_host(run):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    async def main():
        plain = AsyncioTransport(PATIENCE_NS)
        return [
            reason(await failure(plain, port)),
            reason(await failure(plain, port, "localhost")),
            reason(await failure(plain, port, "no-such-host.invalid")),
        ]

    refused, both, nowhere = run(main())
    assert (refused, both) == ("connection refused", "connection refused")
    assert nowhere.startswith("no such host: ")


def test_reasons_of_the_system_are_told_without_numbers():
    assert reason(OSError(24, "Too many open files")) == "no file descriptor is left for another connection"
    assert reason(OSError(113, "x")) == "no route to host"
    assert reason(ConnectionResetError(104, "x")) == "it closed the connection"
    assert reason(OverflowError("port must be 0-65535.")) == "port must be 0-65535."
    assert reason(ValueError()) == "ValueError"
