"""The closed loop: every connection sends its next requests as soon as it has replies, as long as the window lasts.

It finds how much a target can take. What it cannot show is what a user would wait: while the target is slow nothing is
sent, so the requests that would have come meanwhile are missing from its response times (coordinated omission).

A request is due when its connection has room for it, and is sent at that instant: lag and wait are not defined. Everything
that costs time here costs requests, so the ordinary case (all that was sent at once is answered at once, and well) goes by
the shortest way, and what is recorded are runs (`landed.Runs`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from kabench.core.schedule import Ints
from kabench_agent.drivers import Connection, Pool
from kabench_agent.landed import COUNT_BITS, VERDICT_BITS
from kabench_agent.protocols.base import Verdict
from kabench_agent.recorder import Recorder

DRAWN_AT_ONCE = 1024
"""Operations: some 30 µs."""


class Draws:
    """The next operations, without end.

    Args:
        take: gives so many of them.
    """

    def __init__(self, take: Callable[[int], Ints]) -> None:
        self._take = take
        self._ahead: list[int] = []  # the next one last

    def next(self, count: int) -> list[int]:
        """`count` operations, in the order in which they were drawn."""
        if len(self._ahead) < count:
            self._ahead = [*self._take(max(count, DRAWN_AT_ONCE)).tolist()[::-1], *self._ahead]
        ahead = self._ahead
        if count == 1:
            return [ahead.pop()]
        some = ahead[-count:][::-1]
        del ahead[-count:]
        return some


class ClosedConnection(Connection):
    """A connection that sends again as soon as it can."""

    __slots__ = ("runs",)

    def __init__(self, pool: ClosedPool) -> None:
        super().__init__(pool)
        self.runs: deque[tuple[int, list[int]]] = deque()  # when sent, operations; oldest first
        self._pool: ClosedPool

    def issue(self, ops: list[int], now_ns: int, requests: bytes) -> None:
        """Hand requests to the socket."""
        assert self._transport is not None
        self.runs.append((now_ns, ops))
        try:
            self._transport.write(requests)
        except RuntimeError:  # uvloop closed it and calls no `connection_lost`
            asyncio.get_running_loop().call_soon(self.end, Verdict.RESET)

    def data_received(self, data: bytes) -> None:
        """Replies, whole or in pieces."""
        if self._transport is None:
            return
        verdicts = self._reader.feed(data)
        stays = self._reader.keep_alive
        if verdicts and self.runs:
            self._pool.answered(self, verdicts, stays)
        elif verdicts:  # nobody asked, maybe before anything was
            self._pool.replied(self, verdicts, stays)
        if not stays:
            self.end(Verdict.RESET)

    def ended_with(self, verdicts: list[Verdict]) -> None:
        """What was read last was whole, since the peer closed."""
        self._pool.answered(self, verdicts, False)


class ClosedPool(Pool):
    """A target's connections in a closed loop; `Pool` makes and ends them.

    Args:
        take: gives so many operations; the rest is `Pool`'s.
    """

    connection_type = ClosedConnection
    alive: set[ClosedConnection]  # type: ignore[assignment]  # made by `connection_type`

    def __init__(self, *args: Any, take: Callable[[int], Ints], **more: Any) -> None:
        super().__init__(*args, **more)
        self._draws = Draws(take)
        self._encode = self.codec.encode
        self._recorder: Recorder
        self._target = 0
        self._until_ns = 0

    @property
    def in_flight(self) -> int:
        """Requests that were sent and are not over."""
        return sum(len(ops) for connection in self.alive for _, ops in connection.runs)

    def drive(self, recorder: Recorder, target: int, until_ns: int) -> None:
        """Begin, as `target` of the recorder's, and send nothing from `until_ns` on."""
        self._recorder, self._target, self._until_ns = recorder, target, until_ns
        for connection in list(self.alive):
            self._send(connection, self._pipeline, self._now_ns())

    def answered(self, connection: ClosedConnection, verdicts: list[Verdict], stays: bool) -> None:
        """Replies came, in the order of the requests; each makes room for another request, if the connection stays."""
        now_ns = self._now_ns()
        recorder, runs, count = self._recorder, connection.runs, len(verdicts)
        if now_ns >= recorder.end_ns:
            recorder.roll(now_ns)
        if runs and len(runs[0][1]) == count == verdicts.count(Verdict.OK):
            over = recorder.runs[self._target]
            over.sent_ns.append(runs.popleft()[0])
            over.at_ns.append(now_ns)
            over.what.append(connection.number << (COUNT_BITS + VERDICT_BITS) | count)
        elif not self._one_by_one(connection, verdicts, now_ns):
            return
        if not connection.useful:
            connection.useful = True
            self._backoff_ns = 0
        if now_ns >= self._until_ns:
            if not runs:
                self._landing.settle()
        elif stays:
            self._send(connection, count, now_ns)

    @property
    def oldest_ns(self) -> int | None:
        """When the oldest request in flight was sent; None: nothing is."""
        return min((connection.runs[0][0] for connection in self.alive if connection.runs), default=None)

    def expire(self, sent_by_ns: int) -> None:
        """Time out what was sent by then and is not over; what else is on the connection is aborted."""
        for connection in list(self.alive):
            runs = connection.runs
            if not runs or runs[0][0] > sent_by_ns:
                continue
            now_ns = self._now_ns()
            while runs and runs[0][0] <= sent_by_ns:
                sent_ns, ops = runs.popleft()
                self._record(connection, sent_ns, now_ns, Verdict.TIMEOUT, len(ops))
            connection.end(Verdict.ABORTED, own=True)  # a late reply could not be told from the next

    def opened(self, connection: Connection) -> None:
        """A connection is there: it begins at once."""
        super().opened(connection)
        if connection in self.alive and self._now_ns() < self._until_ns:
            assert isinstance(connection, ClosedConnection)
            self._send(connection, self._pipeline, self._now_ns())

    def lost(self, connection: Connection, verdict: Verdict, own: bool) -> None:
        """A connection has ended; what is on it gets `verdict`."""
        assert isinstance(connection, ClosedConnection)
        if connection.runs:
            now_ns = self._now_ns()
            while connection.runs:
                sent_ns, ops = connection.runs.popleft()
                self._record(connection, sent_ns, now_ns, verdict, len(ops))
        super().lost(connection, verdict, own)

    def _failed(self, connection: Connection, error: Exception) -> None:
        """An attempt failed, while driving that is a request that could not be made."""
        now_ns = self._now_ns()
        if now_ns < self._until_ns and not connection.made:
            self._record(connection, now_ns, now_ns, Verdict.CONNECT, 1)
        super()._failed(connection, error)

    def _send(self, connection: ClosedConnection, count: int, now_ns: int) -> None:
        """The next `count` requests."""
        ops = self._draws.next(count)
        requests = self._encode(ops[0]) if count == 1 else b"".join(map(self._encode, ops))
        connection.issue(ops, now_ns, requests)

    def _one_by_one(self, connection: ClosedConnection, verdicts: list[Verdict], now_ns: int) -> bool:
        """Match replies with what was sent; False where the connection is of no more use."""
        runs = connection.runs
        for verdict in verdicts:
            if not runs:  # a reply that nobody asked for: what follows cannot be told apart
                connection.end(Verdict.ABORTED)
                return False
            sent_ns, ops = runs[0]
            op = ops.pop(0)
            if not ops:
                runs.popleft()
            if verdict is Verdict.MISS and not self.codec.missed(op):
                verdict = Verdict.OK
            self._record(connection, sent_ns, now_ns, verdict, 1)
            if verdict is Verdict.MALFORMED:
                connection.end(Verdict.ABORTED)
                return False
        return True

    def _record(self, connection: Connection, sent_ns: int, at_ns: int, verdict: Verdict, count: int) -> None:
        if at_ns >= self._recorder.end_ns:
            self._recorder.roll(at_ns)
        self._recorder.runs[self._target].add(sent_ns, at_ns, connection.number, verdict, count)
