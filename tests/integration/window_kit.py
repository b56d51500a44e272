"""One short window of the engine at one target, in this process."""

import asyncio

from kabench.clock import SystemClock
from kabench.core.histogram import Histogram
from kabench.core.identity import Metric
from kabench.wire.messages import Prepare
from kabench_agent.engine import Engine
from kabench_agent.pacing import choose_pacer
from kabench_agent.prepare import make_ready

MS = 1_000_000


def order(target, **changes):
    settings = {"warm_up_ns": 50 * MS, "window_ns": 300 * MS, "timeout_ns": 1000 * MS, "max_in_flight": 2000}
    return Prepare(
        protocol=1, run="r", scenario_sha256="5" * 64, window="001-a", phase="a", block=1, seed=5,
        arrivals="poisson", targets=(target,), **(settings | changes),
    )  # fmt: skip


async def drive(prepare, ready=True, patience_ns=5000 * MS):
    """One window: its totals, and service times in all."""
    intervals = []
    clock = SystemClock()
    if ready:
        await make_ready(prepare, clock)
    engine = Engine(prepare, clock=clock, pacer=choose_pacer(), null=None, sink=intervals.append)
    try:
        await engine.connect(clock.monotonic_ns() + patience_ns)
        seal = await engine.run(clock.monotonic_ns() + prepare.warm_up_ns + 50 * MS)
    finally:
        await engine.close()
    (name,) = seal.totals
    service = Histogram()
    for interval in intervals:
        if (name, Metric.SERVICE) in interval.histograms:
            service.add_buckets(interval.histograms[name, Metric.SERVICE])
    assert seal.totals[name].reconciled
    leftover = {task.get_name() for task in asyncio.all_tasks()} - {asyncio.current_task().get_name()}
    assert not {name for name in leftover if name.startswith(("request", "connect"))}
    return seal.totals[name], service
