"""A world in virtual time for the engine: a manual clock, a pacer that tests step, and servers that follow a script."""

import asyncio
import heapq
import itertools
from dataclasses import dataclass, field

from kabench.clock import ManualClock
from kabench.core.histogram import GEOMETRY, Histogram
from kabench.core.hlog import LOG_VERSION, Header, LoggedTarget, LogWriter, read_log
from kabench.core.identity import NULL_TARGET, Kind
from kabench.core.schedule import Stream, compute
from kabench.wire.messages import HttpLoad, Prepare, RedisLoad, Target
from kabench_agent.engine import Engine
from kabench_agent.vitals import Sample

MS = 1_000_000
START_NS = 1_000 * MS
NULL_PORT = 7
NEVER = None
CLOSE = b""
HTTP_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class StepPacer:
    """Wakes when the world comes to the instant it is armed for."""

    name = "step"
    armed_ns = None
    wake = None

    def start(self, wake):
        self.wake = wake

    def arm(self, at_ns):
        self.armed_ns = at_ns

    def stop(self):
        self.armed_ns = None


@dataclass
class Server:
    """`script(request number)` gives (delay_ns, reply); a delay NEVER means no reply, CLOSE as a reply closes.

    `accepts(attempt number)` says whether an attempt is accepted; it is answered after `connect_ns`. One request at a
    time is worked on per connection, as Redis does, unless `parallel`.
    """

    script: object = lambda number: (500, HTTP_OK)
    accepts: object = lambda attempt: True
    connect_ns: int = 0
    parallel: bool = False
    greeting: bytes = b""  # sent to whoever connects, and then it closes
    turns_away: bool = False  # closes at once
    gives_up: object = lambda attempt: False  # the transport gives an attempt up at the instant it is made
    requests: list = field(default_factory=list)  # (instant, bytes)
    users: list = field(default_factory=list)  # the link of each request
    replies: list = field(default_factory=list)
    attempts: list = field(default_factory=list)
    links: list = field(default_factory=list)


class Link(asyncio.Transport):
    """The client's end of a connection to a `Server`."""

    def __init__(self, world, server, connection):
        super().__init__()
        self.world, self.server, self.connection = world, server, connection
        self.free_ns = 0
        self.open = True

    def get_extra_info(self, name, default=None):
        return default

    def write(self, data):
        assert self.open, "written to a closed connection"
        now_ns = self.world.clock.monotonic_ns()
        number = len(self.server.requests)
        self.server.requests.append((now_ns, bytes(data)))
        self.server.users.append(self)
        delay_ns, reply = self.server.script(number)
        if delay_ns is NEVER or self.free_ns is NEVER:
            self.free_ns = self.free_ns if self.server.parallel else NEVER
            return
        begin_ns = now_ns if self.server.parallel else max(now_ns, self.free_ns)
        self.free_ns = begin_ns + delay_ns
        self.world.at(self.free_ns, lambda: self._reply(reply))

    def _reply(self, reply):
        if not self.open:
            return
        if reply == CLOSE:
            self.drop()
        else:
            self.server.replies.append(self.world.clock.monotonic_ns())
            self.connection.data_received(reply)

    def drop(self):
        """The server closes."""
        if self.open:
            self.open = False
            self.connection.connection_lost(None)

    def abort(self):
        if self.open:
            self.open = False
            self.world.at(self.world.clock.monotonic_ns(), lambda: self.connection.connection_lost(None))

    close = abort


class World:
    """Clock, pacer, transport and servers by port."""

    def __init__(self, server=None, port=80):
        self.clock = ManualClock(START_NS - 100 * MS)
        self.pacer = StepPacer()
        self.servers = {NULL_PORT: Server(lambda number: (50, b"ping")), port: server or Server()}
        self.stall_until_ns = 0
        self.cpu_share = 0.25
        self._events = []
        self._order = itertools.count()

    def at(self, at_ns, call):
        heapq.heappush(self._events, (at_ns, next(self._order), call))

    def connect(self, host, port, connection, failed):
        server = self.servers[port]
        attempt = len(server.attempts)
        server.attempts.append(self.clock.monotonic_ns())

        def done():
            if server.accepts(attempt):
                link = Link(self, server, connection)
                server.links.append(link)
                connection.connection_made(link)
                if server.gives_up(attempt):
                    failed(TimeoutError("given up"))
                    link.drop()
                if server.greeting and link.open:
                    connection.data_received(server.greeting)
                if server.greeting or server.turns_away:
                    link.drop()
            else:
                failed(ConnectionRefusedError("refused"))

        self.at(self.clock.monotonic_ns() + server.connect_ns, done)

    async def close(self):
        """There are no tasks to give up."""

    def sample(self):
        """Vitals: a steady CPU share, and 1 ns of run delay in 10."""
        now_ns = self.clock.monotonic_ns()
        return Sample(int(now_ns * self.cpu_share), 0, now_ns // 10)

    def step(self):
        """Go to the next instant at which anything happens; what comes from a server comes first."""
        event_ns = self._events[0][0] if self._events else None
        armed_ns = self.pacer.armed_ns
        if armed_ns is not None:
            armed_ns = max(armed_ns, self.stall_until_ns)
        if event_ns is None and armed_ns is None:
            return False
        if armed_ns is None or (event_ns is not None and event_ns <= armed_ns):
            at_ns, _, call = heapq.heappop(self._events)
        else:
            at_ns, call = armed_ns, self.pacer.wake
            self.pacer.armed_ns = None
        self.clock.advance_to(max(at_ns, self.clock.monotonic_ns()))
        call()
        return True

    async def finish(self, awaitable, steps=200_000):
        """Drive until `awaitable` is done."""
        task = asyncio.ensure_future(awaitable)
        idle = 0
        for _ in range(steps):
            await asyncio.sleep(0)
            if task.done():
                return task.result()
            idle = 0 if self.step() else idle + 1
            assert idle < 1000, "nothing is armed, and the engine has not ended"
        raise AssertionError("it does not end")


def http_target(port=80, rate_per_s=1e6, connections=1, pipeline=1, name="echo-0"):
    return Target(name, "http-echo", "node-2", "h", port, HttpLoad(), rate_per_s, connections, pipeline)


def redis_target(port=80, rate_per_s=1e6, connections=1, pipeline=1, name="redis-0", **load):
    return Target(name, "redis", "node-2", "h", port, RedisLoad(**load), rate_per_s, connections, pipeline)


def order(*targets, **changes):
    """By default: constant arrivals, 1,000 ns of warm-up, a window of 20,000 ns in intervals of 5,000 ns."""
    settings = {
        "warm_up_ns": 1_000,
        "window_ns": 20_000,
        "interval_ns": 5_000,
        "timeout_ns": 2_000,
        "max_in_flight": 100,
        "arrivals": "constant",
        "seed": 1,
    } | changes
    return Prepare(
        protocol=1,
        run="run-1",
        scenario_sha256="5" * 64,
        window="001-default",
        phase="default",
        block=1,
        targets=targets,
        **settings,
    )


class Given:
    """Arrivals that a test has made up, all in one part."""

    def __init__(self, schedule):
        self.count = schedule.due_ns.size
        self.first = int((schedule.due_ns < 0).sum())
        self._parts = [schedule]

    def next(self):
        return self._parts.pop() if self._parts else None


def dues(prepare):
    """Absolute due times in the window of the only target, from the schedule itself."""
    (target,) = prepare.targets
    schedule = compute(
        prepare.seed,
        prepare.arrivals,
        [Stream(target.name, target.rate_per_s)],
        warm_up_ns=prepare.warm_up_ns,
        window_ns=prepare.window_ns,
    )
    return [START_NS + due for due in schedule.due_ns.tolist() if due >= 0]


@dataclass
class Outcome:
    """What a window left behind."""

    engine: Engine
    intervals: list
    seal: object

    def histogram(self, target, metric):
        both = Histogram()
        for interval in self.intervals:
            if (target, metric) in interval.histograms:
                both.add_buckets(interval.histograms[target, metric])
        return both


def histogram(values_ns):
    made = Histogram()
    made.record_many(values_ns)
    return made


def make_engine(world, prepare, sink, null=False):
    return Engine(
        prepare,
        clock=world.clock,
        pacer=world.pacer,
        null=("h", NULL_PORT) if null else None,
        sink=sink,
        transport=world,
        vitals=world,
    )


async def run(world, prepare, null=False, start_ns=START_NS):
    """Connect, run and close; the log that comes of it must hold."""
    intervals = []
    engine = make_engine(world, prepare, intervals.append, null)
    await world.finish(engine.connect(START_NS - 1))
    seal = await world.finish(engine.run(start_ns))
    await engine.close()
    check_log(prepare, engine, intervals, seal, start_ns)
    return Outcome(engine, intervals, seal)


def check_log(prepare, engine, intervals, seal, start_ns=START_NS):
    """The log's own reader checks that all counts reconcile, by interval, by metric and in all."""
    targets = [
        LoggedTarget(
            t.name,
            t.workload,
            t.node,
            Kind.REDIS if isinstance(t.load, RedisLoad) else Kind.HTTP,
            t.rate_per_s,
            t.connections,
            engine.planned[t.name],
        )
        for t in prepare.targets
    ]
    if NULL_TARGET in engine.planned:
        planned = engine.planned[NULL_TARGET]
        targets.append(LoggedTarget(NULL_TARGET, NULL_TARGET, "", Kind.NULL, 1.0, 1, planned))
    header = Header(
        LOG_VERSION, prepare.run, prepare.scenario_sha256, prepare.window, prepare.phase, prepare.block,
        "node-1", "i1", "b1", prepare.seed, prepare.arrivals, start_ns, 1_764_000_000_000_000_000,
        prepare.warm_up_ns, prepare.window_ns, prepare.interval_ns, prepare.timeout_ns, "step",
        tuple(targets), GEOMETRY,
    )  # fmt: skip
    writer = LogWriter()
    pieces = [writer.begin(header), *map(writer.interval, intervals), writer.seal(seal)]
    log = read_log(b"".join(pieces).splitlines(keepends=True))
    assert log.problem == ""
    waits = {}
    for interval in intervals:
        for (name, metric), held in interval.histograms.items():
            if metric == "wait":
                waits[name] = waits.get(name, 0) + held.total
    for name, total in seal.totals.items():
        assert waits.get(name, 0) <= total.sent
    starts = [interval.note.start_ns for interval in intervals]
    ends = [interval.note.start_ns + interval.note.length_ns for interval in intervals]
    assert starts == [start_ns, *ends[:-1]]
