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

_OK = Verdict.OK
_NUMBER_SHIFT = COUNT_BITS + VERDICT_BITS


class Draws:
    """The next operations, without end.

    Args:
        take: gives so many of them.
    """

    def __init__(self, take: Callable[[int], Ints]) -> None:
        self._take = take
        self._ahead: list[int] = []  # the next one last

    def one(self) -> int:
        """The next operation."""
        return self._ahead.pop() if self._ahead else self.next(1)[0]

    def next(self, count: int) -> list[int]:
        """`count` operations, in the order in which they were drawn."""
        if len(self._ahead) < count:
            self._ahead = [*self._take(max(count, DRAWN_AT_ONCE)).tolist()[::-1], *self._ahead]
        ahead = self._ahead
        some = ahead[-count:][::-1]
        del ahead[-count:]
        return some


class Run:
    """Requests that left a connection together: when, and the operations of those that are not over."""

    __slots__ = ("ops", "sent_ns")

    def __init__(self, sent_ns: int, ops: list[int]) -> None:
        self.sent_ns = sent_ns
        self.ops = ops


class ClosedConnection(Connection):
    """A connection that sends again as soon as it can."""

    __slots__ = ("runs",)

    def __init__(self, pool: ClosedPool) -> None:
        super().__init__(pool)
        self.runs: deque[Run] = deque()  # oldest first
        self._pool: ClosedPool

    def ask(self, ops: list[int]) -> None:
        """Hand requests to the socket."""
        assert self._transport is not None
        try:
            self._transport.write(b"".join(map(self._pool.encode, ops)))
        except RuntimeError:
            self.refused()

    def refused(self) -> None:
        """The transport is closed; uvloop says so here, and calls no `connection_lost`."""
        asyncio.get_running_loop().call_soon(self.end, Verdict.RESET)

    def data_received(self, data: bytes) -> None:
        """Replies, whole or in pieces.

        The ordinary case stands here as a whole: what is in flight left together, and is answered together, and well. Each
        call that it does without is worth 1% of the requests.
        """
        transport = self._transport
        if transport is None:
            return
        reader, pool, runs = self._reader, self._pool, self.runs
        verdicts = reader.feed(data)
        count = len(verdicts)
        if (
            len(runs) == 1
            and len((run := runs[0]).ops) == count == verdicts.count(_OK)
            and reader.keep_alive
            and self.useful
            and (now_ns := pool.now_ns()) < pool.calm_until_ns
        ):
            over = pool.recorder.runs[pool.target]
            over.sent_ns.append(run.sent_ns)
            over.at_ns.append(now_ns)
            over.what.append(self.number << _NUMBER_SHIFT | count)
            run.sent_ns = now_ns
            if count == 1:
                run.ops[0] = op = pool.draws.one()
                requests = pool.encode(op)
            else:
                run.ops = pool.draws.next(count)
                requests = b"".join(map(pool.encode, run.ops))
            try:
                transport.write(requests)
            except RuntimeError:
                self.refused()
            return
        stays = reader.keep_alive
        if verdicts and runs:
            pool.answered(self, verdicts, stays)
        elif verdicts:  # nobody asked, maybe before anything was
            pool.replied(self, verdicts, stays)
        if not stays:
            self.end(Verdict.RESET)

    def ended_with(self, verdicts: list[Verdict]) -> None:
        """What was read last was whole, since the peer closed."""
        self._pool.answered(self, verdicts, False)


class ClosedPool(Pool):
    """A target's connections in a closed loop; `Pool` makes and ends them.

    Args:
        take: gives so many operations; the rest is `Pool`'s.

    Attributes:
        draws, encode, now_ns, recorder, target: what a connection needs for its next requests.
        calm_until_ns: until then neither an interval ends nor the window.
    """

    connection_type = ClosedConnection
    alive: set[ClosedConnection]  # type: ignore[assignment]  # made by `connection_type`

    def __init__(self, *args: Any, take: Callable[[int], Ints], **more: Any) -> None:
        super().__init__(*args, **more)
        self.draws = Draws(take)
        self.encode = self.codec.encode
        self.now_ns = self._now_ns
        self.recorder: Recorder
        self.target = 0
        self.calm_until_ns = 0
        self._until_ns = 0

    @property
    def in_flight(self) -> int:
        """Requests that were sent and are not over."""
        return sum(len(run.ops) for connection in self.alive for run in connection.runs)

    def drive(self, recorder: Recorder, target: int, until_ns: int) -> None:
        """Begin, as `target` of the recorder's, and send nothing from `until_ns` on."""
        self.recorder, self.target, self._until_ns = recorder, target, until_ns
        for connection in list(self.alive):
            self._send(connection, self._pipeline, self._now_ns())

    def answered(self, connection: ClosedConnection, verdicts: list[Verdict], stays: bool) -> None:
        """Replies came, in the order of the requests; each makes room for another request, if the connection stays."""
        now_ns, recorder, count = self._now_ns(), self.recorder, len(verdicts)
        if now_ns >= recorder.end_ns:
            recorder.roll(now_ns)
        self.calm_until_ns = min(recorder.end_ns, self._until_ns)
        if not self._all_ok(connection, verdicts, now_ns) and not self._one_by_one(
            connection, verdicts, now_ns
        ):
            return
        if not connection.useful:
            connection.useful = True
            self._backoff_ns = 0
        if now_ns >= self._until_ns:
            if not connection.runs:
                self._landing.settle()
        elif stays:
            self._send(connection, count, now_ns)

    @property
    def oldest_ns(self) -> int | None:
        """When the oldest request in flight was sent; None: nothing is."""
        return min((connection.runs[0].sent_ns for connection in self.alive if connection.runs), default=None)

    def expire(self, sent_by_ns: int) -> None:
        """Time out what was sent by then and is not over; what else is on the connection is aborted."""
        for connection in list(self.alive):
            runs = connection.runs
            if not runs or runs[0].sent_ns > sent_by_ns:
                continue
            now_ns = self._now_ns()
            while runs and runs[0].sent_ns <= sent_by_ns:
                run = runs.popleft()
                self._record(connection, run.sent_ns, now_ns, Verdict.TIMEOUT, len(run.ops))
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
                run = connection.runs.popleft()
                self._record(connection, run.sent_ns, now_ns, verdict, len(run.ops))
        super().lost(connection, verdict, own)

    def _failed(self, connection: Connection, error: Exception) -> None:
        """An attempt failed, while driving that is a request that could not be made."""
        now_ns = self._now_ns()
        if now_ns < self._until_ns and not connection.made:
            self._record(connection, now_ns, now_ns, Verdict.CONNECT, 1)
        super()._failed(connection, error)

    def _give_back(self, connection: Connection) -> None:
        """Nobody waits for room here: a connection fills it itself."""

    def _send(self, connection: ClosedConnection, count: int, now_ns: int) -> None:
        """The next `count` requests."""
        ops = self.draws.next(count)
        connection.runs.append(Run(now_ns, ops))
        connection.ask(ops)

    def _all_ok(self, connection: ClosedConnection, verdicts: list[Verdict], now_ns: int) -> bool:
        """Match replies that are all well with as many requests, run by run; False where they are not, and nothing was done.

        Replies to a pipeline come as the network cuts them: so what is left of a run is answered with the next.
        """
        runs, left = connection.runs, len(verdicts)
        if verdicts.count(_OK) != left or sum(len(run.ops) for run in runs) < left:
            return False
        while left:
            run = runs[0]
            count = min(left, len(run.ops))
            del run.ops[:count]
            if not run.ops:
                runs.popleft()
            self._record(connection, run.sent_ns, now_ns, _OK, count)
            left -= count
        return True

    def _one_by_one(self, connection: ClosedConnection, verdicts: list[Verdict], now_ns: int) -> bool:
        """Match replies with what was sent; False where the connection is of no more use."""
        runs = connection.runs
        for verdict in verdicts:
            if not runs:  # a reply that nobody asked for: what follows cannot be told apart
                connection.end(Verdict.ABORTED)
                return False
            run = runs[0]
            op = run.ops.pop(0)
            if not run.ops:
                runs.popleft()
            if verdict is Verdict.MISS and not self.codec.missed(op):
                verdict = Verdict.OK
            self._record(connection, run.sent_ns, now_ns, verdict, 1)
            if verdict is Verdict.MALFORMED:
                connection.end(Verdict.ABORTED)
                return False
        return True

    def _record(self, connection: Connection, sent_ns: int, at_ns: int, verdict: Verdict, count: int) -> None:
        if at_ns >= self.recorder.end_ns:
            self.recorder.roll(at_ns)
        self.recorder.runs[self.target].add(sent_ns, at_ns, connection.number, verdict, count)
