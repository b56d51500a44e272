"""What a run needs of a cluster, each thing asked for by itself: nothing here changes the cluster.

`trial` has the checks that need pods.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from kabench.backends.kubernetes.api import Cluster
from kabench.backends.kubernetes.holding import HeldRun
from kabench.backends.kubernetes.manifests import Object, load_all
from kabench.backends.kubernetes.naming import CONTROLLER, OUR_CONTEXTS
from kabench.backends.kubernetes.workers import full_names, left_out, unfit
from kabench.backends.tasks import all_of

Level = Literal["ok", "note", "warning", "problem"]

RBAC = "controller-rbac"
MOST_LISTED = 50
"""So many images a kubelet tells of, unless told otherwise; the largest first."""
MOST_NAMED = 8
METRICS = "metrics.k8s.io"


@dataclass(frozen=True)
class Finding:
    """A check's outcome.

    Attributes:
        check: what was looked at.
        level: "problem" where a run could not start, "warning" where it could and might fail or mean little.
        text: what was found.
        advice: what to do; "" where nothing is to be done, or the text says so itself.
    """

    check: str
    level: Level
    text: str
    advice: str = ""


class Group(NamedTuple):
    """Nodes that share CPUs of one machine, directly or through others."""

    nodes: tuple[str, ...]
    cpus: frozenset[int]
    boot_id: str


class Right(NamedTuple):
    """Something that a run must be allowed to do; `name`: on the object of that name only."""

    verb: str
    group: str
    resource: str
    name: str = ""

    def __str__(self) -> str:
        """As an administrator would say it."""
        resource = f"{self.resource}.{self.group}" if self.group else self.resource
        return f"{self.verb} {resource}" + (f" {self.name}" if self.name else "")


def context_finding(context: str) -> Finding:
    """Whose cluster it is; one that is not allowed is refused before."""
    whose = "a cluster that kabench makes" if context in OUR_CONTEXTS else "allowed by --allow-context"
    return Finding("context", "ok", f"{context}: {whose}")


def needed_rights() -> list[Right]:
    """All that the shipped role grants: the one list of what a run needs."""
    [role] = [one for one in load_all(RBAC) if one["kind"] == "ClusterRole"]
    found: dict[Right, None] = {}
    for rule in role["rules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                for verb in rule["verbs"]:
                    for name in rule.get("resourceNames", [""]):
                        found[Right(verb, group, resource, name)] = None
    return list(found)


async def rights_finding(cluster: Cluster) -> Finding:
    """Whether we have all rights that a run needs, in whatever namespace it makes."""
    needed = needed_rights()
    answers = await all_of(
        {f"may {one}": cluster.may(one.verb, one.group, one.resource, name=one.name) for one in needed}
    )
    missing = [str(one) for one, granted in zip(needed, answers, strict=True) if not granted]
    if not missing:
        return Finding("rights", "ok", f"all {len(needed)} that a run needs")
    return Finding(
        "rights",
        "problem",
        f"{len(missing)} of {len(needed)} are missing: {', '.join(missing)}",
        f"have an administrator apply manifests/{RBAC}.yaml and bind its ClusterRole {CONTROLLER} to you",
    )


def workers_finding(nodes: Sequence[Object], wanted: int) -> Finding:
    """Whether enough nodes take pods."""
    reasons = left_out(nodes)
    fit = sorted({node["metadata"]["name"] for node in nodes} - reasons.keys())
    also = f"; {some([f'{name} is {reason}' for name, reason in reasons.items()])}" if reasons else ""
    if len(fit) >= wanted:
        return Finding("workers", "ok", f"{len(fit)} take pods, {wanted} are wanted: {some(fit)}{also}")
    cordoned = [name for name, reason in reasons.items() if reason == "cordoned"]
    ways = [
        *([f"kubectl uncordon {' '.join(cordoned)}"] if cordoned else []),
        *([f"--agents {len(fit)}"] if fit else []),
        "more workers",
    ]
    return Finding(
        "workers", "problem", f"{len(fit)} take pods and {wanted} are wanted{also}", ", or ".join(ways)
    )


def runs_finding(runs: Sequence[HeldRun], now_ns: int, *, alongside: bool) -> Finding:
    """Whether another run is active, or something was left behind."""
    active = [run for run in runs if run.active(now_ns)]
    if active:
        told = "; ".join(run.describe(now_ns) for run in active)
        return Finding(
            "runs",
            "warning" if alongside else "problem",
            f"another run disturbs this one: {told}",
            f"wait for it; if it died: kabench clean --run {active[0].run}",
        )
    if runs:
        return Finding(
            "runs",
            "warning",
            "left behind: " + "; ".join(run.describe(now_ns) for run in runs),
            "kabench clean --expired",
        )
    return Finding("runs", "ok", "no other run is in the cluster")


def images_of(pods: Iterable[Object]) -> list[str]:
    """The images of pods, each once."""
    found: dict[str, None] = {}
    for pod in pods:
        spec = pod["spec"]
        for container in [*spec.get("initContainers", ()), *spec["containers"]]:
            found[str(container["image"])] = None
    return list(found)


def images_finding(nodes: Sequence[Object], images: Sequence[str], pull_policy: str) -> Finding:
    """Whether the nodes that take pods have the images, as far as their kubelets tell."""
    fit = [node for node in nodes if not unfit(node)]
    missing = {
        image: [node["metadata"]["name"] for node in fit if not _has(node["status"], image)]
        for image in images
    }
    lacking = {image: names for image, names in missing.items() if names}
    if not lacking:
        return Finding("images", "ok", f"on all {len(fit)} workers: {', '.join(images)}")
    told = "; ".join(f"{image} on {some(names)}" for image, names in lacking.items())
    if any(len(node["status"].get("images", ())) >= MOST_LISTED for node in fit):
        told += f" (a kubelet tells of {MOST_LISTED} images only)"
    if pull_policy == "Never":
        advice = (
            "load them into the nodes (kind: make kind-load), or let kubernetes.pull_policy be IfNotPresent"
        )
        return Finding("images", "problem", f"not there: {told}", advice)
    advice = (
        "load them into the nodes (kind: make kind-load); else they are pulled, which needs their registry"
    )
    return Finding("images", "warning", f"not there yet: {told}", advice)


def metrics_finding(groups: set[str]) -> Finding:
    """Whether `kubectl top` would work; a run does not need it."""
    if METRICS in groups:
        return Finding("metrics", "ok", "the cluster serves them; a run does not need them")
    return Finding("metrics", "note", "the cluster serves none; a run does not need them")


def separation_finding(groups: Sequence[Group], noise_nodes: int) -> Finding:
    """Whether a node can be quiet while `noise_nodes` others are noisy."""
    nodes = sum(len(group.nodes) for group in groups)
    told = some([f"{some(group.nodes)} on CPU {_ranges(group.cpus)}" for group in groups], "; ")
    machines = len({group.boot_id for group in groups})
    if len(groups) > 1:
        told = f"{len(groups)} groups of nodes share no CPU: {told}"
    told += f" ({machines} machines)" if machines > 1 else ""
    if not noise_nodes:
        return Finding("CPUs", "ok", f"{told}. There is no noise to be quiet beside")
    sizes = [len(group.nodes) for group in groups]
    quiet = nodes - _least_filled(sizes, noise_nodes)
    if quiet > 0:
        text = f"{told}. With noise on {noise_nodes} of {nodes}, {quiet} can be quiet"
        return Finding("CPUs", "ok", text)
    if len(groups) == 1:
        text = f"{told}: each shares CPUs with others, so no node can be quiet beside noise"
        return Finding(
            "CPUs",
            "warning",
            text,
            "give nodes CPUs of their own (kind: make kind-up does), or take more machines",
        )
    most = nodes - min(sizes)
    text = f"{told}. With noise on {noise_nodes} of {nodes}, none can be quiet"
    return Finding("CPUs", "warning", text, f"set noise.nodes to {most} or less")


def some(names: Sequence[str], between: str = ", ") -> str:
    """Names joined, the last ones of many left out."""
    if len(names) <= MOST_NAMED:
        return between.join(names)
    return f"{between.join(names[:MOST_NAMED])} and {len(names) - MOST_NAMED} more"


def _least_filled(sizes: Sequence[int], noisy: int) -> int:
    """The least number of nodes in groups that together hold `noisy` of them: noise fills groups up."""
    reached = {0}
    for size in sizes:
        reached |= {total + size for total in reached}
    return min(total for total in reached if total >= min(noisy, sum(sizes)))


def _has(status: Mapping[str, Any], image: str) -> bool:
    wanted = full_names(image)
    return any(name in wanted for listed in status.get("images", ()) for name in listed.get("names") or ())


def _ranges(cpus: frozenset[int]) -> str:
    """0-3,6."""
    ranges: list[tuple[int, int]] = []
    for cpu in sorted(cpus):
        if ranges and ranges[-1][1] == cpu - 1:
            ranges[-1] = ranges[-1][0], cpu
        else:
            ranges.append((cpu, cpu))
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges) or "unknown"
