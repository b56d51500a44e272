"""Placement policies of the simulated scheduler. Pure: requests, telemetry and a random source come in.

A policy sees what pods request, what nodes have left, and how contended a probe found them just before. It
never sees which nodes are noisy.

`default` scores as kube-scheduler does with its default plugins, as far as they can tell these nodes apart:
NodeResourcesFit with LeastAllocated (weight 1), NodeResourcesBalancedAllocation (weight 1) and
PodTopologySpread (weight 2, the built-in soft constraint by hostname). The other default plugins score all
nodes alike here. It is not kube-scheduler, and what it decides is no evidence about Kubernetes.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from kabench.core.contention import Contention
from kabench.core.spec import PolicyName
from kabench.errors import ClusterError

MIB = 1024 * 1024
MAX_SCORE = 100
SPREAD_WEIGHT = 2
SPREAD_MAX_SKEW = 3
"""Of the built-in default constraint by hostname (`ScheduleAnyway`)."""

UNREQUESTED_CPU_MILLIS = 100
UNREQUESTED_MEMORY_BYTES = 200 * MIB
"""What LeastAllocated takes a pod without a request for, so that such pods spread too."""

DELAY_WEIGHT, READ_P50_WEIGHT, READ_P99_WEIGHT = 0.5, 0.25, 0.25
TOLERANCE = 0.2
"""Nodes whose pressure is within this of the least count as equally contended. Between idle nodes, 100 ms probes
were seen up to 0.2 apart (one's reads twice as slow); a CPU shared with two busy tasks is at 0.33."""


@dataclass(frozen=True)
class Resources:
    """CPU in thousandths of a core, memory in bytes."""

    cpu_millis: int = 0
    memory_bytes: int = 0

    def __add__(self, other: Resources) -> Resources:
        return Resources(self.cpu_millis + other.cpu_millis, self.memory_bytes + other.memory_bytes)

    def within(self, limit: Resources) -> bool:
        """Whether neither exceeds `limit`."""
        return self.cpu_millis <= limit.cpu_millis and self.memory_bytes <= limit.memory_bytes

    def __str__(self) -> str:
        return f"{self.cpu_millis}m CPU, {self.memory_bytes // MIB} MiB"


@dataclass(frozen=True)
class PodRequest:
    """A pod to place: its name, the workload it is a replica of, and what it requests."""

    name: str
    workload: str
    requests: Resources

    @property
    def scored(self) -> Resources:
        """The request as LeastAllocated counts it."""
        return Resources(
            self.requests.cpu_millis or UNREQUESTED_CPU_MILLIS,
            self.requests.memory_bytes or UNREQUESTED_MEMORY_BYTES,
        )


@dataclass(frozen=True)
class NodeState:
    """A node as a scheduler sees it.

    Attributes:
        allocatable: what pods may request in all.
        requested: what they do.
        scored: the same, with pods that request nothing counted as LeastAllocated counts them.
        pods: how many there are, by workload.
    """

    name: str
    allocatable: Resources
    requested: Resources = Resources()
    scored: Resources = Resources()
    pods: Mapping[str, int] = field(default_factory=dict)

    def holding(self, pod: PodRequest) -> NodeState:
        """The node with `pod` on it."""
        pods = {**self.pods, pod.workload: self.pods.get(pod.workload, 0) + 1}
        return replace(
            self, requested=self.requested + pod.requests, scored=self.scored + pod.scored, pods=pods
        )


@dataclass(frozen=True)
class Decision:
    """Where a pod goes, and the winning node's scores."""

    pod: PodRequest
    node: str
    scores: Mapping[str, float]


def place(
    policy: PolicyName,
    pods: Sequence[PodRequest],
    nodes: Sequence[NodeState],
    contention: Mapping[str, Contention],
    rng: random.Random,
) -> list[Decision]:
    """Place `pods` one at a time, in their order, each seeing where the ones before it went.

    Args:
        policy: "default" or "contention-aware".
        pods: in the order in which a scheduler's queue hands them out.
        nodes: the candidates.
        contention: what a probe saw just before, by node; only "contention-aware" looks at it.
        rng: draws among nodes with equal scores.

    Raises:
        ClusterError: a pod fits on none of the nodes.
    """
    states = {node.name: node for node in nodes}
    pressures = pressure({name: contention[name] for name in states if name in contention})
    decisions = []
    for pod in pods:
        fitting = [s for s in states.values() if (s.requested + pod.requests).within(s.allocatable)]
        if not fitting:
            raise ClusterError(_does_not_fit(pod, list(states.values())))
        if policy == "contention-aware":
            fitting = _least_contended(fitting, pressures)
        scores = default_scores(pod, fitting)
        best = max(score["total"] for score in scores.values())
        chosen = rng.choice(sorted(name for name, score in scores.items() if score["total"] == best))
        reason = dict(scores[chosen])
        if policy == "contention-aware" and chosen in pressures:
            reason["pressure"] = round(pressures[chosen], 4)
        states[chosen] = states[chosen].holding(pod)
        decisions.append(Decision(pod, chosen, reason))
    return decisions


def default_scores(pod: PodRequest, nodes: Sequence[NodeState]) -> dict[str, dict[str, float]]:
    """The scores of `nodes` for `pod`, by plugin and in all (0 … 400), as kube-scheduler rounds them."""
    spread = _spread(pod, nodes)
    found = {}
    for node in nodes:
        least, balanced = _least_allocated(pod, node), _balanced(pod, node)
        found[node.name] = {
            "least_allocated": float(least),
            "balanced": float(balanced),
            "spread": float(spread[node.name]),
            "total": float(least + balanced + SPREAD_WEIGHT * spread[node.name]),
        }
    return found


def pressure(contention: Mapping[str, Contention]) -> dict[str, float]:
    """How contended each node is relative to the best one: 0 (like the best) … 1.

    ``0.5 (d − d_min) + 0.25 (1 − p50_min / p50) + 0.25 (1 − p99_min / p99)``, where d is the share of time
    that the probe waited for a CPU, and p50 and p99 are its random reads' times. A term that could not be
    measured is left out, and the weights of the others grow to 1.
    """
    if not contention:
        return {}
    delay_min = min(seen.run_delay_share for seen in contention.values())
    p50_min = min((seen.read_p50_ns for seen in contention.values() if seen.read_p50_ns), default=None)
    p99_min = min((seen.read_p99_ns for seen in contention.values() if seen.read_p99_ns), default=None)
    found = {}
    for name, seen in contention.items():
        terms = [(DELAY_WEIGHT, seen.run_delay_share - delay_min)]
        if p50_min is not None and seen.read_p50_ns:
            terms.append((READ_P50_WEIGHT, 1 - p50_min / seen.read_p50_ns))
        if p99_min is not None and seen.read_p99_ns:
            terms.append((READ_P99_WEIGHT, 1 - p99_min / seen.read_p99_ns))
        found[name] = sum(weight * term for weight, term in terms) / sum(weight for weight, _ in terms)
    return found


def _least_contended(nodes: Sequence[NodeState], pressures: Mapping[str, float]) -> list[NodeState]:
    """The nodes about as contended as the least contended one. A node that was not probed comes last."""
    known = [node for node in nodes if node.name in pressures]
    if not known:
        return list(nodes)
    least = min(pressures[node.name] for node in known)
    return [node for node in known if pressures[node.name] <= least + TOLERANCE]


def _least_allocated(pod: PodRequest, node: NodeState) -> int:
    """The mean of the free shares of CPU and memory, in integer per cent as the plugin computes it."""
    after = node.scored + pod.scored
    pairs = (
        (after.cpu_millis, node.allocatable.cpu_millis),
        (after.memory_bytes, node.allocatable.memory_bytes),
    )
    return sum(_free_percent(requested, capacity) for requested, capacity in pairs) // len(pairs)


def _free_percent(requested: int, capacity: int) -> int:
    if capacity <= 0 or requested > capacity:
        return 0
    return (capacity - requested) * MAX_SCORE // capacity


def _balanced(pod: PodRequest, node: NodeState) -> int:
    """100 where CPU and memory are equally used; less by the standard deviation of the two shares."""
    after = node.requested + pod.requests
    cpu = min(1.0, after.cpu_millis / node.allocatable.cpu_millis)
    memory = min(1.0, after.memory_bytes / node.allocatable.memory_bytes)
    return int((1 - abs(cpu - memory) / 2) * MAX_SCORE)


def _spread(pod: PodRequest, nodes: Sequence[NodeState]) -> dict[str, int]:
    """Fewer replicas of the workload on the node, more points; normalised over the candidates."""
    weight = math.log(len(nodes) + 2)
    raw = {n.name: round(n.pods.get(pod.workload, 0) * weight + SPREAD_MAX_SKEW - 1) for n in nodes}
    low, high = min(raw.values()), max(raw.values())
    return {name: MAX_SCORE * (high + low - score) // high for name, score in raw.items()}


def _does_not_fit(pod: PodRequest, nodes: Sequence[NodeState]) -> str:
    if not nodes:
        return f"{pod.name} fits nowhere: no node is a candidate"
    roomiest = min(nodes, key=lambda n: (n.requested.cpu_millis, n.requested.memory_bytes))
    return (
        f"{pod.name} ({pod.requests}) fits on none of {len(nodes)} nodes: the emptiest, {roomiest.name}, has "
        f"{roomiest.requested} of {roomiest.allocatable} requested; lower replicas or requests"
    )
