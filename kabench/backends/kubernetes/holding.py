"""The runs that a cluster holds, live ones and what is left of others, and how their agents are reached."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from kabench.backends.base import AgentEndpoint
from kabench.backends.kubernetes.access import Transport
from kabench.backends.kubernetes.api import Cluster
from kabench.backends.kubernetes.manifests import Object
from kabench.backends.kubernetes.naming import (
    AGENT,
    AGENT_PORT,
    AGENTS,
    EXPIRES,
    MANAGED_BY,
    ROLE,
    RUN,
    TOKEN_KEY,
    TOKEN_SECRET,
)
from kabench.backends.kubernetes.pods import Pod
from kabench.core.spec import NS_PER_S
from kabench.errors import SpecError

OURS = f"{MANAGED_BY}=kabench"
PROXY_PATIENCE_S = 10.0
"""How long a call of an agent is repeated: an API server that is started anew is back after two or three seconds."""


@dataclass(frozen=True)
class HeldRun:
    """A run's namespace.

    Attributes:
        run: its id.
        namespace: its name.
        expires_ns: realtime; from then on nobody misses it. None where it does not tell.
        pods: how many there are, by role.
        ending: it is being deleted already.
    """

    run: str
    namespace: str
    expires_ns: int | None
    pods: Mapping[str, int] = field(default_factory=dict)
    ending: bool = False

    def expired(self, now_ns: int) -> bool:
        """Whether its run has ended, or should have. A namespace that does not tell when may be in use for ever."""
        return self.expires_ns is not None and self.expires_ns <= now_ns

    def active(self, now_ns: int) -> bool:
        """Whether somebody may still need it."""
        return not self.ending and not self.expired(now_ns)

    def describe(self, now_ns: int) -> str:
        """In a line: how much it is, and whether somebody may still need it."""
        pods = sum(self.pods.values())
        size = f"{pods} {'pod' if pods == 1 else 'pods'}"
        if self.ending:
            return f"{self.run}: {size}, being deleted"
        if self.expires_ns is None:
            return f"{self.run}: {size}, may be active (it does not say until when)"
        if self.expired(now_ns):
            return f"{self.run}: {size}, expired {self.until}"
        return f"{self.run}: {size}, may be active until {self.until}"

    @property
    def until(self) -> str:
        """When nobody misses it any more."""
        return "it is removed" if self.expires_ns is None else _utc(self.expires_ns)


@dataclass(frozen=True)
class Holders:
    """The agents of a run.

    Attributes:
        endpoints: of those that can be asked, by node.
        mute: why those cannot be that may hold logs all the same, by node.
    """

    endpoints: tuple[AgentEndpoint, ...]
    mute: Mapping[str, str] = field(default_factory=dict)


async def find_runs(cluster: Cluster) -> list[HeldRun]:
    """All runs in the cluster, by id.

    Raises:
        ClusterError: the API server does not answer, or refuses.
    """
    namespaces = await cluster.list("Namespace", labels=f"{OURS},{RUN}")
    counts: dict[str, Counter[str]] = {}
    for pod in await cluster.list("Pod", labels=OURS) if namespaces else ():
        role = Pod(pod).role or "other"
        counts.setdefault(pod["metadata"]["namespace"], Counter())[role] += 1
    runs = [_held(one, counts.get(one["metadata"]["name"], Counter())) for one in namespaces]
    return sorted(runs, key=lambda run: run.run)


async def find_run(cluster: Cluster, run: str) -> HeldRun:
    """The run of that id.

    Raises:
        SpecError: the cluster holds none.
        ClusterError: the API server does not answer, or refuses.
    """
    runs = await find_runs(cluster)
    found = next((one for one in runs if one.run == run), None)
    if found is None:
        there = ", ".join(one.run for one in runs) or "none"
        raise SpecError(f"{cluster.context} holds no run {run}; runs there: {there}")
    return found


async def holders(cluster: Cluster, run: HeldRun, transport: Transport = "proxy") -> Holders:
    """How the agents of `run` are reached, the token from the run's own Secret.

    Raises:
        ClusterError: the API server does not answer, or refuses.
    """
    pods, token = await agent_pods(cluster, run.namespace), await token_in(cluster, run.namespace)
    endpoints, mute = [], {}
    for node, pod in _by_node(pods).items():
        silence = _silence(pod) if token else f"the run's token is gone (Secret {TOKEN_SECRET})"
        if silence is None:
            continue
        if silence:
            mute[node] = silence
        else:
            endpoints.append(endpoint(cluster, pod, run.namespace, token, transport))
    return Holders(tuple(endpoints), mute)


async def agent_pods(cluster: Cluster, namespace: str) -> list[Pod]:
    """The agents' pods, also those that end."""
    return [Pod(pod) for pod in await cluster.list("Pod", namespace, labels=f"{ROLE}={AGENT}")]


async def token_in(cluster: Cluster, namespace: str) -> str:
    """The token that its agents ask for; "" where there is none, or it does not read."""
    secret = await cluster.get("Secret", TOKEN_SECRET, namespace) or {}
    try:
        return base64.b64decode(secret["data"][TOKEN_KEY]).decode()
    except (KeyError, TypeError, ValueError):
        return ""


def endpoint(cluster: Cluster, pod: Pod, namespace: str, token: str, transport: Transport) -> AgentEndpoint:
    """How to call the agent in `pod`, which has a node and an address."""
    if transport == "direct":
        return AgentEndpoint(pod.node, f"http://{_bracketed(pod.ip)}:{AGENT_PORT}", token)
    url, headers, tls = cluster.proxied(namespace, pod.name, AGENT_PORT)
    return AgentEndpoint(pod.node, url, token, headers, tls, PROXY_PATIENCE_S)


def expires_at(namespace: Object) -> int | None:
    """The realtime in nanoseconds after which a run's namespace may be removed; None where it tells none that reads."""
    text = str((namespace["metadata"].get("annotations") or {}).get(EXPIRES, ""))
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        return None
    if instant.tzinfo is None:
        return None
    return round(instant.timestamp()) * NS_PER_S


def _held(namespace: Object, pods: Mapping[str, int]) -> HeldRun:
    metadata = namespace["metadata"]
    ending = bool(metadata.get("deletionTimestamp"))
    return HeldRun(
        metadata["labels"][RUN], metadata["name"], expires_at(namespace), dict(sorted(pods.items())), ending
    )


def _by_node(pods: Sequence[Pod]) -> dict[str, Pod]:
    """The agent of each node; one that is ending counts only where there is no other."""
    placed = sorted((pod for pod in pods if pod.node), key=lambda pod: (pod.node, not pod.ending))
    return {pod.node: pod for pod in placed}


def _silence(pod: Pod) -> str | None:
    """Why the agent cannot be asked; "" where it can, None where it never ran and so holds nothing."""
    agent = next((one for one in pod.containers if one["name"] == AGENTS), {})
    state = agent.get("state", {})
    if "running" in state:
        return "" if pod.ip else "its pod has no address"
    if agent.get("restartCount") or "terminated" in state or agent.get("lastState"):
        return pod.end or pod.restart or "its container does not run"
    return None


def _utc(realtime_ns: int) -> str:
    return f"{datetime.fromtimestamp(realtime_ns / NS_PER_S, UTC):%Y-%m-%d %H:%M} UTC"


def _bracketed(ip: str) -> str:
    return f"[{ip}]" if ":" in ip else ip
