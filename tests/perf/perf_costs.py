"""Where a request's time goes in an agent, part by part, in nanoseconds of CPU.

    python tests/perf/perf_costs.py

Each part is the product's own, called as the engine calls it, `TURNS` times over `COUNT` requests.
"""

import asyncio
import socket
import time

import perf_kit
import uvloop

from kabench.clock import SystemClock
from kabench.core.schedule import Arrivals, Stream
from kabench.wire.messages import HttpLoad, RedisLoad
from kabench_agent.flights import Flights
from kabench_agent.folding import Connections, Folding
from kabench_agent.pacing import choose_pacer
from kabench_agent.protocols.base import Verdict
from kabench_agent.protocols.http1 import HttpCodec
from kabench_agent.protocols.resp import RespCodec
from kabench_agent.recorder import Recorder
from kabench_agent.vitals import SystemVitals

TURNS = 5
COUNT = 20_000
RATE_PER_S = 20_000.0
CLOCK = SystemClock()
GET_REPLY = b"$64\r\n" + b"x" * 64 + b"\r\n"
HTTP_REPLY = (
    b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Wed, 25 Nov 2026 02:00:00 GMT\r\nContent-Type: text/plain\r\n"
    b"Content-Length: 64\r\nConnection: keep-alive\r\n\r\n" + b"x" * 64
)


def arrivals():
    stream = Stream("redis-0", RATE_PER_S, keys=1000)
    return Arrivals(1, "poisson", [stream], warm_up_ns=0, window_ns=round(COUNT / RATE_PER_S * 1e9))


def recorder(flights):
    return Recorder(
        flights, ["redis-0"], start_ns=0, window_ns=1 << 60, interval_ns=1 << 60, timeout_ns=10**9,
        vitals=SystemVitals(), on_closed=lambda: None, most_connections=50,
    )  # fmt: skip


def each(work, count=COUNT):
    """Nanoseconds of CPU for one of `count` things that `work` does."""
    found = []
    for _ in range(TURNS):
        began = time.process_time_ns()
        work()
        found.append((time.process_time_ns() - began) / count)
    return found


def drawing():
    return each(lambda: list(iter(arrivals().next, None)))


def encoding():
    codec = RespCodec(RedisLoad(mix=(("get", 1.0),)))
    encode = codec.encode

    def work():
        for op in range(COUNT):
            encode(op % 1000)

    return each(work)


def parsing(codec, reply):
    feed = codec.reader().feed
    assert feed(reply) == [Verdict.OK]

    def work():
        for _ in range(COUNT):
            feed(reply)

    return each(work)


def appending():
    """A request's instants, while driving; the schedule's ring is read as it lies."""
    flights = Flights(arrivals(), 0)
    found = []
    for _ in range(TURNS):
        add = recorder(flights).add
        began = time.process_time_ns()
        for index in range(COUNT):
            add(index, index, Verdict.OK)
        found.append((time.process_time_ns() - began) / COUNT)
    return found


def folding():
    """An interval of that many requests into five metrics' histograms."""
    flights = Flights(arrivals(), 0)
    filled = recorder(flights)
    for index in range(COUNT):
        at = index & flights.mask
        flights.issued_ns[at] = flights.sent_ns[at] = flights.due_ns[at] + 40_000
        filled.add(index, flights.due_ns[at] + 200_000 + 997 * (index % 499), Verdict.OK)
    landed = filled._landed

    async def no_pause():
        """At once."""

    def work():
        asyncio.run(Folding(["redis-0"], 10**9, Connections(1, 50)).scheduled(landed, no_pause))

    return each(work)


def pacing():
    """Arming the timer and being woken, with nothing to send, at that rate."""

    async def run():
        pacer, over = choose_pacer(), asyncio.Event()
        step_ns, left = round(1e9 / RATE_PER_S), COUNT
        due_ns = CLOCK.monotonic_ns()

        def wake():
            nonlocal due_ns, left
            left -= 1
            if left:
                due_ns = max(due_ns + step_ns, CLOCK.monotonic_ns())
                pacer.arm(due_ns)
            else:
                over.set()

        pacer.start(wake)
        pacer.arm(due_ns)
        await over.wait()
        pacer.stop()

    return each(lambda: uvloop.run(run()))


def system_calls():
    """A send and a receive of a small message over loopback, the kernel's delivery in between."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as one,
    ):
        other, _ = server.accept()
        with other:
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

            def work():
                send, receive = one.send, other.recv
                for _ in range(COUNT):
                    send(GET_REPLY)
                    receive(4096)

            return each(work)


def measure():
    """part → nanoseconds a request, turn by turn."""
    return {
        "drawing an arrival": drawing(),
        "pacing: arming the timer and waking": pacing(),
        "encoding a GET": encoding(),
        "a send and a receive over loopback (kernel)": system_calls(),
        "parsing a GET's reply": parsing(RespCodec(RedisLoad(mix=(("get", 1.0),))), GET_REPLY),
        "parsing nginx's reply": parsing(HttpCodec("127.0.0.1", 80, HttpLoad()), HTTP_REPLY),
        "recording: appending, while driving": appending(),
        "recording: folding, at the interval's end": folding(),
    }


def main():
    perf_kit.pin_self()
    for name, values in measure().items():
        print(f"{name:<46}{perf_kit.words(perf_kit.spread(values), 0)} ns")


if __name__ == "__main__":
    main()
