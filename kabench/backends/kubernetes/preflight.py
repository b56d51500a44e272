"""Before a run touches a cluster: its workers, other runs, and what an earlier session of the same run left."""

from __future__ import annotations

from dataclasses import dataclass

from kabench.backends.kubernetes.api import Cluster
from kabench.backends.kubernetes.cleaning import LOOK_S, is_gone
from kabench.backends.kubernetes.holding import agent_pods, find_runs, token_in
from kabench.backends.kubernetes.naming import namespace_of
from kabench.backends.kubernetes.objects import pick_nodes
from kabench.backends.kubernetes.workers import Worker, left_out, worker
from kabench.backends.patience import comes_true
from kabench.errors import ClusterError

MOST_NAMED = 4


@dataclass(frozen=True)
class Held:
    """What an earlier session of the run left: its agents go on with its token, on its nodes."""

    token: str
    nodes: tuple[str, ...]


async def choose_workers(cluster: Cluster, wanted: int, seed: int, held: Held | None) -> list[Worker]:
    """The workers that take part, by name: those of the session before, or `wanted` of all that take pods.

    Raises:
        ClusterError: there are too few.
    """
    found = {one["metadata"]["name"]: one for one in await cluster.list("Node")}
    if held and set(held.nodes) <= found.keys() and len(held.nodes) == wanted:
        return [worker(found[name]) for name in held.nodes]
    reasons = left_out(found.values())
    fit = [name for name in found if name not in reasons]
    if len(fit) < wanted:
        told = [f"{name}: {reason}" for name, reason in reasons.items()]
        detail = f" ({', '.join(told[:MOST_NAMED])})" if told else ""
        raise ClusterError(
            f"{len(fit)} workers of {cluster.context} take pods and {wanted} are wanted{detail}; "
            f"give --agents {len(fit) or 1} or fewer, or add workers"
        )
    return [worker(found[name]) for name in pick_nodes(fit, wanted, seed)]


async def refuse_beside_others(cluster: Cluster, run: str, now_ns: int) -> None:
    """Refuse to run beside another run, whose noise and load would be in the figures.

    Args:
        cluster: where.
        run: the id of our own.
        now_ns: realtime.

    Raises:
        ClusterError: another run is active.
    """
    for other in await find_runs(cluster):
        if other.run != run and other.active(now_ns):
            raise ClusterError(
                f"the run {other.run} is active in {cluster.context} (namespace {other.namespace}, until {other.until}): "
                f"wait for it; if it died, kabench clean --run {other.run}; to run beside it all the same, --alongside"
            )


async def held_by(cluster: Cluster, run: str, *, gone_s: float = 30.0) -> Held | None:
    """What the run's namespace holds, if an earlier session left one; one that is going away is waited for.

    Raises:
        ClusterError: it does not go away.
    """
    name = namespace_of(run)
    namespace = await cluster.get("Namespace", name)
    if namespace and namespace["metadata"].get("deletionTimestamp"):
        if not await comes_true(lambda: is_gone(cluster, name), gone_s, LOOK_S):
            raise ClusterError(
                f"the namespace {name} is going away, and still there after {gone_s:g} s; try later"
            )
        return None
    if namespace is None:
        return None
    token = await token_in(cluster, name)
    if not token:
        return None
    return Held(token, tuple(sorted({pod.node for pod in await agent_pods(cluster, name) if pod.node})))
