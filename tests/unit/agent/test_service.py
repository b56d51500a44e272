"""The agent's API over loopback, with a real client and a scripted engine."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import msgspec
import pytest
from agent_kit import TOKEN, ScriptedEngine, Served, an_order, http_server, http_target, lines_of, served

from kabench.clock import ManualClock
from kabench.core.histogram import Histogram
from kabench.core.hlog import read_log
from kabench.wire.messages import (
    SHA256_HEADER,
    TOKEN_HEADER,
    Hello,
    Interval,
    Prepare,
    Prepared,
    Status,
    Windows,
)

MS = 1_000_000
ROUTES = [
    ("GET", "/v1/hello"),
    ("POST", "/v1/prepare"),
    ("POST", "/v1/arm"),
    ("POST", "/v1/abort"),
    ("GET", "/v1/status"),
    ("GET", "/v1/windows"),
    ("GET", "/v1/windows/001-default/stream"),
    ("GET", "/v1/windows/001-default/log"),
    ("POST", "/v1/windows/001-default/ack"),
    ("POST", "/v1/probe"),
    ("GET", "/v2/anything"),
    ("DELETE", "/v1/status"),
]


class Caller:
    """A plain client with the token."""

    def __init__(self, served: Served, session: aiohttp.ClientSession) -> None:
        self.served, self._session = served, session

    async def __call__(
        self, verb: str, path: str, body: object = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        content = body if isinstance(body, bytes) else msgspec.json.encode(body)
        data = None if body is None else io.BytesIO(content)
        headers = {TOKEN_HEADER: TOKEN} if headers is None else headers
        url = self.served.endpoint.base_url + path
        async with self._session.request(verb, url, data=data, headers=headers) as response:
            self.headers = response.headers
            return response.status, await response.read()

    async def prepare(self, order: Prepare) -> Prepared:
        status, body = await self("POST", "/v1/prepare", order)
        assert status == 200, body
        return msgspec.json.decode(body, type=Prepared)

    async def arm(self, window: str = "001-default", ahead_ns: int = 50 * MS) -> int:
        start_ns = self.served.agent.clock.monotonic_ns() + ahead_ns
        status, body = await self("POST", "/v1/arm", {"window": window, "start_ns": start_ns})
        assert status == 200, body
        return start_ns

    async def status(self) -> Status:
        return msgspec.json.decode((await self("GET", "/v1/status"))[1], type=Status)

    async def windows(self) -> Windows:
        return msgspec.json.decode((await self("GET", "/v1/windows"))[1], type=Windows)

    async def sealed(self, window: str = "001-default") -> list[Interval]:
        """Let the engine go on, and the stream until it ends."""
        stream = asyncio.ensure_future(self("GET", f"/v1/windows/{window}/stream"))
        await asyncio.sleep(0)
        self.served.engines[-1].go_on.set()
        _, text = await stream
        return [msgspec.convert(line, Interval) for line in lines_of(text)]


def refusal(body: bytes) -> str:
    return str(json.loads(body)["error"])


async def first_line(call: Caller) -> None:
    """Wait until the first interval is in the log."""
    async with asyncio.timeout(5):
        while (await call.windows()).windows[0].bytes < 1000:
            pass


@pytest.fixture
async def call(tmp_path: Path) -> AsyncIterator[Caller]:
    async with served(tmp_path / "spool") as agent, aiohttp.ClientSession() as session:
        yield Caller(agent, session)


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async with http_server(200) as port:
        yield port


@pytest.mark.parametrize(("verb", "path"), ROUTES)
@pytest.mark.parametrize("token", [None, "", "wrong", TOKEN + "x", "schlüssel"])
async def test_nothing_answers_without_the_token(
    call: Caller, verb: str, path: str, token: str | None
) -> None:
    headers = {} if token is None else {TOKEN_HEADER: token}
    assert await call(verb, path, headers=headers) == (401, b"")
    assert TOKEN_HEADER not in call.headers


async def test_a_call_without_the_token_does_not_renew_the_lease(tmp_path: Path, port: int) -> None:
    clock = ManualClock(1_000_000 * MS)
    async with served(tmp_path, clock) as agent, aiohttp.ClientSession() as session:
        call = Caller(agent, session)
        await call.prepare(an_order(http_target(port), lease_ns=1_000 * MS))
        clock.advance(900 * MS)
        await call("GET", "/v1/status", headers={})
        clock.advance(101 * MS)
        assert (await call.status()).state == "idle"


async def test_hello(call: Caller) -> None:
    status, body = await call("GET", "/v1/hello")
    hello = msgspec.json.decode(body, type=Hello)
    assert (status, hello.node, hello.pacer, hello.protocol) == (200, "node-1", "timerfd", 1)
    assert 0 <= call.served.agent.clock.monotonic_ns() - hello.monotonic_ns < 10_000 * MS
    assert hello.cpus


async def test_a_window_from_order_to_acknowledgement(call: Caller, port: int) -> None:
    prepared = await call.prepare(an_order(http_target(port), http_target(port, "echo-1")))
    assert prepared.planned == {"echo-0": 3, "echo-1": 3}
    assert (await call.status()).state == "prepared"
    start_ns = await call.arm()
    lines = await call.sealed()
    assert (await call.status()).state == "sealed"

    last = lines[-1]
    assert [line.sealed for line in lines[:-1]] == [False] * (len(lines) - 1)
    assert last.sealed
    assert (last.kinds["http"].outcomes.planned, last.kinds["http"].outcomes.ok) == (6, 6)
    pooled = Histogram()
    pooled.record_many([1 * MS, 2 * MS, 3 * MS] * 2)
    assert Histogram.decode(last.kinds["http"].response) == pooled

    (held,) = (await call.windows()).windows
    status, content = await call("GET", "/v1/windows/001-default/log")
    digest = hashlib.sha256(content).hexdigest()
    assert (status, call.headers[SHA256_HEADER]) == (200, digest)
    assert (held.run, held.sealed, held.sha256, held.bytes) == ("run-1", True, digest, len(content))
    log = read_log(content.splitlines(keepends=True))
    assert (log.problem, log.header.start_ns, log.header.agent) == ("", start_ns, "node-1")
    assert log.seal is not None

    status, body = await call("POST", "/v1/windows/001-default/ack", {"sha256": "0" * 64})
    assert (status, digest in refusal(body)) == (409, True)
    status, _ = await call("POST", "/v1/windows/001-default/ack", {"sha256": digest})
    assert (status, (await call.windows()).windows) == (200, ())
    assert (await call.status()).state == "idle"
    assert call.served.engines[0].closed
    status, body = await call("GET", "/v1/windows/001-default/log")
    assert (status, "no log of 001-default" in refusal(body)) == (404, True)


async def test_the_stream_of_a_sealed_window_is_its_last_line(call: Caller, port: int) -> None:
    await call.prepare(an_order(http_target(port)))
    await call.arm()
    await call.sealed()
    _, text = await call("GET", "/v1/windows/001-default/stream")
    (line,) = lines_of(text)
    assert (line["sealed"], line["index"]) == (True, 2)


async def test_every_listener_gets_the_lines(call: Caller, port: int) -> None:
    await call.prepare(an_order(http_target(port)))
    await call.arm()
    first, second = await asyncio.gather(call("GET", "/v1/windows/001-default/stream"), call.sealed())
    assert lines_of(first[1])[-1]["sealed"]
    assert second[-1].sealed


@pytest.mark.parametrize(
    ("path", "body", "status", "reason"),
    [
        ("/v1/prepare", b"{", 422, "the body is no Versioned"),
        ("/v1/prepare", b"\xff", 422, "the body is no"),
        ("/v1/prepare", b'{"protocol": 1}', 422, "the body is no Prepare: .*`run`"),
        ("/v1/prepare", b'{"protocol": 2, "new": []}', 409, "protocol 2 was asked .* speaks protocol 1"),
        ("/v1/arm", b"[]", 422, "the body is no Arm"),
        ("/v1/arm", b'{"window": "001-a", "start_ns": 1}', 409, "no arm while idle: prepare a window first"),
        ("/v1/probe", b'{"duration_ns": "long"}', 422, "the body is no Probe"),
        ("/v1/probe", b'{"duration_ns": 0}', 422, "a probe takes 1 ms to 10 s"),
        ("/v1/windows/none/ack", b'{"sha256": ""}', 404, "no log of none"),
        ("/v1/nothing", b"", 404, "Not Found"),
        ("/v1/hello", b"", 405, "Method Not Allowed"),
        ("/v1/prepare", b"x" * (2 << 20), 413, "POST /v1/prepare"),
    ],
)
async def test_bad_calls_are_refused_with_a_reason(
    call: Caller, path: str, body: bytes, status: int, reason: str
) -> None:
    found, answer = await call("POST", path, body)
    assert found == status, answer
    assert re.search(reason, refusal(answer)), answer
    assert (await call.status()).state == "idle"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"window_ns": 0}, "window_ns must be above 0"),
        ({"loop": "ajar"}, "a loop is open or closed, not 'ajar'"),
        ({"warm_up_ns": -1}, "warm_up_ns must not be negative"),
        ({"timeout_ns": 30_000_000_001}, "timeout_ns is 30000000000 at most"),
        ({"arrivals": "bursty"}, "poisson or constant, not 'bursty'"),
        ({"phase": "Default"}, "'Default' is no name"),
        ({"window": "../x"}, "does not make a file's name"),
        ({"run": "a/b"}, "does not make a file's name"),
        ({"targets": ()}, "there is no target"),
        ({"targets": (http_target(1), http_target(2))}, "echo-0 stands twice"),
        ({"targets": (http_target(1, "null-echo"),)}, "the agent's own echo"),
    ],
)
async def test_senseless_orders_are_refused(call: Caller, changes: dict[str, object], reason: str) -> None:
    status, body = await call("POST", "/v1/prepare", an_order(http_target(1), **changes))
    assert (status, reason in refusal(body)) == (422, True), body


async def test_a_target_that_never_gets_ready_is_named(call: Caller) -> None:
    async with http_server(503) as port:
        order = an_order(http_target(port), ready_timeout_ns=30 * MS)
        status, body = await call("POST", "/v1/prepare", order)
    assert status == 422
    assert refusal(body) == f"target echo-0 at 127.0.0.1:{port} did not answer within 0.03 s: HTTP status 503"
    assert (await call.status()).error == refusal(body)


async def test_the_lease_ends_what_is_prepared(tmp_path: Path, port: int) -> None:
    clock = ManualClock(1_000_000 * MS)
    async with served(tmp_path, clock) as agent, aiohttp.ClientSession() as session:
        call = Caller(agent, session)
        await call.prepare(an_order(http_target(port), lease_ns=1_000 * MS))
        clock.advance(1_000 * MS)
        assert (await call.status()).state == "prepared"
        clock.advance(1_001 * MS)
        status = await call.status()
        assert (status.state, "no word from the controller for 1.0 s" in status.error) == ("idle", True)
        await call.prepare(an_order(http_target(port)))
        assert agent.engines[0].closed


async def test_a_window_outlives_its_controller(tmp_path: Path, port: int) -> None:
    clock = ManualClock(1_000_000 * MS)
    async with served(tmp_path, clock) as agent, aiohttp.ClientSession() as session:
        call = Caller(agent, session)
        await call.prepare(an_order(http_target(port), lease_ns=1_000 * MS))
        await call.arm()
        clock.advance(60_000 * MS)
        assert (await call.status()).state == "draining"
        assert (await call.sealed())[-1].sealed


async def test_no_order_and_no_probe_while_a_window_is_under_way(call: Caller, port: int) -> None:
    order = an_order(http_target(port))
    await call.prepare(order)
    status, body = await call("POST", "/v1/prepare", msgspec.structs.replace(order, window="002-default"))
    assert (status, refusal(body)) == (409, "no prepare while prepared: arm it, or abort it")
    await call.arm(ahead_ns=20_000 * MS)
    status, body = await call("POST", "/v1/probe", {})
    assert (status, refusal(body)) == (409, "no probe while armed: it would disturb 001-default")
    status, body = await call("GET", "/v1/windows/001-default/log")
    assert (status, "still being written" in refusal(body)) == (409, True)


async def test_an_aborted_window_leaves_its_unsealed_log(call: Caller, port: int) -> None:
    await call.prepare(an_order(http_target(port)))
    await call.arm()
    await first_line(call)
    status, _ = await call("POST", "/v1/abort")
    assert (status, call.served.engines[0].aborted, call.served.engines[0].closed) == (200, True, True)
    (held,) = (await call.windows()).windows
    _, content = await call("GET", "/v1/windows/001-default/log")
    log = read_log(content.splitlines(keepends=True))
    assert (held.sealed, len(log.intervals), log.seal) == (False, 1, None)
    status, body = await call("POST", "/v1/prepare", an_order(http_target(port)))
    assert (status, "held already" in refusal(body)) == (409, True)
    status, _ = await call("POST", "/v1/abort")
    assert (status, (await call.status()).state) == (200, "idle")


async def test_an_abort_ends_a_preparation(call: Caller) -> None:
    async with http_server(503) as port:
        waiting = asyncio.ensure_future(call("POST", "/v1/prepare", an_order(http_target(port))))
        async with asyncio.timeout(5):
            while (await call.status()).state != "preparing":
                pass
        await call("POST", "/v1/abort")
        status, body = await waiting
    assert (status, refusal(body)) == (409, "the preparation of 001-default was given up")


async def test_an_engine_that_breaks_fails_the_window_and_keeps_its_log(tmp_path: Path, port: int) -> None:
    def breaks(engine: ScriptedEngine) -> None:
        engine.failure = RuntimeError("a driver broke")

    async with served(tmp_path, change=breaks) as agent, aiohttp.ClientSession() as session:
        call = Caller(agent, session)
        await call.prepare(an_order(http_target(port)))
        await call.arm()
        lines = await call.sealed()
        assert not any(line.sealed for line in lines)
        status = await call.status()
        assert (status.state, status.error) == ("idle", "001-default failed: a driver broke")
        assert [held.sealed for held in (await call.windows()).windows] == [False]


async def test_an_unreachable_spool_keeps_the_log_in_memory_and_says_so(tmp_path: Path, port: int) -> None:
    (tmp_path / "file").write_text("")
    async with served(tmp_path / "file" / "spool") as agent, aiohttp.ClientSession() as session:
        call = Caller(agent, session)
        await call.prepare(an_order(http_target(port)))
        await call.arm()
        await call.sealed()
        assert "Not a directory" in (await call.status()).error
        _, content = await call("GET", "/v1/windows/001-default/log")
        assert read_log(content.splitlines(keepends=True)).seal is not None
        digest = hashlib.sha256(content).hexdigest()
        status, body = await call("POST", "/v1/windows/001-default/ack", {"sha256": digest})
        assert (status, (await call.windows()).windows) == (200, ()), body


async def test_a_restarted_agent_finds_its_logs(tmp_path: Path, port: int) -> None:
    async with served(tmp_path) as agent, aiohttp.ClientSession() as session:
        call = Caller(agent, session)
        await call.prepare(an_order(http_target(port)))
        await call.arm()
        await call.sealed()
        _, content = await call("GET", "/v1/windows/001-default/log")
        await call.prepare(an_order(http_target(port), window="002-default"))
        await call.arm("002-default")
    async with served(tmp_path) as agent, aiohttp.ClientSession() as session:
        call = Caller(agent, session)
        held = (await call.windows()).windows
        assert [(log.window, log.sealed) for log in held] == [("001-default", True), ("002-default", False)]
        assert (await call("GET", "/v1/windows/001-default/log"))[1] == content
        for log in held:
            status, _ = await call("POST", f"/v1/windows/{log.window}/ack", {"sha256": log.sha256})
            assert status == 200
        assert not await asyncio.to_thread(lambda: list(tmp_path.iterdir()))
