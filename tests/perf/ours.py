"""One agent's engine in a process of its own, with full recording: what the benches set beside other tools.

    python tests/perf/ours.py ORDER        ORDER: JSON, see `Order`; prints what was measured as JSON

As in an agent, every interval is folded, encoded and hashed into its log's lines; they are not kept. The CPU time is that
from the window's start to its seal, so that it holds all of that, and not the imports.
"""

import asyncio
import json
import resource
import sys
import time
from dataclasses import dataclass

import uvloop

from kabench.clock import SystemClock
from kabench.core.histogram import GEOMETRY, Histogram
from kabench.core.hlog import LOG_VERSION, Header, LoggedTarget, LogWriter
from kabench.core.identity import Kind, Metric
from kabench.wire.messages import HttpLoad, Prepare, RedisLoad, Target
from kabench_agent.engine import Engine
from kabench_agent.pacing import CallLaterPacer, choose_pacer

CLOCK = SystemClock()
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}
START_IN_NS = 100_000_000
CONNECT_NS = 5_000_000_000


@dataclass(frozen=True)
class Order:
    """What to drive. `rate` is of all targets together; `call_later`: pace by the loop's timers; `start_ns`: 0: now."""

    kind: str
    ports: list[int]
    seconds: float
    loop: str = "closed"
    rate: float = 0.0
    arrivals: str = "poisson"
    connections: int = 50
    pipeline: int = 1
    warm_up_s: float = 0.2
    timeout_s: float = 1.0
    max_in_flight: int = 5000
    call_later: bool = False
    seed: int = 1
    start_ns: int = 0


def prepare(order):
    if order.kind == "redis":
        load = RedisLoad(keys=1000, value_bytes=64, mix=(("get", 1.0),))
    else:
        load = HttpLoad(paths=(("/", 1.0),))
    targets = tuple(
        Target(
            f"{order.kind}-{number}", order.kind, "here", "127.0.0.1", port, load, order.rate / len(order.ports),
            order.connections, order.pipeline,
        )
        for number, port in enumerate(order.ports)
    )  # fmt: skip
    return Prepare(
        protocol=1, run="perf", scenario_sha256="0" * 64, window="001-perf", phase="perf", block=1, seed=order.seed,
        arrivals=order.arrivals, targets=targets, warm_up_ns=round(order.warm_up_s * 1e9),
        window_ns=round(order.seconds * 1e9), timeout_ns=round(order.timeout_s * 1e9),
        max_in_flight=order.max_in_flight, loop=order.loop,
    )  # fmt: skip


class Log:
    """Writes the log's lines, as an agent does, and adds the histograms up."""

    def __init__(self):
        self.writer = LogWriter()
        self.bytes = 0
        self.sums = {}

    def begin(self, message, start_ns):
        targets = tuple(
            LoggedTarget(t.name, t.workload, t.node, Kind(t.workload), t.rate_per_s, t.connections, None)
            for t in message.targets
        )
        header = Header(
            version=LOG_VERSION, run="perf", scenario_sha256=message.scenario_sha256, window=message.window,
            phase="perf", block=1, agent="here", instance="0" * 16, boot_id="", seed=1, arrivals=message.arrivals,
            start_ns=start_ns, start_realtime_ns=CLOCK.realtime_ns(), warm_up_ns=message.warm_up_ns,
            window_ns=message.window_ns, interval_ns=message.interval_ns, timeout_ns=message.timeout_ns, pacer="",
            targets=targets, geometry=GEOMETRY, loop=message.loop,
        )  # fmt: skip
        self.bytes += len(self.writer.begin(header))

    def take(self, interval):
        self.bytes += len(self.writer.interval(interval))
        for (_, metric), buckets in interval.histograms.items():
            self.sums.setdefault(metric, Histogram()).add_buckets(buckets)


async def measure(order):
    message = prepare(order)
    log = Log()
    pacer = CallLaterPacer(CLOCK) if order.call_later else choose_pacer()
    engine = Engine(message, clock=CLOCK, pacer=pacer, null=None, sink=log.take)
    await engine.connect(CLOCK.monotonic_ns() + CONNECT_NS)
    start_ns = order.start_ns or CLOCK.monotonic_ns() + START_IN_NS + message.warm_up_ns
    log.begin(message, start_ns)
    loop = asyncio.get_running_loop()
    cpu_ns = []
    loop.call_later((start_ns - CLOCK.monotonic_ns()) / 1e9, lambda: cpu_ns.append(time.process_time_ns()))
    seal = await engine.run(start_ns)
    cpu_ns.append(time.process_time_ns())
    await engine.close()
    totals = seal.totals.values()
    ok = sum(total.ok for total in totals)
    return {
        "requests": ok,
        "planned": sum(total.planned for total in totals),
        "sent": sum(total.sent for total in totals),
        "error": sum(total.error for total in totals),
        "timeout": sum(total.timeout for total in totals),
        "per_s": ok / order.seconds,
        "cpu_us": (cpu_ns[1] - cpu_ns[0]) / 1e3 / max(ok, 1),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "log_bytes": log.bytes,
        "pacer": pacer.name,
        "quantiles_ns": {
            str(metric): dict(zip(QUANTILES, log.sums[metric].quantiles_ns(QUANTILES.values()), strict=True))
            for metric in (Metric.RESPONSE, Metric.SERVICE, Metric.LAG, Metric.WAIT)
            if metric in log.sums
        },
    }


def main():
    print(json.dumps(uvloop.run(measure(Order(**json.loads(sys.argv[1]))))))


if __name__ == "__main__":
    main()
