"""A backend without processes: for tests of what stands above a backend, and for trying a scenario's placements.

Nodes, placements and their rules are those of the local backend's simulated scheduler; agents are whatever the test
serves. Everything that is asked of the fleet is written down in `FakeFleet.calls`, and what goes wrong is scripted.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from kabench.backends.base import (
    AgentEndpoint,
    Casualty,
    CpuUsage,
    Fleet,
    Node,
    NoiseWork,
    PlacedTarget,
    Round,
    standing_targets,
)
from kabench.backends.simulation import SimulatedScheduler, decided_by, slots
from kabench.clock import Clock, ManualClock
from kabench.core.contention import Contention
from kabench.core.identity import Kind
from kabench.core.plan import LOCAL
from kabench.core.scenario import LOCAL_ARMS
from kabench.core.spec import Scenario
from kabench.errors import KabenchError

BOOT_ID = "fake"
FIRST_PORT = 20_000


def unserved(node: str, token: str) -> AgentEndpoint:
    """An endpoint at which nothing answers."""
    return AgentEndpoint(node, f"http://{node}.invalid", token)


class FakeFleet:
    """A fleet in memory. Change its attributes, or call `lose`, to script what happens.

    Attributes:
        calls: the names of the calls so far, with the window where there is one: ("place", "001-default").
        failures: raised by the call of that name ("start_noise", "place", …), once each.
        usage: what `cpu_usage` answers.
        noise_ops: what each stressor is said to have done.
    """

    def __init__(
        self, scenario: Scenario, nodes: Sequence[Node], endpoints: Mapping[str, AgentEndpoint], clock: Clock
    ) -> None:
        self.nodes = tuple(nodes)
        self.calls: list[tuple[str, ...]] = []
        self.failures: dict[str, KabenchError] = {}
        self.usage: CpuUsage | None = None
        self.noise_ops = 1000.0
        self._scenario, self._endpoints, self._clock = scenario, dict(endpoints), clock
        self._scheduler = SimulatedScheduler(scenario, nodes)
        self._dead: set[str] = set()
        self._fallen: list[Casualty] = []
        self._noise: Round | None = None
        self._placed = 0

    def lose(self, role: str, name: str, node: str, reason: str = "killed by SIGKILL") -> None:
        """Something of ours ends before its time, now; with role "agent" the node's agent is gone until `heal`."""
        if role == "agent":
            self._dead.add(node)
        self._fallen.append(Casualty(role, name, node, self._clock.monotonic_ns(), reason))

    @property
    def agents(self) -> Sequence[AgentEndpoint]:
        """The agents that live, by node."""
        return [self._endpoints[node.name] for node in self.nodes if node.name not in self._dead]

    async def start_noise(self, round_: Round) -> None:
        """Note which nodes are noisy."""
        self._note("start_noise", round_.window)
        self._noise = round_

    async def stop_noise(self) -> Sequence[NoiseWork]:
        """One entry a stressor and noisy node."""
        self._note("stop_noise")
        ended, self._noise = self._noise, None
        stressors = self._scenario.noise.stressors
        return [
            NoiseWork(node, stressor.kind, "fake", 1.0, self.noise_ops)
            for node in (ended.noise_nodes if ended else ())
            for stressor in stressors
        ]

    async def place(self, round_: Round, contention: Mapping[str, Contention]) -> Sequence[PlacedTarget]:
        """Place as the simulated scheduler does; every replica gets a port of its own that nothing listens on."""
        self._note("place", round_.window)
        if round_.phase.standing:
            return standing_targets(self._scenario, round_.phase)
        kinds = {target.name: Kind(target.kind) for target in self._scenario.targets}
        placed = []
        for decision in self._scheduler.decide(round_, contention):
            self._placed += 1
            placed.append(
                PlacedTarget(
                    name=decision.pod.name,
                    workload=decision.pod.workload,
                    kind=kinds[decision.pod.workload],
                    node=decision.node,
                    host="127.0.0.1",
                    port=FIRST_PORT + self._placed,
                    decided_by=decided_by(round_.phase),
                    reason=decision.scores,
                )
            )
        return placed

    def measuring(self, round_: Round) -> contextlib.AbstractContextManager[None]:
        """There is nothing to keep out of the way of."""
        self._note("measuring", round_.window)
        return contextlib.nullcontext()

    async def clear(self) -> None:
        """Forget the targets."""
        self._note("clear")

    async def heal(self, silent: Collection[str] = ()) -> Sequence[str]:
        """Bring back every agent that was lost, and say the same of those that are silent."""
        self._note("heal")
        healed = [node.name for node in self.nodes if node.name in self._dead or node.name in silent]
        self._dead.clear()
        return healed

    def casualties(self) -> Sequence[Casualty]:
        """What was lost since the last call."""
        fallen, self._fallen = self._fallen, []
        return fallen

    async def cpu_usage(self) -> CpuUsage | None:
        """What the test put into `usage`."""
        return self.usage

    def environment(self) -> Mapping[str, Any]:
        """That it is a fake."""
        return {"backend": "fake"}

    def _note(self, *call: str) -> None:
        self.calls.append(call)
        if call[0] in self.failures:
            raise self.failures.pop(call[0])


class FakeBackend:
    """Slots over `cpus` imaginary CPUs, and a fleet in memory.

    Args:
        cpus: how many CPUs the imaginary machine has.
        endpoint: how to reach the agent of a node, given the node's name and the run's token.
        script: called with the fleet as soon as it is there.
        clock: dates casualties.
    """

    name = "fake"
    placement_note = "simulated placement"
    costs = LOCAL
    arms = LOCAL_ARMS
    quick_arms = 2

    def __init__(
        self,
        cpus: int = 2,
        endpoint: Callable[[str, str], AgentEndpoint] = unserved,
        script: Callable[[FakeFleet], None] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._cpus, self._endpoint, self._script = cpus, endpoint, script
        self._clock = clock or ManualClock()
        self.fleets: list[FakeFleet] = []
        self.ended = 0

    @contextlib.asynccontextmanager
    async def started(self, scenario: Scenario, run: str, folder: Path, token: str) -> AsyncIterator[Fleet]:
        """A new fleet, kept in `fleets`; `ended` counts those whose context was left.

        Raises:
            ClusterError, SpecError: as the simulated scheduler's check says.
        """
        nodes = slots(range(self._cpus), scenario.agents, BOOT_ID)
        SimulatedScheduler(scenario, nodes).check()
        endpoints = {node.name: self._endpoint(node.name, token) for node in nodes}
        fleet = FakeFleet(scenario, nodes, endpoints, self._clock)
        self.fleets.append(fleet)
        if self._script is not None:
            self._script(fleet)
        try:
            yield fleet
        finally:
            self.ended += 1
