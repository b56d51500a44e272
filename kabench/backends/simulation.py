"""A simulated cluster without any process: slots as nodes, and a scheduler with its ledger of requests. Pure.

The ledger holds the noise's requests on every node: on a noisy node they are the stressors', on every other node an idle
decoy's with equal requests. A decoy is this entry and no process, since an idle pod is nothing but its requests. So no
policy can tell noisy nodes by their requests.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from kabench.backends.base import Node, Round
from kabench.backends.pins import nodes_for
from kabench.core.contention import Contention
from kabench.core.placement import MIB, Decision, NodeState, PodRequest, Resources, place
from kabench.core.roles import roles
from kabench.core.seeds import derive_seed
from kabench.core.spec import Phase, Requests, Scenario
from kabench.errors import ClusterError, SpecError

NOISE_WORKLOAD = "kabench-noise"

ALLOCATABLE = Resources(cpu_millis=4000, memory_bytes=8192 * MIB)
"""What every simulated node offers the simulated scheduler, whatever the machine has: a usual small worker, so that
requests matter and mean the same on every machine. Nothing enforces it."""


def slot_cpus(cpus: Sequence[int], count: int) -> list[frozenset[int]]:
    """Divide `cpus` into `count` contiguous slots; with fewer CPUs than slots, neighbours share one."""
    total = len(cpus)
    found = []
    for index in range(count):
        start = index * total // count
        end = max(start + 1, (index + 1) * total // count)
        found.append(frozenset(cpus[start:end]))
    return found


def slots(cpus: Sequence[int], count: int, boot_id: str) -> list[Node]:
    """`node-1` … `node-count` of one machine, with their share of `cpus`."""
    return [
        Node(f"node-{number}", ALLOCATABLE.cpu_millis, ALLOCATABLE.memory_bytes, own, boot_id)
        for number, own in enumerate(slot_cpus(cpus, count), start=1)
    ]


class SimulatedScheduler:
    """Decides where a round's targets go."""

    def __init__(self, scenario: Scenario, nodes: Sequence[Node]) -> None:
        self._scenario = scenario
        self._nodes = list(nodes)

    def check(self) -> None:
        """Refuse a scenario that no round could place.

        Raises:
            SpecError: a phase names a scheduler or wants noisy nodes without noise, or there are more replicas than
                can be placed.
            ClusterError: a phase wants quiet nodes and this machine cannot have any.
        """
        for phase in self._scenario.phases:
            if phase.scheduler is not None:
                raise SpecError(
                    f"phase {phase.name}: scheduler {phase.scheduler!r} needs --backend kubernetes; "
                    f"on the local backend give a policy or a pin"
                )
            if phase.standing:
                continue
            if phase.pin == "noisy" and not self._scenario.noise.nodes:
                raise SpecError(f"phase {phase.name} is pinned to noisy nodes, and noise.nodes is 0")
            candidates = self._best_case(phase)
            try:
                place("default", self.pods(), self._ledger(candidates), {}, random.Random(0))
            except ClusterError as error:
                where = f"phase {phase.name}: " if phase.pin else ""
                raise SpecError(f"{where}more replicas than can be placed: {error}") from error

    def decide(self, round_: Round, contention: Mapping[str, Contention]) -> list[Decision]:
        """Place the round's targets. The same seed and the same telemetry give the same placement.

        Raises:
            ClusterError: a replica fits nowhere, or no node has the role that the phase is pinned to.
        """
        rng = random.Random(derive_seed(round_.seed, "placement", round_.block, round_.phase.name))
        candidates = nodes_for(round_.phase, self._nodes, round_.roles, round_.noise_nodes)
        policy = round_.phase.policy or "default"
        return place(policy, self.pods(), self._ledger(candidates), contention, rng)

    def pods(self) -> list[PodRequest]:
        """The targets' replicas in the queue's order: workloads are created together, so they alternate."""
        targets = self._scenario.targets
        return [
            PodRequest(f"{target.name}-{number}", target.name, _resources(target.requests))
            for number in range(1, max(target.replicas for target in targets) + 1)
            for target in targets
            if number <= target.replicas
        ]

    def _best_case(self, phase: Phase) -> list[Node]:
        """The candidates under the draw of noisy nodes that leaves the phase the most of them."""
        count = min(self._scenario.noise.nodes, len(self._nodes))
        names = [node.name for node in self._nodes]
        draws = [names[start : start + count] for start in range(len(names) - count + 1)] if count else [[]]
        best: list[Node] = []
        failure: ClusterError | None = None
        for draw in draws:  # slots are contiguous, so neighbours are the draws with the least CPUs in noise
            found = roles({node.name: (node.boot_id, node.cpus) for node in self._nodes}, draw)
            try:
                best = max(best, nodes_for(phase, self._nodes, found, draw), key=len)
            except ClusterError as error:
                failure = failure or error
        if not best and failure is not None:
            raise failure
        return best

    def _ledger(self, nodes: Sequence[Node]) -> list[NodeState]:
        states = []
        for node in nodes:
            state = NodeState(node.name, Resources(node.cpu_millis, node.memory_bytes))
            if self._scenario.noise.nodes:
                for stressor in self._scenario.noise.stressors:
                    pod = PodRequest(stressor.kind, NOISE_WORKLOAD, _resources(stressor.requests))
                    state = state.holding(pod)
            states.append(state)
        return states


def decided_by(phase: Phase) -> str:
    """Who is to be named for a phase's placements."""
    return f"pin:{phase.pin}" if phase.pin else f"simulated:{phase.policy}"


def _resources(requests: Requests) -> Resources:
    return Resources(requests.cpu_millis, requests.memory_mib * MIB)
