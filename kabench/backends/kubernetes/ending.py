"""Ending pods of a run that goes on."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Sequence

from kabench.backends.kubernetes.api import Cluster
from kabench.backends.kubernetes.losses import Losses
from kabench.backends.kubernetes.naming import ROLE, run_labels, selector
from kabench.backends.kubernetes.objects import RunSetup
from kabench.backends.kubernetes.pods import Pod
from kabench.backends.kubernetes.table import PodTable
from kabench.backends.tasks import all_of
from kabench.errors import ClusterError

END_S = 10.0
"""Pods end within their grace of a few seconds; others are on nodes out of reach, whether the cluster knows or not."""
FORCED_S = 5.0


async def end_pods(cluster: Cluster, table: PodTable, setup: RunSetup, losses: Losses, *roles: str) -> None:
    """End the pods of these roles, and wait until they are gone.

    Raises:
        ClusterError: some are still there.
    """
    await ask_to_end(cluster, table, setup, losses, *roles)
    await see_the_end(cluster, table, setup, *roles)


async def ask_to_end(cluster: Cluster, table: PodTable, setup: RunSetup, losses: Losses, *roles: str) -> None:
    """Tell the pods of these roles to end; that they do is no loss."""
    losses.expect(table.of(*roles))
    await cluster.delete_all("Pod", setup.namespace, _labels(setup, roles))


async def see_the_end(cluster: Cluster, table: PodTable, setup: RunSetup, *roles: str) -> None:
    """Wait until pods that were told to end are gone; those on nodes out of reach are given up.

    Raises:
        ClusterError: some are still there.
    """

    async def force() -> None:
        await cluster.delete_all("Pod", setup.namespace, _labels(setup, roles), grace_s=0)

    await _see_gone(table, lambda: table.of(*roles), force)


async def end_each(
    cluster: Cluster, table: PodTable, setup: RunSetup, losses: Losses, pods: Sequence[Pod]
) -> None:
    """End these pods, and wait until they are gone.

    Raises:
        ClusterError: some are still there.
    """
    losses.expect(pods)
    uids = {pod.uid for pod in pods}

    def left() -> list[Pod]:
        return [pod for uid, pod in table.pods.items() if uid in uids]

    async def end(grace_s: int | None = None) -> None:
        calls = {
            pod.name: cluster.delete("Pod", pod.name, setup.namespace, grace_s=grace_s) for pod in left()
        }
        await all_of(calls)

    await end()
    await _see_gone(table, left, lambda: end(0))


async def _see_gone(
    table: PodTable, left: Callable[[], list[Pod]], force: Callable[[], Awaitable[None]]
) -> None:
    def none_left() -> bool | None:
        return None if left() else True

    def none_can_end() -> bool | None:
        return True if all(pod.out_of_reach for pod in left()) else None

    def why() -> str:
        names = ", ".join(pod.name for pod in left())
        return f"pods do not end: {names}; see whether their nodes are in reach"

    with contextlib.suppress(ClusterError):
        await table.until(none_can_end, END_S, why)
    if left():
        await force()
        await table.until(none_left, FORCED_S, why)


def _labels(setup: RunSetup, roles: Sequence[str]) -> str:
    return f"{selector(run_labels(setup.run))},{ROLE} in ({','.join(roles)})"
