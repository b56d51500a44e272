"""Brings the fleet up in a cluster, and takes all of it down again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path

from kabench.backends.base import Fleet
from kabench.backends.kubernetes.access import Access
from kabench.backends.kubernetes.api import Cluster, apply_all, open_cluster
from kabench.backends.kubernetes.cleaning import remove
from kabench.backends.kubernetes.ending import end_pods
from kabench.backends.kubernetes.fleet import KubernetesFleet
from kabench.backends.kubernetes.lease import Lease, expiry
from kabench.backends.kubernetes.naming import CANARY, DECOY, NOISE, QUOTA, TARGET
from kabench.backends.kubernetes.objects import (
    RunSetup,
    check_scenario,
    run_objects,
    scheduler_canary,
    schedulers,
)
from kabench.backends.kubernetes.preflight import (
    choose_workers,
    held_by,
    refuse_beside_others,
)
from kabench.backends.kubernetes.table import PodTable
from kabench.backends.patience import comes_true
from kabench.backends.tasks import all_of, undisturbed
from kabench.clock import Clock, SystemClock
from kabench.core.plan import Costs, planned_s
from kabench.core.scenario import KUBERNETES_ARMS
from kabench.core.spec import Scenario
from kabench.errors import ClusterError, KabenchError

log = logging.getLogger(__name__)

COSTS = Costs(round_s=15.0, start_s=20.0)
"""Rounds took 12.6 to 16.4 s beside their warm-up and window on six workers that share two CPUs."""

CANARY_S = 10.0
QUOTA_S, QUOTA_LOOK_S = 10.0, 0.05


class KubernetesBackend:
    """A cluster's workers as nodes, with agents from a DaemonSet.

    Args:
        access: which cluster, and how agents are reached.
        clock: dates casualties and the expiry.
    """

    name = "kubernetes"
    placement_note = ""
    costs = COSTS
    arms = KUBERNETES_ARMS
    quick_arms = 3

    def __init__(self, access: Access, clock: Clock | None = None) -> None:
        self._access, self._clock = access, clock or SystemClock()

    @contextlib.asynccontextmanager
    async def started(self, scenario: Scenario, run: str, folder: Path, token: str) -> AsyncIterator[Fleet]:
        """Bring up a namespace for the run with an agent on `scenario.agents` workers; nothing is kept in `folder`.

        Raises:
            ClusterError: another run is active, there are too few workers, a scheduler does not answer, or the API server
                refuses what is needed.
            SpecError: the scenario asks for what no cluster can do, an image is not to be had, or the context is not ours.
        """
        check_scenario(scenario)
        async with open_cluster(self._access, self._clock) as cluster:
            if not self._access.alongside:
                await refuse_beside_others(cluster, run, self._clock.realtime_ns())
            held = await held_by(cluster, run)
            workers = await choose_workers(cluster, scenario.agents, scenario.seed, held)
            setup = RunSetup(
                run,
                scenario,
                held.token if held else token,
                tuple(sorted(worker.hostname for worker in workers)),
                expiry(self._clock, _longest_s(scenario)),
            )
            table = PodTable(cluster, setup.namespace, self._clock)
            fleet = KubernetesFleet(
                cluster,
                table,
                setup,
                workers,
                self._access.transport,
                Lease(cluster, setup, self._clock),
                self._clock,
            )
            async with (
                table.watching(),
                _removal(cluster, setup, keep=held is not None) as kept,
            ):
                await self._bring_up(cluster, table, fleet, setup)
                kept.clear()
                yield fleet

    async def _bring_up(
        self, cluster: Cluster, table: PodTable, fleet: KubernetesFleet, setup: RunSetup
    ) -> None:
        namespace, *rest = run_objects(setup)
        await cluster.apply(namespace)
        agents = [one for one in rest if one["kind"] == "DaemonSet"]
        others = [one for one in rest if one["kind"] != "DaemonSet"]
        await apply_all(cluster, others)
        await end_pods(cluster, table, setup, fleet.losses, TARGET, NOISE, DECOY, CANARY)
        await _quota_is_seen(cluster, setup)
        await apply_all(cluster, agents)
        calls = {
            f"canary of {name}": _canary(cluster, table, setup, name) for name in schedulers(setup.scenario)
        }
        await all_of({"agents": fleet.crew.ready(), "survey": fleet.survey(), **calls})


@contextlib.asynccontextmanager
async def _removal(cluster: Cluster, setup: RunSetup, *, keep: bool) -> AsyncIterator[asyncio.Event]:
    """Remove the run at the end, however it comes.

    While the event that is yielded is set, what an earlier session left stays: its agents may hold logs.
    """
    kept = asyncio.Event()
    if keep:
        kept.set()
    try:
        yield kept
    finally:
        if kept.is_set():
            log.warning(
                "%s is left as it was, since its agents may hold logs: kabench collect %s, then kabench clean --run %s",
                setup.namespace,
                setup.run,
                setup.run,
            )
        else:
            await undisturbed(_remove(cluster, setup), "remove the run")


async def _remove(cluster: Cluster, setup: RunSetup) -> None:
    """Nothing is raised: how the run ended is not to be hidden by how its removal did."""
    try:
        await remove(cluster, setup.namespace)
    except KabenchError as error:
        log.warning(
            "the run %s could not be removed: %s; later: kabench clean --run %s", setup.run, error, setup.run
        )


async def _quota_is_seen(cluster: Cluster, setup: RunSetup) -> None:
    """Wait until the quota's controller has counted: before, every pod is refused."""

    async def seen() -> bool:
        quota = await cluster.get("ResourceQuota", QUOTA, setup.namespace) or {}
        return bool(quota.get("status", {}).get("hard"))

    if not await comes_true(seen, QUOTA_S, QUOTA_LOOK_S):
        raise ClusterError(
            f"the quota in {setup.namespace} is not looked at: see whether kube-controller-manager runs"
        )


async def _canary(cluster: Cluster, table: PodTable, setup: RunSetup, scheduler: str) -> None:
    """Have a scheduler bind a pod.

    Raises:
        ClusterError: it does not.
    """
    made = await cluster.apply(scheduler_canary(setup, scheduler))
    name, uid = made["metadata"]["name"], made["metadata"]["uid"]

    def bound() -> bool | None:
        return True if uid in table.bound_ns else None

    def why() -> str:
        pod = table.pods.get(uid)
        if pod is not None and pod.trouble:
            return f"the scheduler {scheduler} places no pods: {pod.trouble.text}"
        return (
            f"no scheduler named {scheduler} is bound to answer: it has not bound a pod within {CANARY_S:g} s; "
            f"correct the phase's scheduler, or see whether its pods run"
        )

    await table.until(bound, CANARY_S, why)
    await cluster.delete("Pod", name, setup.namespace, grace_s=0)


def _longest_s(scenario: Scenario) -> float:
    """How long a run takes at most, as it is planned."""
    return scenario.timing.budget_s or planned_s(scenario, reserve=True, costs=COSTS)
