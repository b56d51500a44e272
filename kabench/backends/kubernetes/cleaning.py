"""Takes a run out of the cluster. All that a run makes is in its namespace: it makes nothing cluster-wide beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from kabench.backends.kubernetes.api import Cluster
from kabench.backends.kubernetes.holding import HeldRun
from kabench.backends.kubernetes.naming import AGENTS
from kabench.backends.kubernetes.workers import is_ready
from kabench.backends.patience import comes_true
from kabench.errors import ClusterError, SpecError

GONE_S = 60.0
"""How long a namespace may take to go."""
GRACE_S = 10.0
"""How long pods may take to end by themselves; ours ask for 3 s at most."""
LOOK_S = 0.25


def to_remove(
    runs: Sequence[HeldRun], now_ns: int, *, run: str | None, expired: bool, everything: bool, sure: bool
) -> list[HeldRun]:
    """Which of `runs` the flags mean.

    A run that lives keeps its namespace from expiring; until it has, the run may be active, and only its name (or `sure`)
    removes it.

    Args:
        runs: all that there are.
        now_ns: realtime.
        run: the id of one, or None.
        expired: those whose time is over.
        everything: all.
        sure: all of them, also those that may be active.

    Raises:
        SpecError: the flags contradict each other, or some of all may be active and `sure` was not given.
    """
    if sum((run is not None, expired, everything)) > 1:
        raise SpecError("--run, --expired and --all: give one of them")
    if run is not None:
        return [one for one in runs if one.run == run]
    if expired:
        return [one for one in runs if not one.active(now_ns)]
    if not everything:
        return []
    active = [one.run for one in runs if one.active(now_ns)]
    if active and not sure:
        raise SpecError(
            f"--all: may still be active: {', '.join(active)}; "
            f"add --yes to remove them too, or remove one by its name with --run"
        )
    return list(runs)


async def remove(cluster: Cluster, namespace: str) -> None:
    """Delete a run's namespace and wait until it is gone. Idempotent.

    Its controller looks at a namespace 5 s after it was told to go, so it is told at once and pods end meanwhile; where
    some are left by then, it looks again after half of their grace period. Pods on nodes that are out of reach are deleted
    without waiting for their kubelets.

    Raises:
        ClusterError: it is not gone in time, or the API server does not answer, or refuses.
    """
    try:
        async with asyncio.timeout(GONE_S):
            await _ask_pods_to_end(cluster, namespace)
            await cluster.delete("Namespace", namespace)
            await _see_pods_gone(cluster, namespace)
            await comes_true(lambda: is_gone(cluster, namespace), GONE_S, LOOK_S)
    except TimeoutError as error:
        raise ClusterError(
            f"the namespace {namespace} is not gone after {GONE_S:g} s: {await _what_is_left(cluster, namespace)}; "
            f"once that is mended, it goes by itself"
        ) from error


async def is_gone(cluster: Cluster, namespace: str) -> bool:
    """Whether there is no such namespace."""
    return await cluster.get("Namespace", namespace) is None


async def _ask_pods_to_end(cluster: Cluster, namespace: str) -> None:
    # first whoever would make them anew
    await cluster.delete("DaemonSet", AGENTS, namespace)
    nodes, pods = await cluster.list("Node"), await cluster.list("Pod", namespace)
    in_reach = {node["metadata"]["name"] for node in nodes if is_ready(node)}
    bound = {pod["metadata"]["name"]: pod["spec"].get("nodeName") for pod in pods}
    await cluster.delete_all("Pod", namespace, "")
    await _end(cluster, namespace, [name for name, node in bound.items() if node and node not in in_reach])


async def _see_pods_gone(cluster: Cluster, namespace: str) -> None:
    """Wait for the pods' end; those that do not end are deleted without asking their kubelets."""

    async def none_left() -> bool:
        return not await cluster.list("Pod", namespace)

    if not await comes_true(none_left, GRACE_S, LOOK_S):
        left = await cluster.list("Pod", namespace)
        await _end(cluster, namespace, [pod["metadata"]["name"] for pod in left])


async def _end(cluster: Cluster, namespace: str, names: Sequence[str]) -> None:
    """Delete pods without asking their kubelets."""
    for name in names:
        await cluster.delete("Pod", name, namespace, grace_s=0)


async def _what_is_left(cluster: Cluster, namespace: str) -> str:
    """What the namespace's controller says, or what there still is."""
    found = await cluster.get("Namespace", namespace)
    if found is None:
        return "it went just now"
    said = [
        str(one.get("message"))
        for one in found.get("status", {}).get("conditions") or ()
        if one.get("status") == "True" and one.get("message")
    ]
    pods = [pod["metadata"]["name"] for pod in await cluster.list("Pod", namespace)]
    return "; ".join(said) or (f"pods {', '.join(pods)} do not end" if pods else "nobody says why")
