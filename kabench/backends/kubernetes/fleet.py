"""The fleet on a cluster: agents, noise and targets as pods of one namespace."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from kabench.backends.affinity import bound_to, cpus_here, this_machine
from kabench.backends.base import AgentEndpoint, Casualty, Node, NoiseWork, PlacedTarget, Round
from kabench.backends.kubernetes.access import Transport
from kabench.backends.kubernetes.agents import Agents
from kabench.backends.kubernetes.api import Cluster
from kabench.backends.kubernetes.lease import Lease
from kabench.backends.kubernetes.losses import Losses
from kabench.backends.kubernetes.noise import NoiseMaker, require_room
from kabench.backends.kubernetes.objects import MOST_NOISE_S, RunSetup
from kabench.backends.kubernetes.table import PodTable
from kabench.backends.kubernetes.targets import PLACE_S, Targets
from kabench.backends.kubernetes.workers import Worker, full_names
from kabench.backends.pins import nodes_for
from kabench.clock import Clock
from kabench.core.contention import Contention

NOISE_MARGIN_S = 60.0
"""Noise outlives the longest round by so much, and then ends by itself."""


class KubernetesFleet:
    """Nodes are a cluster's workers; see `kabench.backends.base.Fleet` for the calls.

    Args:
        cluster: its API.
        table: the run's pods, kept current by the backend.
        setup: the run.
        workers: those that take part.
        transport: how agents are reached.
        lease: renewed before every round.
        clock: dates casualties and bindings.
    """

    def __init__(
        self,
        cluster: Cluster,
        table: PodTable,
        setup: RunSetup,
        workers: Sequence[Worker],
        transport: Transport,
        lease: Lease,
        clock: Clock,
    ) -> None:
        self.nodes: Sequence[Node] = tuple(worker.node for worker in workers)
        self.losses = Losses()
        self.crew = Agents(cluster, table, setup, workers, self.losses, transport)
        self._setup, self._workers, self._lease = setup, workers, lease
        self._hostname = {worker.node.name: worker.hostname for worker in workers}
        self._noise = NoiseMaker(cluster, table, setup, self.losses, clock)
        self._targets = Targets(cluster, table, setup, self.losses, clock)
        self._cluster, self._transport = cluster, transport
        self._versions: dict[str, str] = {}
        table.changed = lambda before, after: self.losses.saw(before, after, clock.monotonic_ns())

    @property
    def agents(self) -> Sequence[AgentEndpoint]:
        """The agents that live, by node."""
        return self.crew.endpoints()

    async def survey(self) -> None:
        """Ask the cluster who it is, for `environment`."""
        system = await self._cluster.get("Namespace", "kube-system") or {}
        self._versions = {
            "server": await self._cluster.version(),
            "cluster_uid": str(system.get("metadata", {}).get("uid", "unavailable")),
        }

    async def start_noise(self, round_: Round) -> None:
        """Noise pods on the noisy nodes, decoys with equal requests on the others; nodes out of reach get neither."""
        await self._lease.renew()
        if not round_.noise_nodes or not self._setup.scenario.noise.stressors:
            return
        reachable = self.crew.serving().keys()
        noisy = [name for name in round_.noise_nodes if name in reachable]
        decoys = [node.name for node in self.nodes if node.name in reachable and node.name not in noisy]
        await self._noise.start(
            [self._hostname[name] for name in noisy],
            [self._hostname[name] for name in decoys],
            [name for name in round_.noise_nodes if name not in reachable],
            require_room(self._longest_round_s(), MOST_NOISE_S),
            round_.window,
        )

    async def stop_noise(self) -> Sequence[NoiseWork]:
        """End the noise, see the targets gone too, and say what it did; decoys stay for the next round."""
        work = await self._noise.stop()
        await self._targets.gone()
        return work

    async def place(self, round_: Round, contention: Mapping[str, Contention]) -> Sequence[PlacedTarget]:
        """Let the phase's scheduler place fresh pods; `contention` is not told to it."""
        nodes = nodes_for(round_.phase, round_.nodes or self.nodes, round_.roles, round_.noise_nodes)
        return await self._targets.place(round_, [self._hostname[node.name] for node in nodes])

    def measuring(self, round_: Round) -> AbstractContextManager[None]:
        """Where the nodes share this machine's CPUs, keep to those of the noisy ones."""
        return bound_to(cpus_here(round_.nodes, round_.noise_nodes, this_machine()))

    async def clear(self) -> None:
        """Have the round's targets end; `stop_noise` and the next `place` see them gone."""
        await self._targets.clear()

    async def heal(self, silent: Collection[str] = ()) -> Sequence[str]:
        """Have silent agents replaced, and wait for those that were lost; a node out of reach is gone on without."""
        return await self.crew.heal(silent)

    def casualties(self) -> Sequence[Casualty]:
        """Pods that ended, or whose containers did, without our asking."""
        return self.losses.taken()

    async def cpu_usage(self) -> None:
        """CPU time by CPU is nothing that an API server tells."""
        return

    def environment(self) -> Mapping[str, Any]:
        """The cluster's versions, and the images that answered to the scenario's names."""
        images = self._setup.scenario.kubernetes.images
        digests: dict[str, str] = {}
        for worker in self._workers:
            digests.update(worker.images)
        return {
            "cluster": {
                "context": self._cluster.context,
                "transport": self._transport,
                "namespace": self._setup.namespace,
                **self._versions,
            },
            "nodes": {worker.node.name: dict(worker.info) for worker in self._workers},
            "images": {role: _image(name, digests) for role, name in images.model_dump().items()},
            "agent_image_ids": dict(self.crew.image_ids()),
            "decoys": "idle pods with the noise's requests, on every other node that takes part",
        }

    def _longest_round_s(self) -> float:
        timing, load = self._setup.scenario.timing, self._setup.scenario.load
        longest = timing.ready_timeout_s + timing.warm_up_s + timing.window_s + load.timeout_ms / 1000
        return longest + PLACE_S + NOISE_MARGIN_S


def _image(name: str, digests: Mapping[str, str]) -> dict[str, str]:
    """A scenario's image with its digest."""
    found = (digests[full] for full in full_names(name) if full in digests)
    return {"name": name, "digest": next(found, "unavailable")}
