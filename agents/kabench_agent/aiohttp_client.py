"""aiohttp's client: one session for a target, whose own pool has as many connections as are asked for."""

from __future__ import annotations

from collections.abc import Callable

import aiohttp

from kabench.wire.messages import Target
from kabench_agent.protocols.base import Verdict
from kabench_agent.protocols.http1 import judge_of, method_of
from kabench_agent.tls import context, server_name


class HttpSession:
    """What the clients of a target share."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._session: aiohttp.ClientSession | None = None

    def client(self) -> HttpClient:
        """A place among the session's connections."""
        return HttpClient(self._target, self.session)

    def session(self) -> aiohttp.ClientSession:
        """The session, made when it is first asked for: it needs the running loop."""
        if self._session is None:
            target = self._target
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=target.connections,
                    force_close=not target.load.keep_alive,  # type: ignore[union-attr]  # of kind http
                    ssl=context(target.tls) if target.tls else True,
                    ttl_dns_cache=None,
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),  # the engine times out
            )
        return self._session

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()


class HttpClient:
    """One request at a time. The connection is made when there is something to ask, as aiohttp does it."""

    def __init__(self, target: Target, session: Callable[[], aiohttp.ClientSession]) -> None:
        load = target.load
        assert not hasattr(load, "mix")
        self._judge = judge_of(load.expect_status)
        self._method = method_of(load)
        self._body = load.body or b"x" * load.body_bytes
        self._headers = list(load.headers)
        self._paths = [path for path, _ in load.paths]
        self._server_name = server_name(target.tls, target.host) if target.tls else None
        self._scheme = "https" if target.tls else "http"
        self._session = session
        self._urls: list[str] = []

    async def open(self, host: str, port: int, lost: Callable[[], None]) -> None:
        """Nothing is connected before it is needed."""
        place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._urls = [f"{self._scheme}://{place}{path}" for path in self._paths]

    async def call(self, op: int) -> Verdict:
        """One request, and its reply to the end."""
        try:
            async with self._session().request(
                self._method,
                self._urls[op],
                headers=self._headers,
                data=self._body or None,
                allow_redirects=False,
                server_hostname=self._server_name,
            ) as response:
                await response.read()
        except aiohttp.ClientConnectorError:
            return Verdict.CONNECT
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, aiohttp.ClientPayloadError):
            return Verdict.RESET
        except (aiohttp.ClientError, ValueError):
            return Verdict.MALFORMED
        return self._judge(response.status)

    def abort(self) -> None:
        """A call that is cancelled closes its connection."""
