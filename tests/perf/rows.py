"""The rows of `make perf`: each measures something beside something else, turn by turn, and says what was to be reached."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
import peers
import perf_costs
import perf_kit
import perf_merge

from kabench.wire import messages as wire

TURNS = 7
TURN_S = 1.5
WHOLE_TURN_S = 2  # wrk, hey and Locust take whole seconds
RATE_PER_S = 20_000
PACED = "a bare paced loop in C"
TAIL = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}


@dataclass(frozen=True)
class Line:
    """One line of the table.

    Attributes:
        what: was compared.
        goal: in words.
        found: the spread of the figure that the goal is about.
        holds: whether the median reaches the goal; None where there is none.
        unit: after the figure: "×" for a ratio.
        detail: what stands behind it.
    """

    what: str
    goal: str
    found: dict
    holds: bool | None
    unit: str = "×"
    detail: dict = field(default_factory=dict)


def at_least(what, goal, found, detail=None):
    return Line(what, f"≥ {goal:g}×", found, found["median"] >= goal, detail=detail or {})


def interleaved(contenders, turns=TURNS):
    """name → the turns of each, A B A B …; (turns by name, what is missing). Who goes first changes from turn to turn."""
    seen, missing = {}, []
    for turn in range(turns):
        names = [name for name in contenders if name not in missing]
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            try:
                seen.setdefault(name, []).append(contenders[name]())
            except peers.Missing as absent:
                seen.pop(name)
                missing.append(name)
                print(f"  missing: {absent}", flush=True)
    return seen, missing


def beside(what, seen, missing, goals):
    """Lines of our requests a second beside each other tool's, with the CPU time that both took for one."""
    lines = []
    cpu_us = {name: statistics.median(turn.cpu_us for turn in turns) for name, turns in seen.items()}
    per_s = {name: statistics.median(turn.per_s for turn in turns) for name, turns in seen.items()}
    for name, goal in goals.items():
        if name in missing:
            lines.append(Line(f"{what}: {name}", f"≥ {goal:g}×", {}, None, detail={"missing": name}))
            continue
        found = perf_kit.ratio([turn.per_s for turn in seen["kabench"]], [turn.per_s for turn in seen[name]])
        detail = {"per_s": [per_s["kabench"], per_s[name]], "cpu_us": [cpu_us["kabench"], cpu_us[name]]}
        lines.append(at_least(f"{what}: {name}", goal, found, detail))
    return lines


def redis():
    """Closed loop, one request at a time."""
    tool = peers.RedisBenchmark(1)
    with peers.redis() as port:
        contenders = {
            "kabench": lambda: peers.our_turn("redis", port, TURN_S),
            "redis-benchmark": lambda: tool.turn(port, TURN_S),
            "bare loop in C": lambda: peers.bare_loop("redis")(port, TURN_S),
        }
        goals = {"redis-benchmark": 1.3, "bare loop in C": 0.9}
        return beside("closed loop, Redis GET", *interleaved(contenders), goals)


def redis_pipelined():
    """Closed loop, 16 requests at a time on a connection."""
    tool = peers.RedisBenchmark(16)
    with peers.redis() as port:
        contenders = {
            "kabench": lambda: peers.our_turn("redis", port, TURN_S, pipeline=16),
            "redis-benchmark": lambda: tool.turn(port, TURN_S),
        }
        return beside(
            "closed loop, Redis GET, pipeline of 16", *interleaved(contenders), {"redis-benchmark": 1.05}
        )


def http():
    """Closed loop against nginx."""
    with peers.nginx() as port:
        contenders = {
            "kabench": lambda: peers.our_turn("http", port, TURN_S),
            "wrk -t1": lambda: peers.wrk(port, WHOLE_TURN_S),
            "bare loop in C": lambda: peers.bare_loop("http")(port, TURN_S),
            "hey": lambda: peers.hey(port, WHOLE_TURN_S),
            "Locust's FastHttpUser": lambda: peers.fast_http_user(port, WHOLE_TURN_S),
        }
        goals = {"wrk -t1": 1.0, "bare loop in C": 0.9, "hey": 3, "Locust's FastHttpUser": 12}
        return beside("closed loop, HTTP from nginx", *interleaved(contenders), goals)


def cpu():
    """CPU time a request in open loop at 20,000/s, beside that of the C tools in closed loop."""
    lines, benchmark = [], peers.RedisBenchmark(1)
    with peers.redis() as redis_port, peers.nginx() as nginx_port:
        for kind, port, name, tool in (
            (
                "redis",
                redis_port,
                "redis-benchmark",
                lambda: benchmark.turn(redis_port, TURN_S),
            ),
            ("http", nginx_port, "wrk -t1", lambda: peers.wrk(nginx_port, WHOLE_TURN_S)),
        ):
            contenders = {
                "kabench": lambda kind=kind, port=port: peers.our_turn(
                    kind, port, TURN_S, loop="open", rate=RATE_PER_S
                ),
                name: tool,
                PACED: lambda kind=kind, port=port: peers.bare_loop(kind, RATE_PER_S)(port, TURN_S),
            }
            seen, missing = interleaved(contenders)
            what = f"CPU a request, {kind}, open loop at 20,000/s: {name} in closed loop"
            if PACED not in missing:
                mine, others = ([turn.cpu_us for turn in seen[one]] for one in ("kabench", PACED))
                lines.append(
                    Line(
                        f"CPU a request, {kind}, open loop at 20,000/s: {PACED}",
                        "shown",
                        perf_kit.ratio(mine, others),
                        None,
                        detail={"cpu_us": [statistics.median(mine), statistics.median(others)]},
                    )
                )
            if name in missing:
                lines.append(Line(what, "≤ 2×", {}, None, detail={"missing": name}))
                continue
            mine, others = ([turn.cpu_us for turn in seen[one]] for one in ("kabench", name))
            found = perf_kit.ratio(mine, others)
            detail = {"cpu_us": [statistics.median(mine), statistics.median(others)]}
            lines.append(Line(what, "≤ 2×", found, found["median"] <= 2, detail=detail))
    return lines


def open_loop():
    """Poisson arrivals: what was sent of what was planned, and the lag beside that of `call_later`."""
    lines = []
    for rate in (RATE_PER_S, 5_000):
        with peers.redis() as port:
            contenders = {
                name: lambda late=late, rate=rate, port=port: peers.ours(
                    "redis", port, TURN_S, loop="open", rate=rate, call_later=late
                )
                for name, late in (("timerfd", False), ("call_later", True))
            }
            seen, _ = interleaved(contenders)
        what = f"open loop, {rate:,}/s Poisson"
        share = perf_kit.spread([100 * turn["sent"] / turn["planned"] for turn in seen["timerfd"]])
        lines.append(Line(f"{what}: sent of the planned", "≥ 99.9%", share, share["median"] >= 99.9, "%"))
        lags = {
            name: [turn["quantiles_ns"]["lag"]["p99"] / 1e3 for turn in turns] for name, turns in seen.items()
        }
        found = perf_kit.ratio(lags["call_later"], lags["timerfd"])
        detail = {
            "lag_p99_us": {name: perf_kit.spread(values) for name, values in lags.items()},
            "cpu_us_of": {
                name: statistics.median(turn["cpu_us"] for turn in turns) for name, turns in seen.items()
            },
        }
        what += ": lag p99 of call_later over ours"
        if rate == RATE_PER_S:
            lines.append(at_least(what, 5, found, detail))
        else:
            lines.append(Line(what, "shown", found, None, detail=detail))
    return lines


def merge():
    """The package's `decode_and_add` on the same logs."""
    lines = []
    for row in perf_merge.measure():
        samples, costs = row["samples"], row["cpu_us"]
        detail = {
            "cpu_us": [costs["ours"]["median"], costs["package"]["median"]],
            "floor_us": costs["floor"]["median"],
            "merge_us": costs["our merge"]["median"],
            "its_reader_us": costs["its reader"]["median"],
        }
        what = f"merge, {samples:,} samples an interval: decode_and_add"
        if samples <= 500:
            lines.append(at_least(what, 5, row["decoding"], detail))
        else:
            lines.append(Line(what, "shown", row["decoding"], None, detail=detail))
    return lines


def agent():
    """One agent as it is started everywhere: memory, time to be ready, CPU when idle."""
    with peers.redis() as port, tempfile.TemporaryDirectory() as spool:
        began = time.monotonic()
        with Agent(spool) as running:
            ready_s = time.monotonic() - began
            time.sleep(1.0)
            idle_mib = running.resident_mib()
            before = running.cpu_s()
            time.sleep(3.0)
            idle_cpu = 100 * (running.cpu_s() - before) / 3.0
            share = running.drive(port, targets=8, rate=RATE_PER_S, seconds=4.0)
            busy_mib = running.peak_mib()
    return [
        limit("one agent: ready", 1.0, ready_s, "s"),
        limit("one agent: resident, idle", 64, idle_mib, "MiB"),
        limit("one agent: resident at 20,000/s on 8 targets", 80, busy_mib, "MiB", {"share": share}),
        limit("one agent: CPU when idle", 0.5, idle_cpu, "%"),
    ]


def limit(what, most, value, unit, detail=None):
    return Line(what, f"≤ {most:g} {unit}", perf_kit.spread([value]), value <= most, unit, detail or {})


class Agent:
    """A real agent's process, spoken to as its controller would."""

    TOKEN = "perf"

    def __init__(self, spool):
        command = [
            sys.executable,
            "-m",
            "kabench_agent",
            "--node",
            "perf",
            "--listen",
            "127.0.0.1:0",
            "--spool",
            spool,
        ]
        self._process = subprocess.Popen(
            ["taskset", "-c", str(perf_kit.cpus()[0]), *command],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"KABENCH_TOKEN": self.TOKEN},
        )

    def __enter__(self):
        self._port = json.loads(self._process.stdout.readline())["port"]
        return self

    def __exit__(self, *_):
        self._process.terminate()
        self._process.communicate(timeout=10)

    def resident_mib(self):
        return self._status("VmRSS")

    def peak_mib(self):
        return self._status("VmHWM")

    def cpu_s(self):
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def drive(self, port, targets, rate, seconds):
        """A window of so many targets, to its seal; the share in percent of what was planned that was sent."""
        load = wire.RedisLoad(mix=(("get", 1.0),))
        order = wire.Prepare(
            protocol=wire.PROTOCOL, run="perf", scenario_sha256="0" * 64, window="001-perf", phase="perf", block=1, seed=1,
            arrivals="poisson", warm_up_ns=500_000_000, window_ns=round(seconds * 1e9), timeout_ns=1_000_000_000,
            max_in_flight=5000, targets=tuple(
                wire.Target(f"redis-{number}", "redis", "here", "127.0.0.1", port, load, rate / targets, 8)
                for number in range(targets)
            ),
        )  # fmt: skip
        self._call("POST", "prepare", order)
        now_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        self._call("POST", "arm", wire.Arm("001-perf", now_ns + 1_000_000_000))
        lines = self._call("GET", "windows/001-perf/stream").splitlines()
        kinds = msgspec.json.decode(lines[-1], type=wire.Interval).kinds.values()
        planned, sent = (sum(getattr(kind.outcomes, name) for kind in kinds) for name in ("planned", "sent"))
        return 100 * sent / planned

    def _call(self, method, path, body=None):
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._port}/v1/{path}",
            method=method,
            data=None if body is None else msgspec.json.encode(body),
            headers={wire.TOKEN_HEADER: self.TOKEN},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read()

    def _status(self, name):
        for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) / 1024
        raise LookupError(name)


def two_agents():
    """Two agents on two cores, each with a null server beside it on its own core; and one such pair alone."""
    first, last = perf_kit.cpus()
    if first == last:
        return [
            Line("two agents on two cores: one agent", "≥ 1.8×", {}, None, detail={"missing": "a second CPU"})
        ]
    with (
        peers.truth_server(cpu=first) as one,
        peers.truth_server(cpu=last) as other,
        ThreadPoolExecutor(2) as pool,
    ):

        def alone():
            return peers.ours("http", one.port, TURN_S, cpu=first)["per_s"]

        def both():
            turns = [
                pool.submit(peers.ours, "http", server.port, TURN_S, cpu=cpu, seed=seed)
                for seed, (server, cpu) in enumerate(((one, first), (other, last)))
            ]
            return sum(turn.result()["per_s"] for turn in turns)

        seen, _ = interleaved({"alone": alone, "both": both})
    detail = {"per_s": [statistics.median(seen["both"]), statistics.median(seen["alone"])]}
    return [
        at_least(
            "two agents on two cores: one agent", 1.8, perf_kit.ratio(seen["both"], seen["alone"]), detail
        )
    ]


TRUTH_TURNS = 3
TRUTH_S = 8.0
TRUTH_PER_S = 1000.0


def truth():
    """Servers that record the delay they really gave: our percentiles beside those of their record.

    Tens of milliseconds, since in a virtual machine what is no delay of the server's, two wake-ups from sleep, takes 0.1 to
    0.2 ms; the figures behind the line show it.
    """
    rng = np.random.default_rng(1)
    count = 50_000
    delays_ms = {
        "fixed": np.full(count, 40.0),
        "lognormal": rng.lognormal(np.log(40.0), 0.5, count),
        "bimodal": np.where(rng.random(count) < 0.9, 30.0, 120.0) + rng.random(count),
    }
    return [
        line for name, values in delays_ms.items() for line in _truth(name, (values * 1e6).astype(np.int64))
    ]


def _truth(name, delays_ns):
    turns = [_truth_turn(delays_ns.tobytes()) for _ in range(TRUTH_TURNS)]
    worst = perf_kit.spread([worst for worst, _, _ in turns])
    off = perf_kit.spread([off for _, off, _ in turns])
    detail = sorted(turns, key=lambda turn: turn[0])[len(turns) // 2][2]  # the median's
    return [
        Line(
            f"truth, {name} delay: p50 … p99.9 off by, of 1% + 50 µs", "≤ 1", worst, worst["median"] <= 1, "", detail
        ),
        Line(f"truth, {name} delay: requests the server counts", "ours, to one", off, off["max"] == 0, "off"),
    ]  # fmt: skip


def _truth_turn(delays):
    """(the worst quantile's error as a share of what is allowed, requests off, figures) of one window."""
    with peers.truth_server(delays) as server, perf_kit.awake():
        found = peers.ours(
            "http",
            server.port,
            TRUTH_S,
            loop="open",
            rate=TRUTH_PER_S,
            connections=300,
            warm_up_s=0.0,
            timeout_s=3.0,
        )
    record = np.sort(np.frombuffer(server.record, dtype=np.int64))
    worst, quantiles = 0.0, {}
    for label, q in TAIL.items():
        true_ns = int(record[max(int(q * record.size + 0.5), 1) - 1])
        seen_ns = found["quantiles_ns"]["response"][label]
        allowed_ns = 0.01 * true_ns + 50_000
        worst = max(worst, abs(seen_ns - true_ns) / allowed_ns)
        quantiles[label] = [round(seen_ns / 1e3), round(true_ns / 1e3)]
    detail = {"response_and_record_us": quantiles, "service_us": _us(found["quantiles_ns"]["service"])}
    return worst, abs(server.arrivals - found["sent"]), detail


STALL_EVERY_S, STALL_S = 10.0, 1.0
STALL_FROM_S, STALL_WINDOW_S = 8.5, 12.0
STALL_PER_S = 200.0


def stall():
    """A server that stops 1 s in every 10, in open loop: response times as they must be, service times as others report."""
    with peers.truth_server(every_ms=int(1000 * STALL_EVERY_S), stop_ms=int(1000 * STALL_S)) as server:
        found = peers.ours(
            "http", server.port, STALL_WINDOW_S, loop="open", rate=STALL_PER_S, arrivals="constant", connections=10,
            warm_up_s=0.0, timeout_s=3.0, start_ns=server.start_ns + round(STALL_FROM_S * 1e9),
        )  # fmt: skip
    stopped = 2 * STALL_S / STALL_WINDOW_S  # the window has two stops in it
    lines = []
    for label in ("p90", "p99", "p99.9"):
        true_s = STALL_S * (1 - (1 - TAIL[label]) / stopped)
        seen_s = found["quantiles_ns"]["response"][label] / 1e9
        off = abs(seen_s / true_s - 1)
        service_s = found["quantiles_ns"]["service"][label] / 1e9
        detail = {
            "response_s": round(seen_s, 4),
            "analytic_s": round(true_s, 4),
            "service_s": round(service_s, 6),
        }
        what = f"a server that stops 1 s in 10, open loop: {label} off the analytic"
        lines.append(Line(what, "≤ 2%", perf_kit.spread([100 * off]), off <= 0.02, "%", detail))
    return lines


def costs():
    """Where a request's time goes, in nanoseconds of CPU."""
    return [
        Line(f"cost: {name}", "shown", perf_kit.spread(values), None, "ns")
        for name, values in perf_costs.measure().items()
    ]


def _us(quantiles):
    return {name: round(ns / 1e3) for name, ns in quantiles.items()}


ROWS = {
    "redis": redis,
    "redis-pipelined": redis_pipelined,
    "http": http,
    "cpu": cpu,
    "open-loop": open_loop,
    "merge": merge,
    "agent": agent,
    "two-agents": two_agents,
    "truth": truth,
    "stall": stall,
    "costs": costs,
}
