"""A run's beginning as a check: its objects in a namespace of their own, agents, schedulers' canaries, and away again."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from kabench.backends.base import AgentEndpoint, Node
from kabench.backends.kubernetes.access import Transport
from kabench.backends.kubernetes.agents import Agents
from kabench.backends.kubernetes.api import Cluster, apply_all
from kabench.backends.kubernetes.cleaning import remove
from kabench.backends.kubernetes.doctor import Finding, some
from kabench.backends.kubernetes.losses import Losses
from kabench.backends.kubernetes.manifests import Object
from kabench.backends.kubernetes.naming import WORKLOAD
from kabench.backends.kubernetes.objects import (
    RunSetup,
    decoy_pods,
    noise_pods,
    run_objects,
    scheduler_canary,
    target_pods,
)
from kabench.backends.kubernetes.refusals import Refused
from kabench.backends.kubernetes.table import PodTable
from kabench.backends.kubernetes.workers import Worker
from kabench.backends.tasks import all_of, undisturbed
from kabench.clock import Clock
from kabench.core.spec import NS_PER_S
from kabench.errors import ClusterError, KabenchError

CANARY_S = 10.0
NOISE_S = 60
"""Of noise pods that are asked about and never made."""


@dataclass(frozen=True)
class Trial:
    """What the trial has brought up. `endpoints` is empty where the agents did not come up."""

    nodes: tuple[Node, ...]
    findings: tuple[Finding, ...]
    endpoints: tuple[AgentEndpoint, ...] = field(default=())


@contextlib.asynccontextmanager
async def trial(
    cluster: Cluster,
    setup: RunSetup,
    workers: Sequence[Worker],
    names: Sequence[str],
    transport: Transport,
    clock: Clock,
) -> AsyncIterator[Trial]:
    """Bring a run up as far as its agents, and remove it at the end, also when cancelled.

    Args:
        cluster: where.
        setup: the run that it is like.
        workers: those that take part.
        names: of the schedulers that must bind a pod.
        transport: how agents are reached.
        clock: tells how long it takes.

    Raises:
        ClusterError: the namespace cannot be made or removed, or the API server does not answer.
    """
    table = PodTable(cluster, setup.namespace, clock)
    agents = Agents(cluster, table, setup, workers, Losses(), transport)
    namespace, *rest = run_objects(setup)
    try:
        await cluster.apply(namespace)
        async with table.watching():
            admitted = await _admission(cluster, setup, rest)
            calls = {name: _scheduler(cluster, table, setup, name, clock) for name in names}
            up, *bound = await all_of({"agents": _agents(cluster, agents, setup, rest, clock), **calls})
            endpoints = tuple(agents.endpoints()) if up.level == "ok" else ()
            yield Trial(tuple(worker.node for worker in workers), (admitted, *bound, up), endpoints)
    finally:
        await undisturbed(remove(cluster, setup.namespace), "remove the trial")


def round_pods(setup: RunSetup) -> list[Object]:
    """A pod of each sort that a run makes: agent, targets, noise, decoys."""
    [agents] = [one for one in run_objects(setup) if one["kind"] == "DaemonSet"]
    template = agents["spec"]["template"]
    agent = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**template["metadata"], "name": "agent", "namespace": setup.namespace},
        "spec": template["spec"],
    }
    targets: dict[str, Object] = {}
    for pod in target_pods(setup, setup.scenario.phases[0], 1, setup.nodes):
        targets.setdefault(_sort(pod), pod)
    loud = setup.nodes[:1] if setup.scenario.noise.nodes else ()
    noise = [
        *noise_pods(setup, loud, NOISE_S, "trial"),
        *decoy_pods(setup, loud, NOISE_S, "trial"),
    ]
    return [agent, *targets.values(), *noise]


async def _admission(cluster: Cluster, setup: RunSetup, rest: Sequence[Object]) -> Finding:
    """Ask for each sort of pod whether it would be let in: Pod Security, and whatever else the cluster has."""
    others = [one for one in rest if one["kind"] != "DaemonSet"]
    pods = round_pods(setup)
    try:
        await apply_all(cluster, others)
        await apply_all(cluster, pods, dry_run=True)
    except Refused as error:
        return Finding("admission", "problem", str(error), "let it in, or change what the scenario asks for")
    return Finding("admission", "ok", f"all {len(pods)} sorts of pods are let in, Pod Security is restricted")


async def _scheduler(cluster: Cluster, table: PodTable, setup: RunSetup, name: str, clock: Clock) -> Finding:
    """Whether a scheduler of that name binds a pod."""
    began_ns = clock.monotonic_ns()
    try:
        made = await cluster.apply(scheduler_canary(setup, name))
        uid = made["metadata"]["uid"]

        def why() -> str:
            pod = table.pods.get(uid)
            trouble = pod.trouble if pod else None
            return trouble.text if trouble else f"{name} has bound no pod within {CANARY_S:g} s"

        bound_ns = await table.until(lambda: table.bound_ns.get(uid), CANARY_S, why)
    except ClusterError as error:
        return Finding(
            "scheduler", "problem", str(error), "correct the name, or see whether that scheduler's pods run"
        )
    return Finding("scheduler", "ok", f"{name} bound a pod after {(bound_ns - began_ns) / NS_PER_S:.1f} s")


async def _agents(
    cluster: Cluster, agents: Agents, setup: RunSetup, rest: Sequence[Object], clock: Clock
) -> Finding:
    """Whether an agent comes up on every worker."""
    began_ns = clock.monotonic_ns()
    try:
        await apply_all(cluster, [one for one in rest if one["kind"] == "DaemonSet"])
        await agents.ready()
    except KabenchError as error:
        return Finding("agents", "problem", str(error))
    seconds = (clock.monotonic_ns() - began_ns) / NS_PER_S
    return Finding("agents", "ok", f"one is ready on each of {some(setup.nodes)} after {seconds:.1f} s")


def _sort(pod: Object) -> str:
    """What the pods of one workload have in common."""
    return str(pod["metadata"]["labels"].get(WORKLOAD, ""))
