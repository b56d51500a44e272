"""Fresh targets as pods under a phase's scheduler, and who decided where they went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kabench.backends.base import PlacedTarget, Round
from kabench.backends.kubernetes.api import Cluster, apply_all
from kabench.backends.kubernetes.ending import ask_to_end, see_the_end
from kabench.backends.kubernetes.losses import Losses
from kabench.backends.kubernetes.naming import REPLICA, TARGET, WORKLOAD
from kabench.backends.kubernetes.objects import DEFAULT_SCHEDULER, RunSetup, target_pods
from kabench.backends.kubernetes.pods import Pod
from kabench.backends.kubernetes.table import PodTable
from kabench.backends.kubernetes.templates import target_port
from kabench.clock import Clock
from kabench.core.identity import Kind, silent_scheduler
from kabench.core.spec import Phase
from kabench.errors import ClusterError, TargetLost

PLACE_S = 30.0
"""For a scheduler to bind all replicas, and for their containers to start."""
EVENT_S = 2.0


class Targets:
    """The targets of one round at a time."""

    def __init__(
        self, cluster: Cluster, table: PodTable, setup: RunSetup, losses: Losses, clock: Clock
    ) -> None:
        self._cluster, self._table, self._setup = cluster, table, setup
        self._losses, self._clock = losses, clock
        self._targets = {target.name: target for target in setup.scenario.targets}

    async def place(self, round_: Round, hostnames: Sequence[str]) -> list[PlacedTarget]:
        """Create all replicas, and wait until they run.

        Args:
            round_: whose phase says who places them.
            hostnames: where they may go.

        Raises:
            SpecError: an image is not to be had.
            ClusterError: one is placed nowhere, or does not start.
        """
        wanted = target_pods(self._setup, round_.phase, round_.block, hostnames)
        await self.gone()
        asked_ns = self._clock.monotonic_ns()
        made = await apply_all(self._cluster, wanted)
        uids = [one["metadata"]["uid"] for one in made]
        await self._table.until(lambda: self._all_run(uids), PLACE_S, lambda: self._late(uids))
        await self._events(uids, round_.phase)
        return [self._placed(self._table.pods[uid], asked_ns, round_.phase) for uid in uids]

    async def clear(self) -> None:
        """Have them end. Noise ends next: that both are gone is waited for once."""
        if self._table.of(TARGET):
            await ask_to_end(self._cluster, self._table, self._setup, self._losses, TARGET)

    async def gone(self) -> None:
        """Wait until they have ended.

        Raises:
            ClusterError: they do not.
        """
        if self._table.of(TARGET):
            await see_the_end(self._cluster, self._table, self._setup, TARGET)

    def _all_run(self, uids: Sequence[str]) -> bool | None:
        running = 0
        for uid in uids:
            if uid in self._table.gone:
                raise TargetLost(f"pod {self._table.gone[uid].name} was deleted before it ran")
            pod = self._table.pods.get(uid)
            if pod is not None and pod.running and pod.ip:
                running += 1
            elif pod is not None:
                self._table.check(pod)
        return True if running == len(uids) else None

    def _late(self, uids: Sequence[str]) -> str:
        """Why the first one of those that do not run does not."""
        pods = [self._table.pods.get(uid) for uid in uids]
        late = [pod for pod in pods if pod is not None and not (pod.running and pod.ip)]
        if not late:
            return f"targets do not run after {PLACE_S:g} s, and the API server does not say why"
        first = late[0]
        if first.trouble:
            why = first.trouble.text
        elif not first.node:
            why = f"no scheduler has looked at pod {first.name}: see whether {_scheduler(first)} runs"
        else:
            why = f"pod {first.name} on {first.node} does not start: see whether its node is in reach"
        return f"{len(late)} of {len(uids)} targets do not run after {PLACE_S:g} s; {why}"

    async def _events(self, uids: Sequence[str], phase: Phase) -> None:
        """Give the events that say who bound the pods time to come; a scheduler need not send any."""
        if phase.pin is not None:
            return
        try:
            await self._table.until(
                lambda: True if all(uid in self._table.bound_by for uid in uids) else None,
                EVENT_S,
                lambda: "no event",
            )
        except ClusterError:
            return

    def _placed(self, pod: Pod, asked_ns: int, phase: Phase) -> PlacedTarget:
        target = self._targets[pod.label(WORKLOAD)]
        return PlacedTarget(
            name=pod.label(REPLICA),
            workload=target.name,
            kind=Kind(target.kind),
            node=pod.node,
            host=pod.ip,
            port=target_port(target),
            decided_by=decided_by(pod, phase, self._table.bound_by),
            pending_ns=self._table.bound_ns[pod.uid] - asked_ns,
        )


def decided_by(pod: Pod, phase: Phase, bound_by: Mapping[str, str]) -> str:
    """Who is to be named for a pod's placement: the pin, or the component of its `Scheduled` event."""
    if phase.pin is not None:
        return f"pin:{phase.pin}"
    return bound_by.get(pod.uid) or silent_scheduler(_scheduler(pod))


def _scheduler(pod: Pod) -> str:
    return str(pod.object["spec"].get("schedulerName") or DEFAULT_SCHEDULER)
