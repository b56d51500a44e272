"""What the controller costs for each agent: the real one, with simulated agents (perf_agents.py) in another process.

    python tests/perf/perf_controller.py [--rounds N] [--tls] [--at-once N] [AGENTS …]
    python tests/perf/perf_controller.py --plan         what 1,000 nodes cost before any agent is called

Everything above the backend is real: `run_benchmark`, the crew, the links over TCP, the store on this disk, the live view
drawn twice a second. The agents answer at once and drive nothing; their logs and intervals are those of the seed benchmark
(400 requests a second from each agent to 8 targets, windows of 5 s). The default is 6, 60 and 250 agents, two rounds each,
a process for each size: two minutes on an idle core. Figures are CPU seconds of the controller's own process, which move
less than wall time with what else runs here; each is the median of its step's calls. --tls: as to an API server.
--at-once: greet so many agents at a time.
"""

import argparse
import asyncio
import contextlib
import functools
import inspect
import json
import os
import resource
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import aiohttp
import msgspec
from rich.console import Console

import kabench.controller.crew as crew_module
import kabench.controller.round as round_module
import kabench.controller.run as run_module
from kabench.backends.base import AgentEndpoint, PlacedTarget, Round
from kabench.backends.fake import FakeBackend
from kabench.backends.simulation import SimulatedScheduler, slots
from kabench.clock import SystemClock
from kabench.controller.crew import Crew
from kabench.core.identity import Kind
from kabench.core.scenario import load_scenario, override
from kabench.report.terminal import LiveObserver
from kabench.scenarios import built_in
from kabench.store import RunStore

SIZES = (6, 60, 250)
ROUNDS = 2
RATE_PER_AGENT_S = 400.0
REFRESH_S = 0.5
MIB = 1 << 20
STEPS = (
    "join",
    "probe",
    "prepare_orders",
    "prepare",
    "arm",
    "stream",
    "collect",
    "agent_windows",
    "build_result",
)


class Steps:
    """Wall and CPU seconds of each call of a step, and the highest memory until its end."""

    def __init__(self):
        self.seen = {}

    @contextlib.contextmanager
    def step(self, name):
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        wall, cpu = time.monotonic(), time.process_time()
        yield
        took = time.monotonic() - wall, time.process_time() - cpu, high_water_bytes()
        self.seen.setdefault(name, []).append(took)

    def watch(self, owner, name):
        """Have every call of `owner.name` timed."""
        call = getattr(owner, name)
        if inspect.iscoroutinefunction(call):

            @functools.wraps(call)
            async def timed(*args, **kwargs):
                with self.step(name):
                    return await call(*args, **kwargs)
        elif inspect.isgeneratorfunction(call):

            @functools.wraps(call)
            def timed(*args, **kwargs):
                with self.step(name):
                    yield from call(*args, **kwargs)
        else:

            @functools.wraps(call)
            def timed(*args, **kwargs):
                with self.step(name):
                    return call(*args, **kwargs)

        setattr(owner, name, timed)


def high_water_bytes():
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


class Watched(LiveObserver):
    """The live view, and the streaming as a step of its own: from the stage "measure" to the stage "collect"."""

    def __init__(self, steps, scenario, console):
        super().__init__(scenario, console, SystemClock().monotonic_ns)
        self._steps, self._streaming = steps, contextlib.ExitStack()
        self.intervals, self.notes = 0, []

    def stage(self, text):
        self._streaming.close()
        if text == "measure":
            self._streaming.enter_context(self._steps.step("stream"))
        super().stage(text)

    def interval(self, agent, interval):
        self.intervals += 1
        super().interval(agent, interval)

    def note(self, text):
        self.notes.append(text)
        super().note(text)


def scenario_for(agents, rounds):
    names = [f"round-{number}=policy:default" for number in range(1, rounds + 1)]
    scenario = override(
        load_scenario(built_in("seed"), "seed"),
        agents=agents, rate_per_s=RATE_PER_AGENT_S * agents, blocks=1, phases=names,
    )  # fmt: skip
    return scenario.model_copy(
        update={"noise": scenario.noise.model_copy(update={"nodes": agents // 3}),
                "blocks": scenario.blocks.model_copy(update={"reserve": 0})}
    )  # fmt: skip


async def run(agents, rounds, port, certificate, folder):
    """One run; what was seen of it, as plain data."""
    steps = Steps()
    for name in ("join", "probe", "prepare", "arm", "collect"):
        steps.watch(Crew, name)
    steps.watch(RunStore, "agent_windows")
    steps.watch(round_module, "prepare_orders")
    steps.watch(run_module, "build_result")
    steps.watch(run_module, "plan_blocks")
    scheme, context = (
        ("https", ssl.create_default_context(cafile=certificate)) if certificate else ("http", None)
    )

    def endpoint(node, token):
        return AgentEndpoint(node, f"{scheme}://127.0.0.1:{port}/{node}", token, ssl=context)

    scenario = scenario_for(agents, rounds)
    backend = FakeBackend(cpus=agents, endpoint=endpoint, clock=SystemClock())
    nowhere = Path(os.devnull).open("w")  # noqa: ASYNC230, SIM115 -- closed by the next line
    with nowhere, RunStore.create(folder, "perf") as store:
        observer = Watched(steps, scenario, Console(file=nowhere, force_terminal=True, width=100, height=40))
        with observer:
            ticking = asyncio.create_task(tick(observer))
            result = await run_module.run_benchmark(scenario, backend, store, observer)
            ticking.cancel()
        stats = await asked(f"{scheme}://127.0.0.1:{port}/stats", context)
        logs = [path.stat().st_size for path in store.folder.glob("logs/*/*.hlog")]
        results_bytes = (store.folder / "results.json").stat().st_size
    windows = [agent for record in result.rounds for agent in record.agents]
    return {
        "agents": agents,
        "steps": steps.seen,
        "intervals": observer.intervals,
        "notes": observer.notes,
        "sealed": sum(window.status == "sealed" for window in windows),
        "windows": agents * rounds,
        "clock_error_ns": [window.clock_error_ns for window in windows],
        "spread_ns": [max(armed) - min(armed) for armed in stats["armed"].values()],
        "received": stats["sent"],
        "sent": stats["received"],
        "log_bytes": statistics.median(logs) if logs else 0,
        "results_bytes": results_bytes,
        "peak_bytes": max(peak for seen in steps.seen.values() for _, _, peak in seen),
    }


async def tick(observer):
    while True:
        observer.refresh()
        await asyncio.sleep(REFRESH_S)


async def asked(url, context):
    async with aiohttp.ClientSession() as session, session.get(url, ssl=context or True) as response:
        return await response.json()


def measure_one(agents, rounds, tls):
    """In this process: agents beside it, a run, and its figures as a line of JSON."""
    with tempfile.TemporaryDirectory() as folder:
        certificate = make_certificate(Path(folder)) if tls else ""
        command = [sys.executable, str(Path(__file__).with_name("perf_agents.py")), str(agents), certificate]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            port = int(server.stdout.readline())
            print(json.dumps(asyncio.run(run(agents, rounds, port, certificate, Path(folder) / "results"))))
        finally:
            server.kill()
            server.wait()


def make_certificate(folder):
    """A certificate for 127.0.0.1 and its key in one file, of openssl."""
    path = folder / "agents.pem"
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-keyout", key, "-out", certificate, "-days", "1", "-subj", "/CN=agents",
         "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    path.write_text(key.read_text() + certificate.read_text())
    return str(path)


def report(found):
    agents = found["agents"]
    rounds = len(found["spread_ns"]) or 1
    print(
        f"\n{agents} agents: {found['sealed']} of {found['windows']} windows sealed, {len(found['notes'])} notes"
    )
    for note in found["notes"][:3]:
        print(f"  note: {note}")
    print(f"  {'step':<16}{'times':>6}{'wall s':>9}{'CPU s':>9}{'CPU ms/agent':>14}{'peak MiB':>10}")
    for name in (*STEPS, "plan_blocks"):
        seen = found["steps"].get(name, [])
        if seen:
            wall, cpu = (statistics.median(one[at] for one in seen) for at in (0, 1))
            peak = max(one[2] for one in seen) / MIB
            print(
                f"  {name:<16}{len(seen):>6}{wall:>9.3f}{cpu:>9.3f}{1000 * cpu / agents:>14.3f}{peak:>10.0f}"
            )
    shares = [cpu / wall for wall, cpu, _ in found["steps"].get("stream", [])]
    if shares:
        cpu = statistics.median(one[1] for one in found["steps"]["stream"])
        each = 1000 * cpu * rounds / found["intervals"]
        print(
            f"  streaming takes {100 * statistics.median(shares):.1f}% of a core, {each:.2f} ms an interval of an agent"
        )
    spread = statistics.median(found["spread_ns"]) / 1e6 if found["spread_ns"] else float("nan")
    clock = statistics.quantiles(found["clock_error_ns"], n=100)[98] / 1e6
    print(f"  armed within {spread:.2f} ms of one another; clocks known to ± {clock:.2f} ms (p99)")
    print(
        f"  a round and agent: {found['received'] / agents / rounds / 1000:.1f} kB received and "
        f"{found['sent'] / agents / rounds / 1000:.1f} kB sent, of it a log of {found['log_bytes'] / 1000:.1f} kB; "
        f"results.json {found['results_bytes'] / agents / rounds / 1000:.1f} kB; peak {found['peak_bytes'] / MIB:.0f} MiB"
    )


def report_plan(count=1000):
    """What is computed of nodes and targets alone."""
    scenario = scenario_for(count, 1)
    nodes = slots(range(count), count, "machine")
    by_name = {node.name: (node.boot_id, node.cpus) for node in nodes}
    round_ = Round("001-round-1", 1, scenario.phases[0], (), scenario.seed)
    print(f"{count} nodes, CPU seconds")
    for name, call in (
        ("plan of block 1", lambda: run_module.plan_blocks(scenario, by_name, 1, 1)),
        ("plan of block 10", lambda: run_module.plan_blocks(scenario, by_name, 10, 1)),
        ("groups that share CPUs", lambda: crew_module.sharing(nodes)),
        ("the local backend's check", lambda: SimulatedScheduler(scenario, nodes).check()),
    ):
        began = time.process_time()
        call()
        print(f"  {name:<26}{time.process_time() - began:8.3f}")
    for targets in (8, 200):
        placed = [
            PlacedTarget(f"http-echo-{n}", "http-echo", Kind.HTTP, f"node-{n}", "10.244.100.100", 8080, "")
            for n in range(targets)
        ]
        began = time.process_time()
        orders = round_module.prepare_orders(scenario, "run", round_, placed, list(by_name))
        took_s, pairs = time.process_time() - began, count * targets
        sent = sum(len(msgspec.json.encode(order)) for order in orders.values())
        print(
            f"  orders, {targets:>4} targets{took_s:>16.3f}   {sent / pairs:.0f} bytes for an agent and target"
        )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("agents", nargs="*", type=int, default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--at-once", type=int, default=crew_module.GREETED_AT_ONCE)
    parser.add_argument("--plan", action="store_true")
    parser.add_argument("--one", action="store_true", help="measure in this process, and print JSON")
    given = parser.parse_args()
    if given.plan:
        report_plan()
        return
    crew_module.GREETED_AT_ONCE = given.at_once
    if given.one:
        measure_one(given.agents[0], given.rounds, given.tls)
        return
    for agents in given.agents or SIZES:
        options = ["--rounds", str(given.rounds), "--at-once", str(given.at_once), *["--tls"] * given.tls]
        command = [sys.executable, __file__, "--one", *options, str(agents)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        report(json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    main()
