"""What the agent's tests share: a scripted engine, orders, and an agent served over loopback."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from aiohttp import web

from kabench.backends.base import AgentEndpoint
from kabench.clock import Clock, SystemClock
from kabench.core import hlog
from kabench.core.health import Health
from kabench.core.histogram import Histogram
from kabench.core.identity import Metric, Outcomes
from kabench.wire.messages import PROTOCOL, HttpLoad, Prepare, Target
from kabench_agent.agent import Agent
from kabench_agent.probe import Canary
from kabench_agent.service import make_app
from kabench_agent.spool import Spool
from kabench_agent.window import Identity, Sink

TOKEN = "a-token-of-this-run"


def http_target(port: int, name: str = "echo-0", path: str = "/") -> Target:
    return Target(name, "echo", "node-1", "127.0.0.1", port, HttpLoad(((path, 1.0),)), rate_per_s=100.0)


def an_order(*targets: Target, window: str = "001-default", **changes: object) -> Prepare:
    order = Prepare(
        protocol=PROTOCOL,
        run="run-1",
        scenario_sha256="0" * 64,
        window=window,
        phase="default",
        block=1,
        seed=7,
        arrivals="poisson",
        targets=targets,
        warm_up_ns=10_000_000,
        window_ns=100_000_000,
        timeout_ns=1_000_000_000,
        max_in_flight=100,
    )
    return msgspec.structs.replace(order, **changes)


def an_interval(order: Prepare, start_ns: int, index: int, values_ns: list[int]) -> hlog.Interval:
    """`values_ns` are response times of every target; service times are the same, lags a hundredth."""
    count = len(values_ns)
    outcomes = Outcomes(sent=count, ok=count)
    histograms = {}
    for target in order.targets:
        for metric, divisor in ((Metric.RESPONSE, 1), (Metric.SERVICE, 1), (Metric.LAG, 100)):
            histogram = Histogram()
            histogram.record_many([value // divisor for value in values_ns])
            histograms[target.name, metric] = histogram.buckets()
    note = hlog.IntervalNote(
        index,
        start_ns + index * order.interval_ns,
        order.interval_ns,
        {target.name: outcomes for target in order.targets},
        Health(cpu_share=0.1, max_in_flight=3),
    )
    return hlog.Interval(note, histograms)


@dataclass
class ScriptedEngine:
    """An engine that hands over `intervals` when told to go on, and seals."""

    order: Prepare
    sink: Sink
    intervals: list[list[int]] = field(default_factory=lambda: [[1_000_000, 2_000_000], [3_000_000]])
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    failure: Exception | None = None
    connected: bool = False
    closed: bool = False
    aborted: bool = False

    @property
    def planned(self) -> dict[str, int]:
        return {target.name: sum(map(len, self.intervals)) for target in self.order.targets}

    async def connect(self, deadline_ns: int) -> None:
        self.connected = True

    async def run(self, start_ns: int) -> hlog.Seal:
        first, *rest = self.intervals
        self.sink(an_interval(self.order, start_ns, 0, first))
        await self.go_on.wait()
        if self.failure:
            raise self.failure
        for index, values in enumerate(rest, 1):
            self.sink(an_interval(self.order, start_ns, index, values))
        count = sum(map(len, self.intervals))
        total = Outcomes(planned=count, sent=count, ok=count)
        totals = {target.name: total for target in self.order.targets}
        return hlog.Seal(len(self.intervals), totals, Health(cpu_share=0.1), start_skew_ns=5)

    def abort(self) -> None:
        self.aborted = True

    async def close(self) -> None:
        self.closed = True


@dataclass
class Served:
    """An agent behind its HTTP service."""

    agent: Agent
    endpoint: AgentEndpoint
    engines: list[ScriptedEngine]


@contextlib.asynccontextmanager
async def served(
    spool: Path, clock: Clock | None = None, change: Callable[[ScriptedEngine], None] = lambda _: None
) -> AsyncIterator[Served]:
    """An agent on a free port; `change` is applied to each of its engines."""
    engines: list[ScriptedEngine] = []

    def factory(order: Prepare, sink: Sink) -> ScriptedEngine:
        engine = ScriptedEngine(order, sink)
        change(engine)
        engines.append(engine)
        return engine

    identity = Identity("node-1", "instance-1", "boot-1", "timerfd")
    agent = Agent(identity, clock or SystemClock(), Spool(spool), Canary(), factory)
    runner = web.AppRunner(make_app(agent, TOKEN, {"python": "3"}, ("http",)), shutdown_timeout=0.1)
    await runner.setup()
    try:
        async with agent:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            yield Served(agent, AgentEndpoint("node-1", url, TOKEN), engines)
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def http_server(*statuses: int) -> AsyncIterator[int]:
    """An HTTP server that answers with `statuses` in turn, the last one for ever; yields its port."""
    left = list(statuses)

    async def answer(_: web.BaseRequest) -> web.Response:
        return web.Response(status=left.pop(0) if len(left) > 1 else left[0])

    runner = web.ServerRunner(web.Server(answer), shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def lines_of(text: bytes) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines() if line.strip()]
