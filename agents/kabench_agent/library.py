"""Client libraries as drivers: what an application on one of them would feel, its tasks and its parser included.

A `Client` takes the place of a connection's transport; everything else (who sends when, what a failure costs whom) is the
pools' as on the wire. A request is a task here, so this is for comparing clients and no way to a high rate.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from kabench_agent.closed import ClosedConnection
from kabench_agent.drivers import Attempting, Connection
from kabench_agent.protocols.base import Verdict


class Client(Protocol):
    """One connection, or a place among a library's own."""

    async def open(self, host: str, port: int, lost: Callable[[], None]) -> None:
        """Get ready for requests; `lost` is called if the connection ends afterwards.

        Raises:
            OSError: there is none.
            ValueError: there cannot be one.
        """
        ...

    async def call(self, op: int) -> Verdict:
        """One request and its reply; raises nothing but what cancels it."""
        ...

    def abort(self) -> None:
        """Close at once. Idempotent."""
        ...


class LibraryCodec:
    """There are no bytes here for us to see.

    Args:
        missed: see `Codec.missed`.
    """

    keep_alive = True

    def __init__(self, missed: Callable[[int], bool]) -> None:
        self.missed = missed

    def encode(self, op: int) -> bytes:
        """The library encodes."""
        return b""

    def opening(self) -> None:
        """The client sees to it."""

    def reader(self) -> LibraryCodec:
        """The library reads."""
        return self

    def feed(self, data: bytes) -> list[Verdict]:
        """Nothing is fed."""
        return []

    def end(self) -> list[Verdict]:
        """The library tells."""
        return []

    def close(self) -> None:
        """Nothing refers back."""


class _Asking:
    """A connection whose requests are calls of a client, each in a task that ends with the connection."""

    _pool: Any
    _transport: Any
    made: bool

    def __init__(self, pool: Any) -> None:
        super().__init__(pool)  # type: ignore[call-arg]  # beside a Connection
        self._calls: set[asyncio.Task[None]] = set()

    def use(self, client: Client) -> None:
        """Begin with requests."""
        self.made = True
        self._transport = client
        self._pool.opened(self)

    def lost(self) -> None:
        """The peer closed, or the network broke."""
        self.end(Verdict.RESET)

    def end(self, verdict: Verdict, *, own: bool = False) -> None:
        """As `Connection.end`; calls that are under way are over too."""
        super().end(verdict, own=own)  # type: ignore[misc]
        for call in list(self._calls):
            call.cancel()

    def _call(self, op: int) -> None:
        call = asyncio.get_running_loop().create_task(self._ask(self._transport, op), name="request")
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    async def _ask(self, client: Client, op: int) -> None:
        verdict = await client.call(op)
        if self._transport is client:
            self._answered([verdict])

    def _answered(self, verdicts: list[Verdict]) -> None:
        raise NotImplementedError


class LibraryConnection(_Asking, Connection):
    """In an open loop."""

    def send(self, index: int, now_ns: int, request: bytes) -> None:
        """Ask."""
        flights = self._pool.flights
        flights.send(index, now_ns, self.number)
        self.queue.append(index)
        self._call(flights.operation(index))

    def _answered(self, verdicts: list[Verdict]) -> None:
        self._pool.replied(self, verdicts, True)


class LibraryClosedConnection(_Asking, ClosedConnection):
    """In a closed loop."""

    def ask(self, ops: list[int]) -> None:
        """Ask."""
        for op in list(ops):
            self._call(op)

    def _answered(self, verdicts: list[Verdict]) -> None:
        self._pool.answered(self, verdicts, True)


class LibraryTransport(Attempting):
    """Clients as connections. An attempt that takes longer than `patience_ns` has failed.

    Args:
        patience_ns: for an attempt.
        make: a client for a fresh connection.
        shut: closes what the clients share.
    """

    def __init__(
        self, patience_ns: int, make: Callable[[], Client], shut: Callable[[], Any] | None = None
    ) -> None:
        super().__init__(patience_ns)
        self._make, self._shut = make, shut

    async def close(self) -> None:
        """Give up the attempts under way, and close what is shared."""
        await super().close()
        if self._shut is not None:
            await self._shut()

    async def _attempt(
        self, host: str, port: int, connection: asyncio.Protocol, failed: Callable[[Exception], None]
    ) -> None:
        assert isinstance(connection, _Asking)
        client = self._make()
        try:
            async with asyncio.timeout(self._patience_s):
                await client.open(host, port, connection.lost)
        except (OSError, ValueError, OverflowError) as error:
            client.abort()
            failed(error)
        except BaseException:
            client.abort()
            raise
        else:
            connection.use(client)
