"""The engine: sends what is due when it is due, whatever the targets do, and keeps what became of it.

In an open loop a schedule says what is due; in a closed loop the targets' connections do (`closed`), and the schedule has
the null echo alone.

`Engine` is driven by its pacer's wake-ups and its transport's callbacks, both synchronous; only folding intervals and
waiting are in its coroutines. With a manual clock, a fake pacer and a fake transport it runs in virtual time, exactly.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace

import msgspec

from kabench.clock import Clock
from kabench.core.hlog import Extremes, Interval, IntervalNote, Seal, sum_health
from kabench.core.identity import NULL_TARGET, Outcomes
from kabench.core.schedule import Arrivals, Operations, Stream
from kabench.errors import AgentError
from kabench.wire.messages import Prepare, Target
from kabench_agent.closed import ClosedPool
from kabench_agent.collector import collector_off
from kabench_agent.drivers import AsyncioTransport, Pool, Transport
from kabench_agent.flights import NEVER, Flights
from kabench_agent.loads import check, codec_of, connections_of, stream_of, transport_of
from kabench_agent.pacing import Pacer
from kabench_agent.protocols.base import Codec, Verdict
from kabench_agent.protocols.null import NullCodec
from kabench_agent.recorder import Recorder
from kabench_agent.turns import PAUSE_S, Pause, Steps, moment_s, no_pause
from kabench_agent.vitals import SystemVitals, Vitals

Sink = Callable[[Interval], None]

TURN_NS = 5_000_000
"""How long sending may go on before replies are read again, and whoever calls is answered."""

HOPELESS_TURNS = 20
"""So many turns in a row, and all that was due is still not sent: after a stall of a second at 20,000/s, ten are enough."""

FOREVER_NS = 1 << 62
"""An instant that does not come."""


class Engine:
    """One window, from connections to its seal. Call `connect`, `run` and, whatever happened, `close`.

    Args:
        prepare: what to drive; its schedule is computed here.
        clock: the clock that `start_ns`, the pacer and all instants are on.
        pacer: wakes the engine; started by `connect`, stopped by `close`.
        null: where the null echo listens; None leaves it out.
        sink: called with every interval soon after it has closed, in order.
        transport: makes connections; the running loop's by default.
        vitals: what health is computed from; this process's by default.

    Attributes:
        planned: by target (the null echo included), how many requests are due in the window; None in a closed loop.

    Raises:
        AgentError: `prepare` asks for what cannot be.
    """

    def __init__(
        self,
        prepare: Prepare,
        *,
        clock: Clock,
        pacer: Pacer,
        null: tuple[str, int] | None,
        sink: Sink,
        transport: Transport | None = None,
        vitals: Vitals | None = None,
    ) -> None:
        self._order = prepare
        self._clock = clock
        self._pacer = pacer
        self._sink = sink
        self._given_transport = transport
        self._transports: list[Transport] = []
        self._vitals = vitals or SystemVitals()
        drives_null = null is not None and prepare.null_rate_per_s > 0
        streams = [stream_of(target) for target in prepare.targets]
        if drives_null:
            streams.append(Stream(NULL_TARGET, prepare.null_rate_per_s, steady=True))
        self._names = [stream.name for stream in streams]
        try:
            check(prepare)
            self._arrivals = Arrivals(
                prepare.seed,
                prepare.arrivals,
                [
                    replace(stream, rate_per_s=0.0) if self._closed_loop(stream) else stream
                    for stream in streams
                ],
                warm_up_ns=prepare.warm_up_ns,
                window_ns=prepare.window_ns,
                profile=prepare.profile,
            )
            self._closed = [
                self._closed_pool(target) for target in prepare.targets if prepare.loop == "closed"
            ]
            self._pools: list[Pool] = [*self._closed] or [
                self._open_pool(target) for target in prepare.targets
            ]
        except ValueError as error:
            raise AgentError(f"this window cannot be driven: {error}") from error
        if null is not None and drives_null:
            transport = self._made(AsyncioTransport(prepare.timeout_ns))
            self._pools.append(self._pool(*null, NullCodec(), transport, 1, 1))
        self._unbounded = len(prepare.targets) if drives_null else NEVER
        self.planned: dict[str, int | None] = {
            stream.name: None if self._closed_loop(stream) else self._arrivals.planned[stream.name]
            for stream in streams
        }
        self._flights: Flights | None = None
        self._recorder: Recorder
        self._news = asyncio.Event()
        self._over = asyncio.Event()
        self._connect_until_ns: int | None = None
        self._skew_ns: int | None = None
        self._start_ns = 0
        self._chores_ns = 0
        self._ticking = False
        self._turns_behind = 0
        self._unsettled = False
        self._ended = False
        self._failure: Exception | None = None

    def _closed_loop(self, stream: Stream) -> bool:
        return self._order.loop == "closed" and stream.name != NULL_TARGET

    def _made(self, transport: Transport) -> Transport:
        """Whoever makes connections: the one that was given, if any."""
        chosen = self._given_transport or transport
        self._transports.append(chosen)
        return chosen

    def _closed_pool(self, target: Target) -> ClosedPool:
        codec = codec_of(target)
        pool = ClosedPool(
            target.host,
            target.port,
            codec,
            size=target.connections,
            pipeline=target.pipeline,
            clock=self._clock,
            transport=self._made(transport_of(target, codec, self._order.timeout_ns)),
            landing=self,
            take=Operations(self._order.seed, stream_of(target)).take,
        )
        pool.connection_type = connections_of(target)[1]
        return pool

    def _open_pool(self, target: Target) -> Pool:
        codec = codec_of(target)
        transport = self._made(transport_of(target, codec, self._order.timeout_ns))
        pool = self._pool(target.host, target.port, codec, transport, target.connections, target.pipeline)
        pool.connection_type = connections_of(target)[0]
        return pool

    def _pool(
        self, host: str, port: int, codec: Codec, transport: Transport, size: int, pipeline: int
    ) -> Pool:
        return Pool(
            host,
            port,
            codec,
            size=size,
            pipeline=pipeline,
            clock=self._clock,
            transport=transport,
            landing=self,
        )

    async def connect(self, deadline_ns: int) -> None:
        """Open all connections, and keep them open from now on.

        Args:
            deadline_ns: when to give up, on the monotonic clock.

        Raises:
            AgentError: a target did not take all its connections in time, or `abort` was called.
        """
        self._connect_until_ns = deadline_ns
        self._pacer.start(self._tick)
        self.settle()
        try:
            while not all(pool.full for pool in self._pools):
                self._raise_failure()
                for name, pool in zip(self._names, self._pools, strict=True):
                    if not pool.full and self._clock.monotonic_ns() >= deadline_ns:
                        raise AgentError(
                            f"no connection to target {name}: {pool.last_failure or 'no answer in time'}"
                        )
                await self._news.wait()
                self._news.clear()
        finally:
            self._connect_until_ns = None

    async def run(self, start_ns: int) -> Seal:
        """Warm up, measure from `start_ns` on, and drain; returns when nothing is in flight and all went to the sink.

        The seal has no digest yet. Requests whose instant has passed already are sent at once: their lag shows it.

        Raises:
            AgentError: `abort` was called.
        """
        order = self._order
        self._start_ns = start_ns
        flights = Flights(self._arrivals, start_ns, self._unbounded)
        self._recorder = Recorder(
            flights,
            self._names,
            start_ns=start_ns,
            window_ns=order.window_ns,
            interval_ns=order.interval_ns,
            timeout_ns=order.timeout_ns,
            vitals=self._vitals,
            on_closed=self._news.set,
            in_closed_loop=len(self._closed),
            also_in_flight=lambda: sum(pool.in_flight for pool in self._closed),
            most_connections=max((target.connections for target in order.targets), default=1),
        )
        for pool in self._pools:
            pool.flights = flights
        notes: list[IntervalNote] = []
        totals = {name: Outcomes(planned=planned or 0) for name, planned in self.planned.items()}

        async def hand_over(step: Pause) -> None:
            while closed := self._recorder.closed:
                interval = await self._recorder.fold(closed[0], step)
                closed.popleft()
                for name, outcomes in interval.note.outcomes.items():
                    totals[name] += outcomes
                notes.append(interval.note)
                self._sink(interval)

        with collector_off():
            self._flights = flights
            self.settle()
            try:
                while not (self._ended and not self._recorder.closed):
                    await self._news.wait()
                    self._news.clear()
                    await self._pause(moment_s(order.seed, order.interval_ns))
                    self._raise_failure()
                    await hand_over(Steps(self._pause, self._clock.monotonic_ns))
            finally:
                await hand_over(no_pause)
        for name, planned in self.planned.items():
            if planned is None:
                totals[name] = msgspec.structs.replace(totals[name], planned=totals[name].sent)
        return Seal(
            len(notes), totals, sum_health(notes), self._skew_ns or 0, connections=self._connections()
        )

    def _connections(self) -> dict[str, Extremes]:
        """The fastest and the slowest of each target's."""
        found = {
            name: self._recorder.connections.extremes(index, self._pools[index].local)
            for index, name in enumerate(self._names)
        }
        return {name: extremes for name, extremes in found.items() if extremes is not None}

    def abort(self) -> None:
        """End `connect` or `run` early, with an error; of the open interval nothing is kept."""
        self._fail(AgentError("the window was aborted"))

    async def close(self) -> None:
        """Close everything. Idempotent."""
        self._end()
        for pool in self._pools:
            pool.close()
        for transport in self._transports:
            await transport.close()

    async def _pause(self, seconds: float = PAUSE_S) -> None:
        """Let others have their turn; no longer than the engine drives."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._over.wait()

    # What the pools call.

    def land(self, index: int, at_ns: int, verdict: Verdict) -> None:
        """Request `index` was over at `at_ns`."""
        assert self._flights is not None
        self._recorder.add(index, at_ns, verdict)  # first: it asks whether anything is under way still
        self._flights.land(index)

    def reconnected(self) -> None:
        """A connection was made anew."""
        if self._flights is not None:
            self._recorder.reconnects += 1

    def settle(self) -> None:
        """See to missing connections, to the end, and to the next wake-up."""
        if self._ticking:
            self._unsettled = True
            return
        if self._ended:
            return
        now_ns = self._clock.monotonic_ns()
        for pool in self._pools:
            pool.maintain(now_ns)
        if self._connect_until_ns is not None:
            self._news.set()
        if self._flights is not None and now_ns >= self._end_ns and self._over_all:
            self._recorder.finish(now_ns)
            self._end()
        else:
            self._chores_ns = self._next_chores_ns(now_ns)
            self._arm()

    # What the pacer calls.

    def _tick(self) -> None:
        """Everything that is due by now. Most wake-ups only send: what is rare has an instant of its own."""
        if self._ended:
            return
        now_ns = self._clock.monotonic_ns()
        flights = self._flights
        self._ticking = True
        try:
            if now_ns >= self._chores_ns:
                self._unsettled = True
                if flights is not None:
                    if self._skew_ns is None and now_ns >= self._begin_ns:
                        self._skew_ns = now_ns - self._begin_ns
                        for target, pool in enumerate(self._closed):
                            pool.drive(self._recorder, target, self._end_ns)
                    self._recorder.roll(now_ns)
                    self._expire(flights, now_ns)
            if flights is not None:
                self._issue(flights, now_ns)
        except Exception as error:  # nothing above a callback could tell the one who awaits `run`
            self._fail(error)
        finally:
            self._ticking = False
        if self._unsettled:
            self._unsettled = False
            self.settle()
        else:
            self._arm()

    def _expire(self, flights: Flights, now_ns: int) -> None:
        """Time out what was issued a time-out ago: the oldest first, since requests are issued in the schedule's order."""
        issued_by_ns = now_ns - self._order.timeout_ns
        stuck, late = set[int](), set[int]()
        while (index := flights.oldest()) is not None:
            at = index & flights.mask
            if flights.issued_ns[at] > issued_by_ns:
                break
            (stuck if flights.sent_ns[at] != NEVER else late).add(flights.target[at])
            self.land(index, now_ns, Verdict.TIMEOUT)
        for pool in self._closed:
            pool.expire(issued_by_ns)
        for target in late:
            self._pools[target].forget_over()
        for target in stuck:  # last: what else timed out on a connection is not for its closing to judge
            self._pools[target].drop_stuck()

    def _issue(self, flights: Flights, until_ns: int) -> None:
        """Send what was due by `until_ns`; what became due meanwhile waits a turn, so that replies are read in between.

        So does what more than a turn's time is needed for. Where that goes on, the rate is beyond us: what there is no room
        for, and what we are a time-out late for, is given up many at a time then; one by one, we would do nothing else.
        """
        clock_ns, bound, count = self._clock.monotonic_ns, self._order.max_in_flight, flights.count
        stop_ns = until_ns + TURN_NS
        hopeless = self._turns_behind >= HOPELESS_TURNS
        if hopeless:
            self._give_up(flights, until_ns - self._order.timeout_ns, stop_ns)
        while (index := flights.issued) < count:
            if index == flights.drawn:
                flights.draw()
            at = index & flights.mask
            if flights.due_ns[at] > until_ns:
                if not hopeless:
                    self._turns_behind = 0
                break
            now_ns = flights.issued_ns[at] = clock_ns()
            target = flights.target[at]
            if flights.bounded < bound or target == self._unbounded:
                flights.take_off(index, target)
                self._pools[target].dispatch(index, now_ns)
            elif hopeless:
                self._give_up(flights, until_ns + 1, stop_ns)
                break
            else:
                self._recorder.add(index, now_ns, Verdict.SKIPPED)
                flights.skip(index)
            if now_ns >= stop_ns:
                self._turns_behind += 1
                break
        flights.draw()

    def _give_up(self, flights: Flights, before_ns: int, stop_ns: int) -> None:
        """Skip what was due before `before_ns`, as much of it as a turn has time for."""
        while (now_ns := self._clock.monotonic_ns()) < stop_ns and len(late := flights.late(before_ns)):
            self._recorder.skip(late, now_ns)
            flights.skip(int(late[-1]))
            flights.draw()

    def _next_chores_ns(self, now_ns: int) -> int:
        """When there is something to do beside sending: attempts to connect, an interval's end, a time-out."""
        at_ns = [due for pool in self._pools if (due := pool.next_attempt_ns) is not None]
        if self._connect_until_ns is not None:
            at_ns.append(self._connect_until_ns)
        flights = self._flights
        if flights is not None:
            if self._skew_ns is None:
                at_ns.append(self._begin_ns)
            else:
                at_ns.append(self._recorder.next_ns)
                at_ns += (since_ns + self._order.timeout_ns for since_ns in self._oldest_ns(flights, now_ns))
        return min(at_ns, default=FOREVER_NS)

    def _oldest_ns(self, flights: Flights, now_ns: int) -> Iterator[int]:
        """When what is under way the longest began; now, where nothing is: what begins later cannot time out before it."""
        if not flights.over:
            oldest = flights.oldest()
            yield now_ns if oldest is None else flights.issued_ns[oldest & flights.mask]
        for pool in self._closed:
            oldest_ns = pool.oldest_ns
            yield now_ns if oldest_ns is None else oldest_ns

    def _arm(self) -> None:
        """Have the pacer wake us for whatever is next."""
        at_ns = self._chores_ns
        flights = self._flights
        if flights is not None and (next_ns := flights.next_ns) is not None:
            at_ns = min(at_ns, next_ns)
        if at_ns < FOREVER_NS:
            self._pacer.arm(at_ns)

    @property
    def _over_all(self) -> bool:
        assert self._flights is not None
        return self._flights.over and not any(pool.in_flight for pool in self._closed)

    @property
    def _begin_ns(self) -> int:
        return self._start_ns - self._order.warm_up_ns

    @property
    def _end_ns(self) -> int:
        return self._start_ns + self._order.window_ns

    def _end(self) -> None:
        """Drive nothing any more."""
        self._ended = True
        self._pacer.stop()
        self._over.set()
        self._news.set()

    def _fail(self, error: Exception) -> None:
        self._failure = self._failure or error
        self._over.set()
        self._news.set()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure
