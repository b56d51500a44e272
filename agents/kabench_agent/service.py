"""The agent's HTTP side: `kabench.wire.messages` on aiohttp. It decodes, asks the agent, encodes; nothing else.

Nothing answers without the run's token, not even whether a path exists.
"""

from __future__ import annotations

import hmac
import logging
from typing import TypeVar

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from kabench.errors import AgentError
from kabench.wire.messages import (
    PROTOCOL,
    SHA256_HEADER,
    TOKEN_HEADER,
    Ack,
    Arm,
    Hello,
    Prepare,
    Probe,
    Refusal,
)
from kabench_agent.agent import Agent, UnableError, UnknownError
from kabench_agent.environment import allowed_cpus

logger = logging.getLogger("kabench_agent")

BODY_BYTES = 1 << 20
"""The largest body taken: an order for thousands of targets fits."""

SILENCE_S = 5.0
"""A stream with nothing to say sends an empty line, so that its reader can tell silence from death."""

Body = TypeVar("Body", bound=msgspec.Struct)


class _Versioned(msgspec.Struct):
    """What every protocol's order has, read before the rest, which may differ."""

    protocol: int


def make_app(
    agent: Agent, token: str, environment: dict[str, str], capabilities: tuple[str, ...]
) -> web.Application:
    """The application that serves `agent` to whoever has `token`."""
    routes = _Routes(agent, environment, capabilities)
    app = web.Application(middlewares=[_guard(token, agent)], client_max_size=BODY_BYTES)
    window = "/v1/windows/{window}"
    app.add_routes(
        [
            web.get("/v1/hello", routes.hello, allow_head=False),
            web.post("/v1/prepare", routes.prepare),
            web.post("/v1/arm", routes.arm),
            web.post("/v1/abort", routes.abort),
            web.get("/v1/status", routes.status, allow_head=False),
            web.get("/v1/windows", routes.windows, allow_head=False),
            web.get(f"{window}/stream", routes.stream, allow_head=False),
            web.get(f"{window}/log", routes.log, allow_head=False),
            web.post(f"{window}/ack", routes.ack),
            web.post("/v1/probe", routes.probe),
        ]
    )
    return app


class _Routes:
    """One method a row of the protocol's table."""

    def __init__(self, agent: Agent, environment: dict[str, str], capabilities: tuple[str, ...]) -> None:
        self._agent, self._environment, self._capabilities = agent, environment, capabilities

    async def hello(self, _: web.Request) -> web.StreamResponse:
        identity, clock = self._agent.identity, self._agent.clock
        cpus = allowed_cpus()
        return _answer(
            Hello(
                protocol=PROTOCOL,
                instance=identity.instance,
                node=identity.node,
                boot_id=identity.boot_id,
                cpus=cpus,
                monotonic_ns=clock.monotonic_ns(),
                realtime_ns=clock.realtime_ns(),
                pacer=identity.pacer,
                capabilities=self._capabilities,
                environment=self._environment,
            )
        )

    async def prepare(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        theirs = _decoded(body, _Versioned).protocol
        if theirs != PROTOCOL:
            raise AgentError(
                f"protocol {theirs} was asked for, this agent speaks protocol {PROTOCOL}: run the same kabench on both"
            )
        return _answer(await self._agent.prepare(_decoded(body, Prepare)))

    async def arm(self, request: web.Request) -> web.StreamResponse:
        return _answer(self._agent.arm(_decoded(await request.read(), Arm)))

    async def abort(self, _: web.Request) -> web.StreamResponse:
        return _answer(await self._agent.abort())

    async def status(self, _: web.Request) -> web.StreamResponse:
        return _answer(self._agent.status())

    async def windows(self, _: web.Request) -> web.StreamResponse:
        return _answer(self._agent.windows())

    async def stream(self, request: web.Request) -> web.StreamResponse:
        live = self._agent.live(request.match_info["window"])
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        try:
            async for line in live.lines(SILENCE_S):
                await response.write((msgspec.json.encode(line) if line else b"") + b"\n")
            await response.write_eof()
        except ConnectionError:
            logger.info("a listener left")
        return response

    async def log(self, request: web.Request) -> web.StreamResponse:
        content, sha256 = await self._agent.fetch(request.match_info["window"])
        return web.Response(
            body=content, headers={SHA256_HEADER: sha256}, content_type="application/octet-stream"
        )

    async def ack(self, request: web.Request) -> web.StreamResponse:
        ack = _decoded(await request.read(), Ack)
        return _answer(self._agent.acknowledge(request.match_info["window"], ack.sha256))

    async def probe(self, request: web.Request) -> web.StreamResponse:
        return _answer(await self._agent.probe(_decoded(await request.read(), Probe).duration_ns))


def _guard(token: str, agent: Agent) -> Middleware:
    """The middleware: nothing without the token; refusals become answers; each call renews the lease."""
    expected = token.encode()

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get(TOKEN_HEADER, "").encode(errors="surrogateescape")
        if not hmac.compare_digest(given, expected):
            return web.Response(status=401)
        agent.hear()
        try:
            return await handler(request)
        except web.HTTPException as error:
            return _answer(Refusal(f"{request.method} {request.path}: {error.reason}"), error.status)
        except UnknownError as error:
            return _answer(Refusal(str(error)), 404)
        except UnableError as error:
            return _answer(Refusal(str(error)), 422)
        except AgentError as error:
            return _answer(Refusal(str(error)), 409)
        except Exception as error:
            logger.exception("%s %s", request.method, request.path)
            return _answer(Refusal(f"the agent failed: {type(error).__name__}: {error}"), 500)

    return guard


def _decoded(body: bytes, kind: type[Body]) -> Body:
    """`body` as a `kind`.

    Raises:
        UnableError: it is none.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UnableError(f"the body is no {kind.__name__.strip('_')}: {error}") from error


def _answer(message: msgspec.Struct, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(message), status=status, content_type="application/json")
