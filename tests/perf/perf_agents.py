"""Many agents in one process, for perf_controller.py: real protocol, real sealed logs, and no load behind them.

    python tests/perf/perf_agents.py AGENTS [CERTIFICATE.pem]

One port; an agent's address is http://127.0.0.1:PORT/NODE, as it would be behind an API server's proxy. Each has a clock
of its own, seconds apart from the others, and a session of the product's own. Logs are the product's `LogWriter`'s, at
the seed benchmark's rates; so that a thousand of them cost this process little, agents share the intervals of a few.
"""

import asyncio
import hashlib
import random
import resource
import socket
import ssl
import struct
import sys

import msgspec
import numpy as np
import uvloop
from aiohttp import web

from kabench.clock import SystemClock
from kabench.core import hlog
from kabench.core.contention import Contention
from kabench.core.health import Health
from kabench.core.histogram import GEOMETRY, Buckets
from kabench.core.identity import NULL_TARGET, Kind, Metric, Outcomes
from kabench.core.logline import SEAL_MARK, marked
from kabench.core.session import Session
from kabench.errors import AgentError
from kabench.wire import messages as wire

CLOCK = SystemClock()
VARIANTS = 6
SEALED_AFTER_NS = 20_000_000
"""After the window's end: the drain of a target that answers at once."""
TCP_INFO_BYTES = 136
ACKED_AND_RECEIVED = struct.Struct("=QQ")
ACKED_OFFSET = 120
HEALTH = Health(cpu_share=0.05, max_in_flight=3, run_delay_ns=1_000_000)


class Recording:
    """The intervals of one window of `order`'s targets: as lines of a log, and as lines of a stream."""

    def __init__(self, order, seed):
        rng = np.random.default_rng(seed)
        self.targets = [
            (t.name, t.workload, t.node, Kind.REDIS if isinstance(t.load, wire.RedisLoad) else Kind.HTTP, t.rate_per_s)
            for t in order.targets
        ] + [(NULL_TARGET, NULL_TARGET, "", Kind.NULL, order.null_rate_per_s)]  # fmt: skip
        count = order.window_ns // order.interval_ns
        intervals = [self._interval(rng, index, order.interval_ns) for index in range(count)]
        self.totals = {}
        for name, *_ in self.targets:
            ok = sum(interval.note.outcomes[name].ok for interval in intervals)
            self.totals[name] = Outcomes(planned=ok, sent=ok, ok=ok)
        writer = hlog.LogWriter()
        writer.begin(self.header(order, "template", 0))
        self.lines = b"".join(writer.interval(interval) for interval in intervals)
        self.seal = hlog.Seal(count, self.totals, HEALTH, 1000)
        self.stream = [self._live(order.window, interval) for interval in intervals]

    def header(self, order, node, start_ns):
        return hlog.Header(
            version=hlog.LOG_VERSION, run=order.run, scenario_sha256=order.scenario_sha256, window=order.window,
            phase=order.phase, block=order.block, agent=node, instance="0" * 16, boot_id=node, seed=order.seed,
            arrivals=order.arrivals, start_ns=start_ns, start_realtime_ns=CLOCK.realtime_ns(),
            warm_up_ns=order.warm_up_ns, window_ns=order.window_ns, interval_ns=order.interval_ns,
            timeout_ns=order.timeout_ns, pacer="timerfd", geometry=GEOMETRY,
            targets=tuple(
                hlog.LoggedTarget(name, workload, at, kind, rate, 1, self.totals[name].planned if self.totals else 0)
                for name, workload, at, kind, rate in self.targets
            ),
        )  # fmt: skip

    def log(self, order, node, start_ns):
        """The whole log of one agent, sealed over its own header."""
        content = hlog.LogWriter().begin(self.header(order, node, start_ns)) + self.lines
        digest = hashlib.sha256(content).hexdigest()
        return content + marked(SEAL_MARK, msgspec.structs.replace(self.seal, sha256=digest))

    def _interval(self, rng, index, length_ns):
        outcomes, histograms = {}, {}
        for name, _, _, _, rate in self.targets:
            count = int(rng.poisson(rate * length_ns / 1e9))
            outcomes[name] = Outcomes(sent=count, ok=count)
            if not count:
                continue
            service = (rng.lognormal(12.2, 0.8, count)).astype(np.int64)  # 0.2 ms, with a tail
            lag = (rng.lognormal(10.8, 0.6, count)).astype(np.int64)
            waits = rng.integers(2_000, 9_000, count)
            values = {
                Metric.SERVICE: service,
                Metric.LAG: lag,
                Metric.WAIT: waits,
                Metric.RESPONSE: service + lag,
            }
            histograms |= {(name, metric): Buckets.of(at) for metric, at in values.items()}
        return hlog.Interval(
            hlog.IntervalNote(index, index * length_ns, length_ns, outcomes, HEALTH), histograms
        )

    def _live(self, window, interval):
        """What the agent's live side makes of an interval: sums by kind."""
        outcomes, parts = {}, {}
        for name, _, _, kind, _ in self.targets:
            outcomes[kind] = outcomes.get(kind, Outcomes()) + interval.note.outcomes[name]
            if (name, Metric.RESPONSE) in interval.histograms:
                parts.setdefault(kind, []).append(interval.histograms[name, Metric.RESPONSE])
        kinds = {
            str(kind): wire.KindInterval(count, Buckets.sum(parts[kind]).encode() if kind in parts else "")
            for kind, count in outcomes.items()
        }
        return wire.Interval(window, interval.note.index, kinds, HEALTH, 100_000)


class SimulatedAgent:
    """One agent: its session, its clock and the log it holds."""

    def __init__(self, node, number):
        self.node, self.number = node, number
        self.offset_ns = random.Random(number).randrange(-1000, 1000) * 1_000_000_000
        self.session = Session()
        self.order = self.recording = self.log = None
        self.start_ns = 0

    def now_ns(self):
        return CLOCK.monotonic_ns() + self.offset_ns

    def state(self):
        return wire.WindowState(
            self.order.run, self.order.window, len(self.log), True, hashlib.sha256(self.log).hexdigest()
        )


class Agents:
    """The HTTP side of all of them. `armed`: by window, the instants armed for, on the clock that all share in truth."""

    def __init__(self, count):
        self.agents = {f"node-{n}": SimulatedAgent(f"node-{n}", n) for n in range(1, count + 1)}
        self.recordings, self.armed, self.sockets = {}, {}, {}

    def app(self):
        app = web.Application(middlewares=[self._guard], client_max_size=1 << 26)
        for method, path in (
            ("GET", "hello"), ("POST", "prepare"), ("POST", "arm"), ("POST", "abort"), ("GET", "windows"),
            ("GET", "stream"), ("GET", "log"), ("POST", "ack"), ("POST", "probe"),
        ):  # fmt: skip
            inner = f"windows/{{window}}/{path}" if path in ("stream", "log", "ack") else path
            app.router.add_route(method, f"/{{node}}/v1/{inner}", getattr(self, path))
        app.router.add_get("/stats", self.stats)
        return app

    @web.middleware
    async def _guard(self, request, handler):
        try:
            answer = await handler(request)
        except AgentError as error:
            answer = web.Response(body=msgspec.json.encode(wire.Refusal(str(error))), status=409)
        self._count(request.transport)
        return answer

    def _count(self, transport):
        if transport is not None:
            sock = transport.get_extra_info("socket")
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES)
            self.sockets[transport.get_extra_info("peername")] = ACKED_AND_RECEIVED.unpack_from(
                info, ACKED_OFFSET
            )

    def _agent(self, request):
        agent = self.agents[request.match_info["node"]]
        agent.session.tick(agent.now_ns())
        agent.session.hear(agent.now_ns())
        return agent

    async def hello(self, request):
        agent = self._agent(request)
        environment = {"python": "3.11.2", "kernel": "6.1.0", "hz": "250", "autogroup": "1"}
        hello = wire.Hello(
            wire.PROTOCOL, "0" * 16, agent.node, agent.node, (0, 1), agent.now_ns(), CLOCK.realtime_ns(),
            "timerfd", ("redis", "http", "probe", "null-echo"), environment,
        )  # fmt: skip
        return answer(hello)

    async def probe(self, request):
        order = msgspec.json.decode(await request.read(), type=wire.Probe)
        self._agent(request)
        await asyncio.sleep(order.duration_ns / 1e9)
        return answer(Contention(order.duration_ns, order.duration_ns, 0, 60.0, 90.0))

    async def prepare(self, request):
        agent, order = self._agent(request), msgspec.json.decode(await request.read(), type=wire.Prepare)
        agent.session.prepare(
            agent.now_ns(), order.window, warm_up_ns=order.warm_up_ns, window_ns=order.window_ns, lease_ns=order.lease_ns
        )  # fmt: skip
        key = (order.window, agent.number % VARIANTS)
        if key not in self.recordings:
            self.recordings[key] = Recording(order, agent.number % VARIANTS)
        agent.order, agent.recording = order, self.recordings[key]
        agent.session.prepared(agent.now_ns())
        planned = {name: total.planned for name, total in agent.recording.totals.items()}
        return answer(wire.Prepared(order.window, planned))

    async def arm(self, request):
        agent, arm = self._agent(request), msgspec.json.decode(await request.read(), type=wire.Arm)
        agent.session.arm(agent.now_ns(), arm.window, arm.start_ns)
        agent.start_ns = arm.start_ns
        self.armed.setdefault(arm.window, []).append(arm.start_ns - agent.offset_ns)
        return answer(wire.Armed(arm.window, arm.start_ns, agent.now_ns()))

    async def stream(self, request):
        agent = self._agent(request)
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        order, recording = agent.order, agent.recording
        for interval in recording.stream:
            await self._until(agent, agent.start_ns + (interval.index + 1) * order.interval_ns)
            await response.write(msgspec.json.encode(interval) + b"\n")
        await self._until(agent, agent.start_ns + order.window_ns + SEALED_AFTER_NS)
        agent.session.tick(agent.now_ns())
        agent.session.sealed(agent.now_ns())
        agent.log = recording.log(order, agent.node, agent.start_ns)
        last = msgspec.structs.replace(recording.stream[-1], index=len(recording.stream), sealed=True)
        await response.write(msgspec.json.encode(last) + b"\n")
        await response.write_eof()
        return response

    async def _until(self, agent, instant_ns):
        await asyncio.sleep(max(0, instant_ns - agent.now_ns()) / 1e9)

    async def windows(self, request):
        agent = self._agent(request)
        return answer(wire.Windows((agent.state(),) if agent.log else ()))

    async def log(self, request):
        log = self._agent(request).log
        return web.Response(body=log, headers={wire.SHA256_HEADER: hashlib.sha256(log).hexdigest()})

    async def ack(self, request):
        agent, ack = self._agent(request), msgspec.json.decode(await request.read(), type=wire.Ack)
        if ack.sha256 != hashlib.sha256(agent.log).hexdigest():
            raise AgentError("another digest")
        agent.session.ack()
        agent.log = None
        return answer(wire.Status(str(agent.session.state)))

    async def abort(self, request):
        agent = self._agent(request)
        agent.session.abort()
        return answer(wire.Status(str(agent.session.state)))

    async def stats(self, _):
        sent = sum(sent for sent, _ in self.sockets.values())
        received = sum(received for _, received in self.sockets.values())
        return web.json_response({"armed": self.armed, "sent": sent, "received": received})


def answer(message):
    return web.Response(body=msgspec.json.encode(message), content_type="application/json")


async def serve(count, certificate):
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    context = None
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
    runner = web.AppRunner(Agents(count).app(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=4096, ssl_context=context).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), *sys.argv[2:3] or [""]))
