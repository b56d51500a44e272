"""The controller's link to an agent: the real service at the other end, and servers that are no agent."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
from agent_kit import TOKEN, Served, an_order, http_server, http_target, served
from aiohttp import web

from kabench.backends import patience
from kabench.backends.base import AgentEndpoint
from kabench.clock import SystemClock
from kabench.controller import link as link_module
from kabench.controller.link import AgentGone, AgentLink
from kabench.errors import AgentError, AgentLost, LogError, ProtocolError
from kabench.wire.messages import (
    PROTOCOL,
    SHA256_HEADER,
    TOKEN_HEADER,
    Ack,
    Arm,
    Hello,
    Interval,
    Probe,
    Refusal,
    Status,
)

MS = 1_000_000
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@contextlib.asynccontextmanager
async def linked(endpoint: AgentEndpoint) -> AsyncIterator[AgentLink]:
    link = AgentLink(endpoint, SystemClock())
    try:
        yield link
    finally:
        await link.close()


@contextlib.asynccontextmanager
async def stranger(handler: Handler) -> AsyncIterator[AgentEndpoint]:
    """A server that answers everything with `handler`."""
    runner = web.ServerRunner(web.Server(handler), shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield AgentEndpoint("node-9", f"http://127.0.0.1:{runner.addresses[0][1]}", TOKEN)
    finally:
        await runner.cleanup()


def a_hello(protocol: int = PROTOCOL, monotonic_ns: int = 0) -> Hello:
    return Hello(protocol, "i", "node-9", "b", (0,), monotonic_ns, 0, "timerfd")


def json(message: msgspec.Struct, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(message), status=status)


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path) as agent:
        yield agent


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts without pauses."""
    monkeypatch.setattr(patience, "FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr(patience, "LONGEST_PAUSE_S", 0.0)


def status_of_the_api_server(code: int, message: str) -> web.Response:
    body = msgspec.json.encode(
        {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code}
    )
    return web.Response(body=body, status=code)


async def test_a_window_over_the_link(agent: Served) -> None:
    async with linked(agent.endpoint) as link, http_server(200) as port:
        hello, offset = await link.hello()
        assert (hello.node, hello.instance) == ("node-1", "instance-1")
        assert abs(offset.offset_ns) <= offset.error_ns  # it is the same clock

        prepared = await link.prepare(an_order(http_target(port)))
        assert prepared.planned == {"echo-0": 3}
        armed = await link.arm(Arm("001-default", prepared_start(agent)))
        assert armed.window == "001-default"
        lines: list[Interval] = []

        async def follow() -> None:
            lines.extend([line async for line in link.stream("001-default")])

        async with asyncio.TaskGroup() as group:
            group.create_task(follow())
            group.create_task(let_go(agent))
        assert lines[-1].sealed
        assert lines[-1].kinds["http"].outcomes.ok == 3

        content = await link.fetch("001-default")
        (held,) = (await link.windows()).windows
        assert held.sha256 == hashlib.sha256(content).hexdigest()
        assert (await link.status()).state == "sealed"
        assert (await link.ack("001-default", Ack(held.sha256))).state == "idle"
        assert (await link.windows()).windows == ()


def prepared_start(agent: Served) -> int:
    return agent.agent.clock.monotonic_ns() + 50 * MS


async def let_go(agent: Served) -> None:
    agent.engines[0].go_on.set()


async def test_a_refusal_names_the_node_and_the_reason(agent: Served) -> None:
    async with linked(agent.endpoint) as link:
        with pytest.raises(
            AgentError, match="agent node-1: no arm while idle: prepare a window first"
        ) as caught:
            await link.arm(Arm("001-a", 1))
        assert type(caught.value) is AgentError
        with pytest.raises(AgentError, match="agent node-1: none is not the window under way"):
            await anext(link.stream("none"))
        with pytest.raises(AgentError, match="agent node-1: a probe takes"):
            await link.probe(Probe(0))
        assert (await link.abort()).state == "idle"


async def test_another_runs_agent(agent: Served) -> None:
    async with linked(dataclasses.replace(agent.endpoint, token="other")) as link:
        with pytest.raises(AgentError, match="agent node-1 refused our token"):
            await link.hello()


async def test_the_clock_is_estimated_by_the_quickest_exchange() -> None:
    ahead_ns = 12_345_678_901
    waits_s = [0.02, 0.0, 0.02]

    async def skewed(_: web.BaseRequest) -> web.Response:
        now_ns = SystemClock.monotonic_ns() + ahead_ns
        await asyncio.sleep(waits_s.pop())
        return json(a_hello(monotonic_ns=now_ns))

    async with stranger(skewed) as endpoint, linked(endpoint) as link:
        _, offset = await link.hello(rounds=3)
    assert offset.error_ns < 10 * MS
    assert abs(offset.offset_ns - ahead_ns) <= offset.error_ns


async def test_another_protocol_names_both() -> None:
    async def newer(_: web.BaseRequest) -> web.Response:
        return json(a_hello(protocol=9))

    async with stranger(newer) as endpoint, linked(endpoint) as link:
        with pytest.raises(ProtocolError, match="agent node-9 speaks protocol 9, we speak 1"):
            await link.hello()


async def test_a_damaged_log_is_not_accepted() -> None:
    async def damages(_: web.BaseRequest) -> web.Response:
        return web.Response(body=b"damaged", headers={SHA256_HEADER: hashlib.sha256(b"whole").hexdigest()})

    async with stranger(damages) as endpoint, linked(endpoint) as link:
        with pytest.raises(LogError, match=r"001-a from agent node-9 is damaged .* still holds it"):
            await link.fetch("001-a")


async def test_headers_and_token_go_with_every_call() -> None:
    seen: list[tuple[str, str]] = []

    async def notes(request: web.BaseRequest) -> web.Response:
        seen.append((request.headers[TOKEN_HEADER], request.headers["Authorization"]))
        return json(Status("idle"))

    async with stranger(notes) as endpoint:
        guarded = dataclasses.replace(endpoint, headers={"Authorization": "Bearer x"})
        async with linked(guarded) as link:
            await link.status()
            await link.abort()
    assert seen == [(TOKEN, "Bearer x")] * 2


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (web.Response(text="hello"), "answered with no Status"),
        (web.Response(status=500, text="<html>"), "HTTP status 500 and no reason"),
    ],
)
async def test_what_is_no_agent(answer: web.Response, reason: str) -> None:
    async def other(_: web.BaseRequest) -> web.Response:
        return answer

    async with stranger(other) as endpoint, linked(endpoint) as link:
        with pytest.raises(ProtocolError, match=f"agent node-9 .*{reason}.*another program"):
            await link.status()


async def test_an_agent_that_is_gone(hurried: None) -> None:
    async with stranger(lambda _: asyncio.sleep(0, web.Response())) as endpoint:
        pass
    async with linked(dataclasses.replace(endpoint, patience_s=0)) as link:
        for call in (link.status(), link.arm(Arm("a", 1)), anext(link.stream("a"))):
            with pytest.raises(AgentLost, match=r"agent node-9 at .* is lost: .*see whether its process"):
                await call


async def test_an_agent_that_is_silent(hurried: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "CALL_S", 0.05)
    monkeypatch.setattr(link_module, "STREAM_SILENCE_S", 0.05)

    async def never(_: web.BaseRequest) -> web.Response:
        await asyncio.Event().wait()
        return web.Response()

    async with stranger(never) as endpoint, linked(dataclasses.replace(endpoint, patience_s=0)) as link:
        with pytest.raises(AgentLost, match=r"did not answer within 0\.05 s"):
            await link.hello()
        with pytest.raises(AgentLost, match=r"did not answer within 0\.05 s"):
            await anext(link.stream("001-a"))


async def test_only_calls_that_may_be_repeated_are(hurried: None) -> None:
    calls: list[str] = []

    async def drops(request: web.BaseRequest) -> web.Response:
        calls.append(request.path)
        if calls.count(request.path) < 3:
            assert request.transport is not None
            request.transport.abort()
        return json(Status("idle"))

    async with stranger(drops) as endpoint, linked(endpoint) as link:
        assert (await link.status()).state == "idle"
        assert (await link.abort()).state == "idle"
        with pytest.raises(AgentLost):
            await link.windows(patient=False)
        with pytest.raises(AgentLost):
            await link.arm(Arm("001-a", 1))
        with pytest.raises(AgentLost):
            await link.prepare(an_order(http_target(1)))
    asked = ("/v1/status", "/v1/abort", "/v1/windows", "/v1/arm", "/v1/prepare")
    # a GET on a kept connection that broke is sent anew by aiohttp, once
    assert [calls.count(path) for path in asked] == [3, 3, 2, 1, 1]


async def test_refusals_are_not_repeated(hurried: None) -> None:
    calls: list[str] = []

    async def refuses(request: web.BaseRequest) -> web.Response:
        calls.append(request.path)
        return json(Refusal("no"), 409)

    async with stranger(refuses) as endpoint, linked(endpoint) as link:
        with pytest.raises(AgentError, match="agent node-9: no"):
            await link.status()
    assert calls == ["/v1/status"]


@pytest.mark.parametrize(
    ("answer", "error", "words", "calls"),
    [
        (status_of_the_api_server(404, 'pods "a" not found'), AgentGone, 'is gone: pods "a" not found', 1),
        (status_of_the_api_server(403, "no"), AgentError, "the API server refuses us: no; kabench doctor", 1),
        (status_of_the_api_server(401, "who"), AgentError, "the API server refuses us: who; kabench", 1),
        (
            status_of_the_api_server(403, 'no: RBAC: clusterrole "x" not found'),
            AgentLost,
            'out of reach: HTTP status 403: no: RBAC: clusterrole "x" not found',
            4,
        ),
        (status_of_the_api_server(503, "later"), AgentLost, "out of reach: HTTP status 503: later", 4),
        (web.Response(status=502, text="dial tcp: refused"), AgentLost, "status 502: dial tcp: refused", 4),
    ],
)
async def test_what_an_api_server_answers_in_the_agents_stead(
    hurried: None, answer: web.Response, error: type[AgentError], words: str, calls: int
) -> None:
    seen: list[str] = []

    async def proxy(request: web.BaseRequest) -> web.Response:
        seen.append(request.path)
        return web.Response(body=answer.body, status=answer.status)

    async with stranger(proxy) as endpoint:
        link = AgentLink(dataclasses.replace(endpoint, patience_s=3), SecondByReading())
        try:
            with pytest.raises(AgentError, match=re.escape(words)) as raised:
                await link.status()
        finally:
            await link.close()
    assert type(raised.value) is error
    assert len(seen) == calls


async def test_an_api_server_that_let_us_pass_and_refuses_now_has_started_anew(hurried: None) -> None:
    answers = [json(Status("idle")), status_of_the_api_server(403, "no"), json(Status("idle"))]

    async def proxy(_: web.BaseRequest) -> web.Response:
        return answers.pop(0)

    async with stranger(proxy) as endpoint, linked(endpoint) as link:
        await link.status()
        assert (await link.status()).state == "idle"


class SecondByReading(SystemClock):
    """A second passes with every look at it."""

    def __init__(self) -> None:
        self._now_ns = 0

    def monotonic_ns(self) -> int:  # type: ignore[override]
        self._now_ns += 1_000_000_000
        return self._now_ns


async def test_a_stream_that_breaks_is_taken_up_again(hurried: None) -> None:
    attempts: list[str] = []

    async def breaks_twice(request: web.BaseRequest) -> web.StreamResponse:
        attempts.append(request.path)
        index = len(attempts) - 1
        response = web.StreamResponse()
        await response.prepare(request)
        line = {"window": "001-a", "index": index, "kinds": {}, "health": {}, "sealed": index == 2}
        await response.write(msgspec.json.encode(line) + b"\n")
        if index < 2:
            assert request.transport is not None
            request.transport.abort()
        return response

    async with stranger(breaks_twice) as endpoint, linked(endpoint) as link:
        assert [interval.index async for interval in link.stream("001-a")] == [0, 1, 2]


async def test_a_stream_that_ends_without_its_seal() -> None:
    async def unsealed(_: web.BaseRequest) -> web.Response:
        line = msgspec.json.encode({"window": "001-a", "index": 0, "kinds": {}, "health": {}})
        return web.Response(body=b"\n" + line + b"\n\n")

    async with stranger(unsealed) as endpoint, linked(endpoint) as link:
        lines = link.stream("001-a")
        assert (await anext(lines)).index == 0
        with pytest.raises(AgentError, match="agent node-9 ended 001-a without its seal"):
            await anext(lines)


async def test_closing_twice_does_no_harm(agent: Served) -> None:
    link = AgentLink(agent.endpoint, SystemClock())
    await link.status()
    await link.close()
    await link.close()
