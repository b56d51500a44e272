"""The controller's side of one agent: `kabench.wire.messages` over aiohttp's client.

Every call has a time-out of its own. Calls that change nothing, or change the same again, are repeated for the endpoint's
patience where no answer came, since what is in between (an API server) may be starting anew; prepare and arm are not. What
goes wrong is an AgentError that names the node and what to do.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

import aiohttp
import msgspec

from kabench.backends.base import AgentEndpoint
from kabench.backends.patience import Patience, is_starting
from kabench.clock import Clock
from kabench.core.contention import Contention
from kabench.errors import AgentError, AgentLost, LogError, ProtocolError
from kabench.wire.messages import (
    PROTOCOL,
    SHA256_HEADER,
    TOKEN_HEADER,
    Ack,
    Arm,
    Armed,
    Hello,
    Interval,
    Prepare,
    Prepared,
    Probe,
    Refusal,
    Status,
    Windows,
)

CALL_S = 5.0
CONNECT_S = 3.0
ABORT_S = 15.0
FETCH_S = 60.0
PREPARE_MARGIN_S = 30.0
"""Beyond the two waits of a preparation (targets, connections): computing due times, and filling on a busy node."""
FILL_S_PER_KEY = 0.001
PROBE_MARGIN_S = 20.0
STREAM_SILENCE_S = 20.0
"""An agent sends an empty line every few seconds."""
ON_THE_WAY = (502, 503, 504)
"""What a proxy answers that could not reach the agent."""
MOST_LINE_BYTES = 4 << 20

Answer = TypeVar("Answer", bound=msgspec.Struct)


class AgentGone(AgentLost):
    """The agent exists no more: waiting for it is in vain."""


class _ProxyStatus(msgspec.Struct, frozen=True):
    """What a Kubernetes API server says in its own name."""

    kind: Literal["Status"]
    message: str = ""


@dataclass(frozen=True)
class ClockOffset:
    """An agent's monotonic clock minus ours, and how far off the estimate may be: half of the round trip."""

    offset_ns: int
    error_ns: int


class AgentLink:
    """Talks to one agent.

    Args:
        endpoint: where it is and what it wants to see.
        clock: our clock.
    """

    def __init__(self, endpoint: AgentEndpoint, clock: Clock) -> None:
        self.node = endpoint.node
        self._url = endpoint.base_url.rstrip("/")
        self._ssl = True if endpoint.ssl is None else endpoint.ssl
        self._headers: Mapping[str, str] = {**endpoint.headers, TOKEN_HEADER: endpoint.token}
        self._patience_ns = round(endpoint.patience_s * 1e9)
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None
        self._let_in = False
        """Whether the way there has let us pass: if it refuses later, it has started anew and does not know us yet."""

    async def hello(self, rounds: int = 8) -> tuple[Hello, ClockOffset]:
        """Who the agent is, and how its clock stands to ours: the best of `rounds` exchanges.

        Raises:
            ProtocolError: it speaks another version.
            AgentLost, AgentError: as for every call.
        """
        best: tuple[Hello, ClockOffset] | None = None
        for _ in range(max(1, rounds)):
            before_ns = self._clock.monotonic_ns()
            body, _headers = await self._call("GET", "/v1/hello", timeout_s=CALL_S, repeat=True)
            after_ns = self._clock.monotonic_ns()
            hello = self._decoded(body, Hello)
            if hello.protocol != PROTOCOL:
                raise ProtocolError(
                    f"agent {self.node} speaks protocol {hello.protocol}, we speak {PROTOCOL}: run the same kabench on both"
                )
            error_ns = (after_ns - before_ns + 1) // 2
            if best is None or error_ns < best[1].error_ns:
                offset_ns = hello.monotonic_ns - (before_ns + after_ns) // 2
                best = hello, ClockOffset(offset_ns, error_ns)
        assert best is not None
        return best

    async def prepare(self, order: Prepare) -> Prepared:
        """Have the agent reach its targets, fill, connect and plan. Raises AgentError with the reason if it cannot."""
        keys = sum(getattr(target.load, "keys", 0) for target in order.targets if target.fill)
        timeout_s = 2 * order.ready_timeout_ns / 1e9 + PREPARE_MARGIN_S + FILL_S_PER_KEY * keys
        return await self._ask("POST", "/v1/prepare", Prepared, order, timeout_s=timeout_s)

    async def arm(self, arm: Arm) -> Armed:
        """Start at `arm.start_ns` of the agent's clock."""
        return await self._ask("POST", "/v1/arm", Armed, arm)

    async def abort(self) -> Status:
        """Give up what is prepared or running."""
        return await self._ask("POST", "/v1/abort", Status, timeout_s=ABORT_S, repeat=True)

    async def status(self) -> Status:
        """Where the session stands; renews the lease, as every call does."""
        return await self._ask("GET", "/v1/status", Status, repeat=True)

    async def windows(self, *, patient: bool = True) -> Windows:
        """The logs the agent holds; asked once only where we are not `patient`."""
        return await self._ask("GET", "/v1/windows", Windows, repeat=patient)

    async def ack(self, window: str, ack: Ack) -> Status:
        """The log with this digest is safe: the agent may delete it."""
        return await self._ask("POST", f"/v1/windows/{window}/ack", Status, ack)

    async def probe(self, probe: Probe) -> Contention:
        """How contended the node is."""
        timeout_s = probe.duration_ns / 1e9 + PROBE_MARGIN_S
        return await self._ask("POST", "/v1/probe", Contention, probe, timeout_s=timeout_s, repeat=True)

    async def fetch(self, window: str) -> bytes:
        """The log of `window`, whole.

        Raises:
            LogError: what came is not what the agent sent.
            AgentLost, AgentError: as for every call.
        """
        path = f"/v1/windows/{window}/log"
        content, headers = await self._call("GET", path, timeout_s=FETCH_S, repeat=True)
        expected = headers.get(SHA256_HEADER, "")
        found = hashlib.sha256(content).hexdigest()
        if found != expected:
            raise LogError(
                f"the log of {window} from agent {self.node} is damaged on its way: SHA-256 {found[:12]}… came, "
                f"{expected[:12] or 'nothing'}… was sent; the agent still holds it"
            )
        return content

    async def stream(self, window: str) -> AsyncIterator[Interval]:
        """The intervals of `window` as they close; the last one is sealed. A stream that breaks is taken up again.

        Raises:
            AgentError: the window ended without its seal.
            AgentLost: the agent went silent for longer than our patience.
        """
        patience = Patience(self._clock, self._patience_ns)
        while True:
            try:
                async for interval in self._stream_once(window):
                    patience.answered()
                    yield interval
                return
            except AgentGone:
                raise
            except AgentLost as error:
                await patience.pause(error)

    async def _stream_once(self, window: str) -> AsyncIterator[Interval]:
        timeout = aiohttp.ClientTimeout(sock_connect=CONNECT_S, sock_read=STREAM_SILENCE_S)
        try:
            async with self._open().get(
                f"{self._url}/v1/windows/{window}/stream", timeout=timeout, ssl=self._ssl
            ) as response:
                if response.status != 200:
                    raise self._refused(response.status, await response.read())
                async for line in response.content:
                    if not line.strip():
                        continue
                    interval = self._decoded(line, Interval)
                    yield interval
                    if interval.sealed:
                        return
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self._lost(error, STREAM_SILENCE_S) from error
        raise AgentError(f"agent {self.node} ended {window} without its seal: its status or its log says why")

    async def close(self) -> None:
        """Close the connections. Idempotent; the agent keeps what it holds."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _ask(
        self,
        verb: str,
        path: str,
        kind: type[Answer],
        body: msgspec.Struct | None = None,
        *,
        timeout_s: float = CALL_S,
        repeat: bool = False,
    ) -> Answer:
        content, _ = await self._call(verb, path, body, timeout_s=timeout_s, repeat=repeat)
        return self._decoded(content, kind)

    async def _call(
        self, verb: str, path: str, body: msgspec.Struct | None = None, *, timeout_s: float, repeat: bool
    ) -> tuple[bytes, Mapping[str, str]]:
        """One call; `repeat`: try again where no answer came.

        Raises:
            AgentLost: no answer, in time or at all.
            AgentError: a refusal.
            ProtocolError: an answer that is none of ours.
        """
        patience = Patience(self._clock, self._patience_ns)
        while True:
            try:
                return await self._call_once(verb, path, body, timeout_s)
            except AgentLost as error:
                if not repeat or isinstance(error, AgentGone):
                    raise
                await patience.pause(error)

    async def _call_once(
        self, verb: str, path: str, body: msgspec.Struct | None, timeout_s: float
    ) -> tuple[bytes, Mapping[str, str]]:
        data = None if body is None else msgspec.json.encode(body)
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_S)
        try:
            async with self._open().request(
                verb,
                self._url + path,
                data=data,
                timeout=timeout,
                ssl=self._ssl,
                headers={"Content-Type": "application/json"} if data else {},
            ) as response:
                content = await response.read()
                if response.status != 200:
                    raise self._refused(response.status, content)
                self._let_in = True
                return content, response.headers
        except (aiohttp.ClientError, OSError) as error:
            raise self._lost(error, timeout_s) from error

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(headers=self._headers, read_bufsize=MOST_LINE_BYTES)
        return self._session

    def _decoded(self, body: bytes, kind: type[Answer]) -> Answer:
        try:
            return msgspec.json.decode(body, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ProtocolError(
                f"agent {self.node} answered with no {kind.__name__} ({error}): is another program at {self._url}?"
            ) from error

    def _refused(self, status: int, content: bytes) -> AgentError:
        """What a refusal means; a status that no agent gives is another program's."""
        if status == 401 and b'"Status"' not in content:
            return AgentError(f"agent {self.node} refused our token: it belongs to another run, end it")
        for read in (self._own_refusal, self._proxys_refusal):
            refusal = read(status, content)
            if refusal is not None:
                return refusal
        return ProtocolError(
            f"agent {self.node} answered with HTTP status {status} and no reason: is another program at {self._url}?"
        )

    def _own_refusal(self, status: int, content: bytes) -> AgentError | None:
        try:
            return AgentError(f"agent {self.node}: {msgspec.json.decode(content, type=Refusal).error}")
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None

    def _proxys_refusal(self, status: int, content: bytes) -> AgentError | None:
        """What an API server between us and the agent answered in its stead."""
        try:
            message = msgspec.json.decode(content, type=_ProxyStatus).message
        except (msgspec.MsgspecError, UnicodeDecodeError):
            if status not in ON_THE_WAY:
                return None
            message = content.decode(errors="replace").strip()[:200]
        if status == 404:
            return AgentGone(f"agent {self.node} is gone: {message}")
        if status in (401, 403) and not (self._let_in or is_starting(status, message)):
            return AgentError(
                f"agent {self.node}: the API server refuses us: {message}; kabench doctor says which rights are missing"
            )
        return AgentLost(f"agent {self.node} is out of reach: HTTP status {status}: {message}")

    def _lost(self, error: Exception, timeout_s: float) -> AgentLost:
        if isinstance(error, TimeoutError):
            cause = f"it did not answer within {timeout_s:g} s"
        else:
            cause = str(error) or type(error).__name__
        return AgentLost(
            f"agent {self.node} at {self._url} is lost: {cause}; see whether its process still runs"
        )
