"""One window of one agent: its engine, its log, and what is seen of it live."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from kabench.core import hlog
from kabench.core.histogram import GEOMETRY
from kabench.core.identity import NULL_TARGET, Kind
from kabench.wire.messages import Prepare, RedisLoad
from kabench_agent.live import Live
from kabench_agent.spool import OpenLog
from kabench_agent.turns import PAUSE_S, Steps


class Engine(Protocol):
    """What drives the targets of one order."""

    @property
    def planned(self) -> dict[str, int | None]:
        """Arrivals due in the window, by target, the null echo included if it is driven; None in a closed loop."""
        ...

    async def connect(self, deadline_ns: int) -> None:
        """Open all connections until the monotonic instant `deadline_ns`; raises AgentError."""
        ...

    async def run(self, start_ns: int) -> hlog.Seal:
        """Warm up, measure from `start_ns` on, drain; the seal has no digest yet."""
        ...

    def abort(self) -> None:
        """End `run` early."""
        ...

    async def close(self) -> None:
        """Close all connections. Idempotent."""
        ...


Sink = Callable[[hlog.Interval], None]
EngineFactory = Callable[[Prepare, Sink], Engine]


@dataclass(frozen=True)
class Identity:
    """Who this agent is; `instance` is drawn anew at every start."""

    node: str
    instance: str
    boot_id: str
    pacer: str


class Window:
    """An order whose engine exists.

    Args:
        order: what the controller asked for.
        engine_factory: makes the engine; it hands closed intervals over without waiting.
    """

    def __init__(self, order: Prepare, engine_factory: EngineFactory) -> None:
        self.order = order
        self.log: OpenLog | None = None
        self._closed: asyncio.Queue[hlog.Interval] = asyncio.Queue()
        self._writer = hlog.LogWriter()
        self.engine = engine_factory(order, self._closed.put_nowait)
        self.live = Live(order.window, {target.name: target.kind for target in self.targets()})

    def targets(self) -> tuple[hlog.LoggedTarget, ...]:
        """The log's targets, the null echo last."""
        planned = self.engine.planned
        logged = [
            hlog.LoggedTarget(
                name=target.name,
                workload=target.workload,
                node=target.node,
                kind=Kind.REDIS if isinstance(target.load, RedisLoad) else Kind.HTTP,
                rate_per_s=target.rate_per_s,
                connections=target.connections,
                planned=planned[target.name],
            )
            for target in self.order.targets
        ]
        if NULL_TARGET in planned:
            null_rate = self.order.null_rate_per_s
            logged.append(
                hlog.LoggedTarget(NULL_TARGET, NULL_TARGET, "", Kind.NULL, null_rate, 1, planned[NULL_TARGET])
            )
        return tuple(logged)

    def begin(self, log: OpenLog, identity: Identity, start_ns: int, start_realtime_ns: int) -> None:
        """Write the log's head, now that the start is known."""
        self.log = log
        order = self.order
        header = hlog.Header(
            version=hlog.LOG_VERSION,
            run=order.run,
            scenario_sha256=order.scenario_sha256,
            window=order.window,
            phase=order.phase,
            block=order.block,
            agent=identity.node,
            instance=identity.instance,
            boot_id=identity.boot_id,
            seed=order.seed,
            arrivals=order.arrivals,
            start_ns=start_ns,
            start_realtime_ns=start_realtime_ns,
            warm_up_ns=order.warm_up_ns,
            window_ns=order.window_ns,
            interval_ns=order.interval_ns,
            timeout_ns=order.timeout_ns,
            pacer=identity.pacer,
            targets=self.targets(),
            geometry=GEOMETRY,
            loop=order.loop,
        )
        log.append(self._writer.begin(header))

    async def run(self, start_ns: int) -> hlog.Seal:
        """Run the engine to its end and seal the log; `begin` comes first.

        Cancelling leaves the log unsealed, with every interval that was closed.
        """
        assert self.log is not None, "begin comes first"
        try:
            async with asyncio.TaskGroup() as group:
                writing = group.create_task(self._write(self.log), name=f"write {self.order.window}")
                seal = await self.engine.run(start_ns)
                await self._closed.join()
                writing.cancel()
            await asyncio.to_thread(self.log.seal, self._writer.seal(seal))
            return seal
        finally:
            while not self._closed.empty():
                self.log.append(self._writer.interval(self._closed.get_nowait()))
            await self.close()

    async def close(self) -> None:
        """Close connections and file. Idempotent."""
        try:
            await self.engine.close()
        finally:
            if self.log is not None:
                self.log.close()

    async def _write(self, log: OpenLog) -> None:
        """Encode and write what the engine hands over, as it comes, in steps."""
        while True:
            interval = await self._closed.get()
            lines, written = self._writer.lines(interval), bytearray()
            try:
                await self._pause()
                step = Steps(self._pause)
                for line in lines:
                    written += line
                    await step()
            finally:
                log.append(written + b"".join(lines))  # what is left, when cancelled
            await self.live.interval(interval, step)
            self._closed.task_done()

    async def _pause(self) -> None:
        """Let others have their turn, unless there is more to write."""
        await asyncio.sleep(PAUSE_S if self._closed.empty() else 0)
