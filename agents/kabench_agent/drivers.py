"""One connection, and the pool of a target's connections: who sends on which, and what a failure costs whom.

A connection lives once: after its end the pool makes a new one. Everything here runs in the callbacks of the loop (or of
a fake transport) and of the engine's wake-ups; there is no task a request.
"""

from __future__ import annotations

import asyncio
import functools
import heapq
import socket
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

from kabench.clock import Clock
from kabench.wire.messages import Tls
from kabench_agent.flights import Flights
from kabench_agent.protocols.base import Codec, Opening, Verdict
from kabench_agent.tls import context, reason, server_name

FIRST_BACKOFF_NS = 10_000_000
MOST_ATTEMPTS = 256
"""At a time: a server queues some hundred at most, and drops the others' first packets for a second."""
LONGEST_BACKOFF_NS = 250_000_000
"""Four attempts a second: a target that restarts is found soon, and its absence costs nothing."""


class Transport(Protocol):
    """Makes connections; a fake one drives the same code in virtual time."""

    def connect(
        self, host: str, port: int, connection: asyncio.Protocol, failed: Callable[[Exception], None]
    ) -> None:
        """Begin to connect: later, `connection.connection_made` or `failed` is called, never before this returns."""
        ...

    async def close(self) -> None:
        """Give up the attempts under way."""
        ...


class Landing(Protocol):
    """Where requests are over: the engine."""

    def land(self, index: int, at_ns: int, verdict: Verdict) -> None:
        """Request `index` was over at `at_ns`."""
        ...

    def reconnected(self) -> None:
        """A connection was made anew."""
        ...

    def settle(self) -> None:
        """Look whether all is done, and what is due next: something rare has happened, or the last reply came."""
        ...


class Connection(asyncio.Protocol):
    """One connection with up to `pipeline` requests on it, answered in order."""

    __slots__ = ("_pool", "_reader", "_transport", "local", "made", "number", "queue", "useful")

    def __init__(self, pool: Pool) -> None:
        self.queue: deque[int] = deque()
        self.made = False
        self.useful = False
        self.number = 0  # among the pool's; the pool's business
        self.local = ""
        self._pool = pool
        self._reader = pool.codec.reader()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The transport: small writes are to leave at once."""
        sock = transport.get_extra_info("socket")
        self.made = True
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            host, port = sock.getsockname()[:2]
            self.local = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._transport = transport  # type: ignore[assignment]  # streams have a Transport
        self._pool.opened(self)

    def send(self, index: int, now_ns: int, request: bytes) -> None:
        """Hand a request to the socket."""
        assert self._transport is not None
        self._pool.flights.send(index, now_ns, self.number)
        self.queue.append(index)
        try:
            self._transport.write(request)
        except RuntimeError:  # uvloop closed it and calls no `connection_lost`
            asyncio.get_running_loop().call_soon(self.end, Verdict.RESET)  # not now: the pool is at work

    def data_received(self, data: bytes) -> None:
        """Replies, whole or in pieces."""
        if self._transport is None:
            return
        verdicts = self._reader.feed(data)
        if verdicts:
            self._pool.replied(self, verdicts, self._reader.keep_alive)
        if not self._reader.keep_alive:
            self.end(Verdict.RESET)

    def connection_lost(self, exc: Exception | None) -> None:
        """The peer closed, or the network broke; after our own `end` there is nothing left to do."""
        if exc is None and self._transport is not None and (verdicts := self._reader.end()):
            self.ended_with(verdicts)
        self.end(Verdict.RESET)

    def ended_with(self, verdicts: list[Verdict]) -> None:
        """What was read last was whole, since the peer closed."""
        self._pool.replied(self, verdicts, False)

    def end(self, verdict: Verdict, *, own: bool = False) -> None:
        """Close now; what is still on it gets `verdict`. `own`: we would have it so, the peer did nothing. Idempotent."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()
            self._reader.close()
            self._pool.lost(self, verdict, own)


class Pool:
    """A target's connections, and the requests that wait for one.

    Args:
        host, port: where the target listens.
        codec: what it speaks.
        size, pipeline: connections, and requests on each.
        clock, transport, landing: the engine's.

    Attributes:
        alive: connections that are open.
        last_failure: why the last attempt failed that did, or its connection was of no use; "" if none.
        local: our end of each connection by its number, as it was last made.
    """

    connection_type: type[Connection] = Connection

    def __init__(
        self,
        host: str,
        port: int,
        codec: Codec,
        *,
        size: int,
        pipeline: int,
        clock: Clock,
        transport: Transport,
        landing: Landing,
    ) -> None:
        self.codec = codec
        self.flights: Flights
        self.alive: set[Connection] = set()
        self.last_failure = ""
        self.local = [""] * size
        self._numbers = list(range(size))  # a heap of those that no open connection has
        self._address = host, port
        self._size = size
        self._pipeline = pipeline
        self._now_ns = clock.monotonic_ns
        self._transport = transport
        self._landing = landing
        self._free: deque[Connection] = (
            deque()
        )  # once for every request that one can take; some may have ended
        self._waiting: deque[int] = deque()
        self._attempts = 0
        self._made = 0
        self._backoff_ns = 0
        self._not_before_ns = 0
        self._closed = False

    @property
    def full(self) -> bool:
        """All connections are open."""
        return len(self.alive) == self._size

    @property
    def next_attempt_ns(self) -> int | None:
        """When to call `maintain` next; None: nothing is missing that is not being made."""
        missing = self._size - len(self.alive) - self._attempts
        more = missing > 0 and self._attempts < MOST_ATTEMPTS and not self._closed
        return self._not_before_ns if more else None

    def maintain(self, now_ns: int) -> None:
        """Begin to make the connections that are missing, if the pause after a failure is over."""
        due_ns = self.next_attempt_ns
        if due_ns is None or now_ns < due_ns:
            return
        missing = self._size - len(self.alive) - self._attempts
        for _ in range(min(missing, MOST_ATTEMPTS - self._attempts)):
            self._attempts += 1
            connection = self.connection_type(self)
            self._transport.connect(*self._address, connection, functools.partial(self._failed, connection))

    def dispatch(self, index: int, now_ns: int) -> None:
        """Send on the connection that was free the longest, or wait for one."""
        free = self._free
        while free:
            connection = free.popleft()
            if connection in self.alive:
                connection.send(index, now_ns, self.codec.encode(self.flights.operation(index)))
                return
        self._waiting.append(index)

    def forget_over(self) -> None:
        """Let go of those that waited until they timed out: the oldest wait in front."""
        waiting, is_open = self._waiting, self.flights.is_open
        while waiting and not is_open(waiting[0]):
            waiting.popleft()

    def drop_stuck(self) -> None:
        """Close the connections that a request on them timed out on: a late reply could not be told from the next."""
        is_open = self.flights.is_open
        for connection in list(self.alive):
            if not all(is_open(index) for index in connection.queue):
                connection.end(Verdict.ABORTED, own=True)

    def close(self) -> None:
        """End all connections for good; what is on them is over as aborted."""
        self._closed = True
        for connection in list(self.alive):
            connection.end(Verdict.ABORTED, own=True)

    def opened(self, connection: Connection) -> None:
        """A connection is there: those who wait go first."""
        self._attempts -= 1
        if self._closed:
            connection.end(Verdict.ABORTED, own=True)
            return
        self._made += 1
        if self._made > self._size:
            self._landing.reconnected()
        self.alive.add(connection)
        connection.number = heapq.heappop(self._numbers)
        self.local[connection.number] = connection.local
        for _ in range(self._pipeline):
            self._give_back(connection)
        self._landing.settle()

    def replied(self, connection: Connection, verdicts: Iterable[Verdict], stays: bool) -> None:
        """Replies came, in the order of the requests; each makes room for one that waits, if the connection stays."""
        for verdict in verdicts:
            if not connection.queue:  # a reply that nobody asked for: what follows cannot be told apart
                self.last_failure = "it says something before it is asked"
                connection.end(Verdict.ABORTED)
                return
            index = connection.queue.popleft()
            if verdict is Verdict.MISS and not self.codec.missed(self.flights.operation(index)):
                verdict = Verdict.OK
            self._landing.land(index, self._now_ns(), verdict)
            if verdict is Verdict.MALFORMED:
                connection.end(Verdict.ABORTED)
                return
            if not connection.useful:
                connection.useful = True
                self._backoff_ns = 0
            if stays:
                self._give_back(connection)
        if self.flights.over:
            self._landing.settle()

    def lost(self, connection: Connection, verdict: Verdict, own: bool) -> None:
        """A connection has ended; what is on it gets `verdict`."""
        now_ns = self._now_ns()
        if connection in self.alive:
            self.alive.remove(connection)
            heapq.heappush(self._numbers, connection.number)
        if len(self._free) > 2 * self._size * self._pipeline:  # not each time: there may be thousands of them
            self._free = deque(one for one in self._free if one in self.alive)
        while connection.queue:
            index = connection.queue.popleft()
            if self.flights.is_open(index):
                self._landing.land(index, now_ns, verdict)
        if not own and not connection.useful:  # it accepts, and closes: as bad as a refusal
            self.last_failure = self.last_failure or "it takes connections and closes them"
            self._pause(now_ns)
        self._landing.settle()

    def _give_back(self, connection: Connection) -> None:
        """Room for one request on `connection`."""
        while self._waiting:
            index = self._waiting.popleft()
            if self.flights.is_open(index):
                connection.send(index, self._now_ns(), self.codec.encode(self.flights.operation(index)))
                return
        self._free.append(connection)

    def _failed(self, connection: Connection, error: Exception) -> None:
        """An attempt failed. With nothing alive and nothing on its way, those who wait cannot be served."""
        if connection.made:  # given up at the instant it was made: lost, which uvloop does not say
            connection.end(Verdict.ABORTED, own=True)
            return
        now_ns = self._now_ns()
        self._attempts -= 1
        self.last_failure = reason(error)
        self._pause(now_ns)
        if not self.alive and not self._attempts:
            waiting, self._waiting = self._waiting, deque()
            for index in waiting:
                if self.flights.is_open(index):
                    self._landing.land(index, now_ns, Verdict.CONNECT)
        self._landing.settle()

    def _pause(self, now_ns: int) -> None:
        """Put the next attempt off, longer each time; attempts that fail side by side count as one."""
        if now_ns >= self._not_before_ns:
            self._backoff_ns = min(max(2 * self._backoff_ns, FIRST_BACKOFF_NS), LONGEST_BACKOFF_NS)
            self._not_before_ns = now_ns + self._backoff_ns


class Greeter(asyncio.Protocol):
    """Opens a fresh connection as its protocol wants it, before the first request."""

    def __init__(self, opening: Opening) -> None:
        self.transport: asyncio.Transport
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._opening = opening

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say what is to be said."""
        self.transport = transport  # type: ignore[assignment]  # streams have a Transport
        self.transport.write(self._opening.request)

    def data_received(self, data: bytes) -> None:
        """What it answers."""
        refusal = self._opening.feed(data)
        if refusal is not None and not self.done.done():
            if refusal:
                self.done.set_exception(OpeningRefusedError(refusal))
            else:
                self.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """It closed before it answered."""
        if not self.done.done():
            self.done.set_exception(
                exc or ConnectionResetError("it closed the connection before it answered")
            )


class OpeningRefusedError(ConnectionError):
    """The peer speaks, and does not want us: no such user, no such database."""


class Attempting:
    """A transport's attempts, each in a task that `close` ends.

    Args:
        patience_ns: what takes longer has failed.
    """

    def __init__(self, patience_ns: int) -> None:
        self._patience_s = patience_ns / 1e9
        self._attempts: set[asyncio.Task[None]] = set()

    def connect(
        self, host: str, port: int, connection: asyncio.Protocol, failed: Callable[[Exception], None]
    ) -> None:
        """Begin."""
        task = asyncio.get_running_loop().create_task(
            self._attempt(host, port, connection, failed), name=f"connect {host}:{port}"
        )
        self._attempts.add(task)
        task.add_done_callback(self._attempts.discard)

    async def close(self) -> None:
        """Give up the attempts under way."""
        attempts = list(self._attempts)
        for task in attempts:
            task.cancel()
        await asyncio.gather(*attempts, return_exceptions=True)

    async def _attempt(
        self, host: str, port: int, connection: asyncio.Protocol, failed: Callable[[Exception], None]
    ) -> None:
        """Have `connection` begin, or call `failed`."""
        raise NotImplementedError


class AsyncioTransport(Attempting):
    """Connections of the running loop. An attempt that takes longer than `patience_ns` has failed.

    Args:
        patience_ns: for all of an attempt, the TLS handshake and the opening included.
        tls: how to speak TLS; None in the clear.
        opening: makes what a fresh connection begins with, if anything.

    Raises:
        ValueError: `tls` asks for what is not there.
    """

    def __init__(
        self,
        patience_ns: int,
        tls: Tls | None = None,
        opening: Callable[[], Opening | None] = lambda: None,
    ) -> None:
        super().__init__(patience_ns)
        self._tls = tls
        self._context = context(tls) if tls else None
        self._opening = opening

    async def reach(self, host: str, port: int, connection: asyncio.Protocol) -> asyncio.Transport:
        """A connection that is open for requests.

        Raises:
            OSError: there is none: refused, in vain, no such host, a certificate or a password that is wrong.
            ValueError: no such port.
        """
        loop = asyncio.get_running_loop()
        opening = self._opening()
        first = connection if opening is None else Greeter(opening)
        name = server_name(self._tls, host) if self._tls else None
        async with asyncio.timeout(self._patience_s):
            transport, _ = await loop.create_connection(
                lambda: first, host, port, ssl=self._context, server_hostname=name
            )
            if not isinstance(first, Greeter):
                return transport
            try:
                await first.done
            except BaseException:
                transport.abort()
                raise
        transport.set_protocol(connection)
        connection.connection_made(transport)
        return transport

    async def _attempt(
        self, host: str, port: int, connection: asyncio.Protocol, failed: Callable[[Exception], None]
    ) -> None:
        try:
            await self.reach(host, port, connection)
        except (OSError, ValueError, OverflowError) as error:
            failed(error)
