"""The agents' pods: brought up, followed, and brought back."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from kabench.backends.base import AgentEndpoint
from kabench.backends.kubernetes.access import Transport
from kabench.backends.kubernetes.api import Cluster
from kabench.backends.kubernetes.ending import end_each
from kabench.backends.kubernetes.holding import endpoint
from kabench.backends.kubernetes.losses import Losses
from kabench.backends.kubernetes.naming import AGENT, AGENTS
from kabench.backends.kubernetes.objects import RunSetup
from kabench.backends.kubernetes.pods import Pod
from kabench.backends.kubernetes.refusals import QUOTA_UNSEEN, Refused
from kabench.backends.kubernetes.table import PodTable
from kabench.backends.kubernetes.workers import Worker, is_ready
from kabench.errors import ClusterError

ROLLOUT_S = 120.0
"""An image may have to be pulled."""
HEAL_S = 30.0
REFUSALS_AFTER_S = 6.0
"""Refusals of the DaemonSet's pods are looked for after so long: the first ones pass by themselves."""


class Agents:
    """The DaemonSet's pods on the run's workers."""

    def __init__(
        self,
        cluster: Cluster,
        table: PodTable,
        setup: RunSetup,
        workers: Sequence[Worker],
        losses: Losses,
        transport: Transport,
    ) -> None:
        self._cluster, self._table, self._setup = cluster, table, setup
        self._names = [worker.node.name for worker in workers]
        self._losses, self._transport = losses, transport
        self._known: dict[str, tuple[str, int]] = {}
        self._given_up: set[str] = set()

    async def ready(self) -> None:
        """Wait until all of them serve.

        Raises:
            SpecError: their image is not to be had.
            ClusterError: one does not come up; the message says why.
        """
        try:
            await self._all_serve(REFUSALS_AFTER_S)
        except ClusterError:
            await self._raise_refusals()
            await self._all_serve(ROLLOUT_S - REFUSALS_AFTER_S)
        self._known = self._seen()

    def serving(self) -> dict[str, Pod]:
        """Those that can be called, by node."""
        found = {pod.node: pod for pod in self._table.of(AGENT) if pod.ready and pod.ip and not pod.ending}
        return {name: found[name] for name in self._names if name in found}

    def endpoints(self) -> list[AgentEndpoint]:
        """How to call those that serve, by node."""
        namespace, token = self._setup.namespace, self._setup.token
        pods = self.serving().values()
        return [endpoint(self._cluster, pod, namespace, token, self._transport) for pod in pods]

    async def heal(self, silent: Collection[str]) -> list[str]:
        """Have the DaemonSet replace the silent ones, and wait for all that are missing.

        A node that is out of reach is waited for once, since without its agent every block is void; then the run goes on
        without it, until it is in reach again.

        Returns the nodes with another agent than before, or with none any more.
        """
        for name, pod in self.serving().items():
            if name in silent and self._known.get(name) == (pod.uid, pod.restarts):
                await self._replace(pod)
        missing = [name for name in self._names if name not in self.serving()]
        awaited = [name for name in missing if name not in self._given_up or await self._in_reach(name)]
        if awaited:
            await self._back(awaited)
        self._given_up = {name for name in missing if name not in self.serving()}
        seen, known = self._seen(), self._known
        self._known = seen
        return [name for name in self._names if seen.get(name) != known.get(name)]

    def image_ids(self) -> Mapping[str, str]:
        """The digests of the agents' containers, by container."""
        return {
            container["name"]: str(container.get("imageID", ""))
            for pod in self.serving().values()
            for container in pod.containers
        }

    def _seen(self) -> dict[str, tuple[str, int]]:
        return {name: (pod.uid, pod.restarts) for name, pod in self.serving().items()}

    async def _all_serve(self, seconds: float) -> None:
        def check() -> bool | None:
            for pod in self._table.of(AGENT):
                if not pod.ending and not pod.ready:
                    self._table.check(pod)
            return True if len(self.serving()) == len(self._names) else None

        await self._table.until(check, seconds, self._missing)

    def _missing(self) -> str:
        serving = self.serving()
        missing = [name for name in self._names if name not in serving]
        troubles = [pod.trouble.text for pod in self._table.of(AGENT) if pod.trouble]
        why = troubles[0] if troubles else f"kubectl -n {self._setup.namespace} describe pods says why"
        return f"no agent is ready on {', '.join(missing)} after {ROLLOUT_S:g} s: {why}"

    async def _raise_refusals(self) -> None:
        """Raise what the API server answered to the DaemonSet's controller, if it was refused."""
        if len(self._table.of(AGENT)) >= len(self._names):
            return
        for event in await self._cluster.list("Event", self._setup.namespace, fields="reason=FailedCreate"):
            about = event.get("regarding", {})
            if about.get("kind") == "DaemonSet" and QUOTA_UNSEEN not in event.get("note", ""):
                raise ClusterError(f"the agents' pods are refused: {event.get('note')}")

    async def _replace(self, pod: Pod) -> None:
        """End an agent that lives and does not answer; where its node is out of reach, it is forgotten."""
        try:
            await end_each(self._cluster, self._table, self._setup, self._losses, [pod])
        except Refused:
            raise
        except ClusterError:
            return  # it is gone on without

    async def _back(self, names: Sequence[str]) -> None:
        """Wait for agents on these nodes; whoever does not come back is gone on without."""
        try:
            await self._table.until(
                lambda: True if set(names) <= self.serving().keys() else None, HEAL_S, lambda: AGENTS
            )
        except Refused:
            raise
        except ClusterError:
            return

    async def _in_reach(self, name: str) -> bool:
        found = await self._cluster.get("Node", name)
        return found is not None and is_ready(found)
