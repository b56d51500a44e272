"""The local fleet: agents, noise and targets as child processes bound to their slots."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kabench.backends.affinity import bound_to, cpus_here
from kabench.backends.base import (
    AgentEndpoint,
    Casualty,
    CpuUsage,
    Node,
    NoiseWork,
    PlacedTarget,
    Round,
    standing_targets,
)
from kabench.backends.local import environment as surroundings
from kabench.backends.local.accounting import Accounting
from kabench.backends.local.neighbours import NoisyNeighbours
from kabench.backends.local.noise import StressTool
from kabench.backends.local.processes import Child, Processes
from kabench.backends.local.servers import (
    LOOPBACK,
    RedisServer,
    http_echo_command,
    listens,
    null_echo_command,
    target_program,
)
from kabench.backends.simulation import SimulatedScheduler, decided_by
from kabench.backends.tasks import all_of
from kabench.clock import Clock
from kabench.core.contention import Contention
from kabench.core.identity import Kind
from kabench.core.placement import Decision
from kabench.core.spec import Scenario, Target
from kabench.errors import ClusterError

START_TIMEOUT_S = 20.0
"""For a process to say its port: under a second when idle, several beside noise on the same CPU."""

PORT_ATTEMPTS = 5
POLL_S = 0.01


@dataclass(frozen=True)
class Tools:
    """What a fleet is made with; tests put in others.

    Attributes:
        agent: the agent's command, from node, null echo's port and spool folder.
        redis: the Redis server; None where no target needs one.
        stress: what makes the noise; None where there is none.
        pick_port: a port for a server that cannot pick its own.
    """

    agent: Callable[[str, int, Path], list[str]]
    redis: RedisServer | None
    stress: StressTool | None
    pick_port: Callable[[], int]


@dataclass(frozen=True)
class _Station:
    """A node's agent, and the null echo beside it."""

    agent: Child
    port: int
    null_echo: Child

    @property
    def lives(self) -> bool:
        return self.agent.exit is None and self.null_echo.exit is None


SIMULATED = {
    "decoys": "entries in the simulated scheduler's ledger, no processes",
    "node_allocatable": "simulated: 4000m CPU and 8 GiB a node, whatever the machine has",
}
"""What a reader must know of nodes that targets are placed on."""


class LocalFleet:
    """Nodes are slots of this machine's CPUs; see `kabench.backends.base.Fleet` for the calls."""

    def __init__(
        self,
        scenario: Scenario,
        nodes: Sequence[Node],
        folder: Path,
        token: str,
        tools: Tools,
        processes: Processes,
        clock: Clock,
    ) -> None:
        self.nodes: Sequence[Node] = tuple(nodes)
        self._scenario, self._folder, self._token, self._tools = scenario, folder, token, tools
        self._processes, self._clock = processes, clock
        self._scheduler = SimulatedScheduler(scenario, nodes)
        self._accounting = Accounting(processes)
        self._by_name = {node.name: node for node in nodes}
        self._workloads = {target.name: target for target in scenario.targets}
        self._stations: dict[str, _Station] = {}
        self._neighbours = self._noisy_neighbours() if tools.stress else None
        self._targets: list[Child] = []
        self._autogroups: dict[str, str] = {}
        self._awake: list[Child] = []
        self._why_not_awake = (
            "servers that stand already are measured as they are"
            if scenario.standing
            else surroundings.why_not_awake()
        )

    async def start_agents(self) -> None:
        """Start an agent, and the null echo beside it, on every node.

        Raises:
            ClusterError: one of them does not start.
        """
        if not self._why_not_awake:
            for cpu in sorted(frozenset[int]().union(*(node.cpus for node in self.nodes))):
                self._keep_awake(cpu)
        await all_of({f"start {node.name}": self._start_station(node) for node in self.nodes})

    @property
    def agents(self) -> Sequence[AgentEndpoint]:
        """The agents that live, by node."""
        return [
            AgentEndpoint(name, f"http://{LOOPBACK}:{station.port}", self._token)
            for name, station in sorted(self._stations.items(), key=lambda item: self._position(item[0]))
            if station.agent.exit is None
        ]

    async def start_noise(self, round_: Round) -> None:
        """Start the stressors on the noisy nodes; the decoys elsewhere are entries in the scheduler's ledger."""
        if self._neighbours and round_.noise_nodes:
            await self._neighbours.start([self._by_name[name] for name in round_.noise_nodes])

    async def stop_noise(self) -> Sequence[NoiseWork]:
        """End the round's noise and say what it did."""
        return await self._neighbours.stop() if self._neighbours else []

    async def place(self, round_: Round, contention: Mapping[str, Contention]) -> Sequence[PlacedTarget]:
        """Let the simulated scheduler decide, and start a fresh process for every replica.

        From here until `measuring` the noise stands still: beside it, targets take twice as long to start and agents three
        times as long to get ready, and nothing is measured meanwhile.
        """
        if round_.phase.standing:
            return standing_targets(self._scenario, round_.phase)
        asked_ns = self._clock.monotonic_ns()
        decisions = self._scheduler.decide(round_, contention)
        pending_ns = self._clock.monotonic_ns() - asked_ns
        if self._neighbours:
            self._neighbours.hold()
        ports = await all_of({d.pod.name: self._start_target(d) for d in decisions})
        return [
            PlacedTarget(
                name=decision.pod.name,
                workload=decision.pod.workload,
                kind=Kind(self._workloads[decision.pod.workload].kind),
                node=decision.node,
                host=LOOPBACK,
                port=port,
                decided_by=decided_by(round_.phase),
                pending_ns=pending_ns,
                reason=decision.scores,
            )
            for decision, port in zip(decisions, ports, strict=True)
        ]

    @contextlib.contextmanager
    def measuring(self, round_: Round) -> Iterator[None]:
        """Have the noise go on, and bind the controller to its CPUs: on a quiet one, it would be in agents' way."""
        if self._neighbours:
            self._neighbours.release()
        self._accounting.settle()
        with bound_to(cpus_here(self.nodes, round_.noise_nodes, self.nodes[0].boot_id)):
            try:
                yield
            finally:
                self._accounting.settle()

    async def clear(self) -> None:
        """End the round's targets."""
        ending, self._targets = self._targets, []
        await self._processes.end(ending)

    async def heal(self, silent: Collection[str] = ()) -> Sequence[str]:
        """Start anew what died beside or as an agent, or is silent. A new agent finds the old one's logs in its spool."""
        broken = [name for name, station in self._stations.items() if name in silent or not station.lives]
        for name in broken:
            station = self._stations[name]
            await self._processes.end([station.agent, station.null_echo])
        await all_of({f"restart {name}": self._start_station(self._by_name[name]) for name in broken})
        return sorted(broken, key=self._position)

    def casualties(self) -> Sequence[Casualty]:
        """Children that ended without our asking."""
        return [
            Casualty(child.role, child.name, child.node, child.exit.at_ns, child.last_words())
            for child in self._processes.casualties()
            if child.exit is not None
        ]

    async def cpu_usage(self) -> CpuUsage:
        """CPU time by CPU since the boot, and ours since the fleet's start."""
        return self._accounting.usage(self._clock.monotonic_ns())

    def environment(self) -> Mapping[str, Any]:
        """This machine's settings, the programs used, and the scheduling group of every process so far."""
        redis, stress = self._tools.redis, self._tools.stress
        return {
            **surroundings.machine(),
            "autogroups": {**self._autogroups, **surroundings.autogroups(self._processes.live)},
            "redis_server": {"path": str(redis.path), "version": redis.version, "source": redis.source}
            if redis
            else None,
            "stress_tool": stress.name if stress else None,
            "substitutes": list(self._substitutes()),
            "idle_cpus": self._idle_cpus(),
            "last_level_cache_bytes": stress.cache_bytes if stress else None,
            **({} if self._scenario.standing else SIMULATED),
        }

    def _substitutes(self) -> Iterator[str]:
        """What serves in the place of a program that this machine does not have."""
        redis, stress = self._tools.redis, self._tools.stress
        if redis and redis.source != "PATH":
            yield f"no redis-server on the PATH: the one in the package {redis.source} serves"
        if stress and stress.path is None:
            yield "no stress-ng on the PATH: the built-in stressor serves"

    def _position(self, name: str) -> int:
        return list(self._by_name).index(name)

    def _start(self, command: Sequence[str], name: str, role: str, node: Node, **env: str) -> Child:
        child = self._processes.start(command, name=name, role=role, node=node.name, cpus=node.cpus, env=env)
        self._autogroups[name] = surroundings.read(Path(f"/proc/{child.pid}/autogroup"))
        return child

    def _keep_awake(self, cpu: int) -> None:
        """Have something run on a CPU whenever nothing else does; its end is nothing that a run must end for."""
        name, first = f"awake-{cpu}", next(node for node in self.nodes if cpu in node.cpus)
        child = self._processes.start(
            target_program("awake"), name=name, role="awake", node=first.name, cpus=frozenset({cpu})
        )
        self._awake.append(child)

    def _idle_cpus(self) -> str:
        """What becomes of CPUs with nothing to do."""
        ended = [f"{child.name} ended: {child.last_words()}" for child in self._awake if child.exit]
        why = self._why_not_awake or "; ".join(ended)
        return f"may sleep: {why}" if why else "kept awake"

    async def _start_station(self, node: Node) -> None:
        null_echo = self._start(null_echo_command(), f"null-echo-{node.name}", "agent", node)
        null_port = await self._port_of(null_echo)
        command = self._tools.agent(node.name, null_port, self._folder / "spool" / node.name)
        agent = self._start(command, f"agent-{node.name}", "agent", node, KABENCH_TOKEN=self._token)
        self._stations[node.name] = _Station(agent, await self._port_of(agent), null_echo)

    async def _port_of(self, child: Child) -> int:
        said = await self._processes.line(child, 0, START_TIMEOUT_S)
        if not isinstance(said.get("port"), int):
            raise ClusterError(f"{child.name}: expected its port, got {said}")
        return int(said["port"])

    def _noisy_neighbours(self) -> NoisyNeighbours:
        assert self._tools.stress is not None
        return NoisyNeighbours(
            self._tools.stress,
            self._scenario.noise.stressors,
            self._folder / "tmp",
            self._longest_round_s(),
            start=lambda command, name, node: self._start(
                command, name, "noise", node, OPENBLAS_NUM_THREADS="1"
            ),
            processes=self._processes,
            accounting=self._accounting,
            clock=self._clock,
        )

    def _longest_round_s(self) -> int:
        timing, load = self._scenario.timing, self._scenario.load
        longest = timing.ready_timeout_s + timing.warm_up_s + timing.window_s + load.timeout_ms / 1000
        return round(longest + START_TIMEOUT_S)

    async def _start_target(self, decision: Decision) -> int:
        workload, node = self._workloads[decision.pod.workload], self._by_name[decision.node]
        if workload.kind == Kind.REDIS:
            return await self._start_redis(decision.pod.name, node)
        return await self._start_http_echo(decision.pod.name, node, workload)

    async def _start_http_echo(self, name: str, node: Node, workload: Target) -> int:
        child = self._start(http_echo_command(workload.http.cpu_us), name, "target", node)
        self._targets.append(child)
        return await self._port_of(child)

    async def _start_redis(self, name: str, node: Node) -> int:
        """Redis cannot pick a port of its own: give it a free one, and another when that was taken meanwhile."""
        redis = self._tools.redis
        assert redis is not None, "looked for where a target needs it"
        for _ in range(PORT_ATTEMPTS):
            port = self._tools.pick_port()
            child = self._start(redis.command(port, self._folder / "tmp"), name, "target", node)
            self._targets.append(child)
            if await self._listens(child, port):
                return port
            if "in use" not in child.output.decode(errors="replace"):
                raise ClusterError(f"{name} on {node.name} did not start: {child.last_words()}")
            self._processes.forgive(child)
        raise ClusterError(f"{name}: {PORT_ATTEMPTS} ports in a row were taken: {child.last_words()}")

    async def _listens(self, child: Child, port: int) -> bool:
        """Wait until it listens; False when it ended instead."""
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                while child.exit is None:
                    if listens(child.pid, port):
                        return True
                    await asyncio.sleep(POLL_S)
        except TimeoutError as error:
            raise ClusterError(f"{child.name} does not listen after {START_TIMEOUT_S:g} s") from error
        return False
