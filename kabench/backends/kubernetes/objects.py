"""The objects of a run, made from the manifests: what a run changes in them stands here, everything else there. Pure.

(The manifests are read once, as data of the package.)
"""

from __future__ import annotations

import hashlib
import random
import re
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from kabench.backends.kubernetes.manifests import Object, load, load_all
from kabench.backends.kubernetes.naming import (
    AGENT,
    AGENTS,
    BLOCK,
    CANARY,
    DECOY,
    EXPIRES,
    NOISE,
    PHASE,
    REPLICA,
    TARGET,
    TOKEN_KEY,
    WORKLOAD,
    namespace_of,
    run_labels,
)
from kabench.backends.kubernetes.templates import (
    decoy_pod,
    noise_limit_mib,
    noise_pod,
    noise_workers,
    set_resources,
    target_pod,
    use_image,
)
from kabench.backends.stressors import DEFAULT_CACHE_BYTES, MAX_CACHE
from kabench.core.quantities import Amounts, amounts_of, mib, millis
from kabench.core.seeds import derive_seed
from kabench.core.spec import Phase, Scenario, Stressor, Target
from kabench.errors import SpecError

HOSTNAME = "kubernetes.io/hostname"
"""The label that pods are bound to nodes by."""

DEFAULT_SCHEDULER = "default-scheduler"
"""Who binds pinned targets, noise and decoys."""

LONGEST_NAME = 63
DIGEST_CHARS = 8

CANARY_ROOM_MIB = 512
"""An agent's memory limit is so much above its request at least: the canary reads a buffer of up to 256 MiB, with the
order of its reads and their making beside it."""

DEADLINE_ROOM_S = 30
"""Noise ends itself; the kubelet ends it so much later, should that fail."""

MOST_NOISE_S = 3600
MOST_WORKERS = 8
MOST_NOISE_MIB = 6144
"""What noise may take at most: of time, and on one node of CPUs and memory. A mistake must not cost others their cluster."""

SPARE = 2
"""The quota counts what a run needs so often: pods that have ended are counted until the quota's controller looks again."""


@dataclass(frozen=True)
class RunSetup:
    """What the objects of a run follow from.

    Attributes:
        run: its id.
        scenario: checked by `check_scenario`.
        token: what the controller shows to the agents.
        nodes: the workers that take part, sorted, by their hostname label.
        expires: RFC 3339, in UTC: from then on nobody misses the run's namespace.
        cache_bytes: size of the nodes' last-level cache, for the noise's buffers.
    """

    run: str
    scenario: Scenario
    token: str = field(repr=False)
    nodes: tuple[str, ...]
    expires: str
    cache_bytes: int = DEFAULT_CACHE_BYTES

    @property
    def namespace(self) -> str:
        """Where all of it is."""
        return namespace_of(self.run)


def run_objects(setup: RunSetup) -> list[Object]:
    """What stays for the whole run, in the order to apply: the namespace, quota, policies, token, Services, agents.

    A quota refuses pods until its controller has seen it ("status unknown for quota"): who makes pods at once waits for
    its `status.hard`. The DaemonSet's controller tries again by itself.
    """
    namespace = load("namespace")
    namespace["metadata"]["name"] = setup.namespace
    namespace["metadata"]["labels"] |= run_labels(setup.run)
    namespace["metadata"]["annotations"] = {EXPIRES: setup.expires}
    rest = [
        _quota(setup),
        *load_all("network-policy"),
        _token(setup),
        *(_service(setup, target) for target in setup.scenario.targets),
        _agents(setup),
    ]
    for one in rest:
        _place_in(one, setup, one["metadata"].get("labels", {}) | run_labels(setup.run))
    return [namespace, *rest]


def target_pods(setup: RunSetup, phase: Phase, block: int, candidates: Sequence[str]) -> list[Object]:
    """Fresh replicas of all targets, in the order to make them: workloads are made together, so they alternate.

    Args:
        setup: the run.
        phase: whose scheduler binds them; pins are the default scheduler's, by affinity.
        block: for names and labels.
        candidates: hostnames of the nodes that they may be on: all that have an agent, or those of the pin's role.
    """
    targets = setup.scenario.targets
    most = max(target.replicas for target in targets)
    return [
        _target_pod(setup, target, number, phase, block, candidates)
        for number in range(1, most + 1)
        for target in targets
        if number <= target.replicas
    ]


def noise_pods(setup: RunSetup, nodes: Sequence[str], seconds: int, round_name: str) -> list[Object]:
    """A pod for each stressor on each of `nodes`, which ends by itself after `seconds`.

    Raises:
        ValueError: `seconds` is more than MOST_NOISE_S.
    """
    return _stress_pods(setup, nodes, seconds, round_name, NOISE)


def decoy_pods(setup: RunSetup, nodes: Sequence[str], seconds: int, round_name: str) -> list[Object]:
    """As `noise_pods`, with the same requests, and idle."""
    return _stress_pods(setup, nodes, seconds, round_name, DECOY)


def scheduler_canary(setup: RunSetup, scheduler: str) -> Object:
    """A pod that asks whether a scheduler of that name binds pods to the run's nodes."""
    pod = load("scheduler-canary")
    _place_in(pod, setup, run_labels(setup.run, CANARY))
    pod["metadata"]["name"] = object_name("canary", scheduler)
    pod["spec"]["schedulerName"] = scheduler
    _bind(pod, setup.nodes)
    use_image(pod, setup.scenario.kubernetes.images.agent, setup.scenario.kubernetes.pull_policy)
    return pod


def schedulers(scenario: Scenario) -> tuple[str, ...]:
    """The names of all schedulers that must answer, each once: the phases', and the one that binds pins and noise."""
    named = [phase.scheduler or DEFAULT_SCHEDULER for phase in scenario.phases]
    return tuple(dict.fromkeys([*named, *([DEFAULT_SCHEDULER] if scenario.noise.nodes else [])]))


def check_scenario(scenario: Scenario, cache_bytes: int = DEFAULT_CACHE_BYTES) -> None:
    """Refuse what no cluster can do, and noise beyond its caps; whether a scheduler is there only its canary tells.

    Raises:
        SpecError: all that is wrong, a line each.
    """
    problems = [
        *_phase_problems(scenario),
        *_replica_problems(scenario),
        *_noise_problems(scenario, cache_bytes),
    ]
    if problems:
        raise SpecError("\n".join(problems))


def _phase_problems(scenario: Scenario) -> Iterator[str]:
    noise, agents = scenario.noise.nodes, scenario.agents
    for phase in scenario.phases:
        where = f"phase {phase.name}: "
        if phase.policy is not None:
            yield f"{where}policy is of the local backend; on Kubernetes give scheduler: NAME or pin: quiet|noisy"
        elif phase.standing is not None:
            yield f"{where}servers that stand already are loaded from this machine: use kabench load, or --backend local"
        elif phase.pin == "noisy" and noise == 0:
            yield f"{where}pin: noisy needs noise; noise.nodes is 0"
        elif phase.pin == "quiet" and noise >= agents:
            yield f"{where}pin: quiet needs a node without noise; noise.nodes is {noise}, agents {agents}"


def _replica_problems(scenario: Scenario) -> Iterator[str]:
    """Where spreading puts equally many replicas on every node, all schedulers place alike, and comparing them is idle."""
    agents = scenario.agents
    named = {phase.scheduler for phase in scenario.phases if phase.scheduler is not None}
    if len(named) < 2:
        return
    for target in scenario.targets:
        if target.replicas % agents == 0:
            yield (
                f"target {target.name}: {target.replicas} replicas on {agents} nodes are spread evenly by any scheduler; "
                f"give a number below {agents}, or other agents"
            )


def _noise_problems(scenario: Scenario, cache_bytes: int) -> Iterator[str]:
    if not scenario.noise.nodes:
        return
    stressors = scenario.noise.stressors
    workers = sum(map(noise_workers, stressors))
    if workers > MOST_WORKERS:
        yield f"noise.stressors: {workers} workers on a node; give at most {MOST_WORKERS} in all"
    takes_mib = sum(noise_limit_mib(one, min(cache_bytes, MAX_CACHE)) for one in stressors)
    if takes_mib > MOST_NOISE_MIB:
        yield (
            f"noise.stressors: they may take {takes_mib} MiB on a node, and at most {MOST_NOISE_MIB} are allowed; "
            f"lower their workers or memory_mib"
        )


def pick_nodes(names: Sequence[str], wanted: int, seed: int) -> tuple[str, ...]:
    """`wanted` of the workers, sorted; the same ones for the same names and seed, in whatever order they come.

    Raises:
        ValueError: there are fewer.
    """
    drawn = random.Random(derive_seed(seed, "nodes")).sample(sorted(names), wanted)
    return tuple(sorted(drawn))


def object_name(*parts: str) -> str:
    """The parts joined to a DNS label; what does not fit, or is no label, is cut and told apart by a digest."""
    whole = "-".join(parts)
    name = re.sub(r"[^a-z0-9]+", "-", whole.lower()).strip("-")
    if name == whole and 0 < len(name) <= LONGEST_NAME:
        return name
    digest = hashlib.sha256(whole.encode()).hexdigest()[:DIGEST_CHARS]
    return f"{name[: LONGEST_NAME - DIGEST_CHARS - 1].rstrip('-')}-{digest}".lstrip("-")


def _quota(setup: RunSetup) -> Object:
    """As much as the agents, one round and the canaries need, SPARE times."""
    scenario = setup.scenario
    loud = min(scenario.noise.nodes, len(setup.nodes))
    pods = [
        *target_pods(setup, scenario.phases[0], 1, setup.nodes),
        *noise_pods(setup, setup.nodes[:loud], 1, "quota"),
        *decoy_pods(setup, setup.nodes[loud:] if loud else (), 1, "quota"),
        *(scheduler_canary(setup, name) for name in schedulers(scenario)),
        *[_agents(setup)["spec"]["template"]] * len(setup.nodes),
    ]
    needed = sum((amounts_of(pod["spec"]) for pod in pods), Amounts())
    quota = load("quota")
    quota["spec"]["hard"] = {
        "pods": str(SPARE * len(pods)),
        "requests.cpu": millis(SPARE * needed.cpu_millis),
        "requests.memory": mib(SPARE * needed.memory_mib),
        "limits.memory": mib(SPARE * needed.limit_mib),
    }
    return quota


def _token(setup: RunSetup) -> Object:
    secret = load("agent-token")
    secret["data"] = {TOKEN_KEY: b64encode(setup.token.encode()).decode()}
    return secret


def _service(setup: RunSetup, target: Target) -> Object:
    service = load("target-service")
    service["metadata"]["name"] = object_name("target", target.name)
    labels = run_labels(setup.run, TARGET) | {WORKLOAD: target.name}
    service["metadata"]["labels"] = labels
    service["spec"]["selector"] = dict(labels)
    return service


def _agents(setup: RunSetup) -> Object:
    """The DaemonSet, on the run's nodes only."""
    agents = load("agents")
    kubernetes = setup.scenario.kubernetes
    labels = run_labels(setup.run, AGENT)
    agents["spec"]["selector"]["matchLabels"] = labels
    template = agents["spec"]["template"]
    template["metadata"]["labels"] = dict(labels)
    _bind(template, setup.nodes)
    use_image(template, kubernetes.images.agent, kubernetes.pull_policy)
    agent = next(one for one in template["spec"]["containers"] if one["name"] == AGENTS)
    requests = kubernetes.agent_requests
    set_resources(agent, requests, requests.memory_mib + CANARY_ROOM_MIB)
    return agents


def _target_pod(
    setup: RunSetup, target: Target, number: int, phase: Phase, block: int, candidates: Sequence[str]
) -> Object:
    pod = target_pod(target, setup.scenario.kubernetes)
    replica = f"{target.name}-{number}"
    # the replica's own name is a label too: the pod's must differ from round to round, and may have been cut
    labels = {WORKLOAD: target.name, REPLICA: replica, BLOCK: str(block), PHASE: phase.name}
    _place_in(pod, setup, _own_labels(target) | run_labels(setup.run, TARGET) | labels)
    pod["metadata"]["name"] = object_name(replica, str(block), phase.name)
    pod["spec"]["schedulerName"] = phase.scheduler or DEFAULT_SCHEDULER
    _bind(pod, candidates)
    return pod


def _stress_pods(
    setup: RunSetup, nodes: Sequence[str], seconds: int, round_name: str, role: str
) -> list[Object]:
    if seconds > MOST_NOISE_S:
        raise ValueError(f"noise for {seconds} s: at most {MOST_NOISE_S} s")
    return [
        _stress_pod(setup, stressor, number, node, seconds, round_name, role)
        for node in nodes
        for number, stressor in enumerate(setup.scenario.noise.stressors, 1)
    ]


def _stress_pod(
    setup: RunSetup, stressor: Stressor, number: int, node: str, seconds: int, round_name: str, role: str
) -> Object:
    """Noise, or the decoy that looks like it to a scheduler."""
    kubernetes = setup.scenario.kubernetes
    noise = role == NOISE
    pod = (
        noise_pod(stressor, kubernetes, seconds, setup.cache_bytes)
        if noise
        else decoy_pod(stressor, kubernetes)
    )
    # an own pod's labels are its decoys' too: a scheduler must not tell them apart by these
    labels = run_labels(setup.run, role) | {WORKLOAD: stressor.label}
    _place_in(pod, setup, _own_labels(stressor) | labels)
    pod["metadata"]["name"] = object_name(role, str(number), node, round_name)
    pod["spec"]["schedulerName"] = DEFAULT_SCHEDULER
    pod["spec"]["activeDeadlineSeconds"] = seconds + DEADLINE_ROOM_S
    _bind(pod, [node])
    return pod


def _own_labels(workload: Target | Stressor) -> dict[str, str]:
    """The labels of a pod of the user's."""
    return dict(workload.pod.template["metadata"].get("labels", {})) if workload.pod is not None else {}


def _place_in(one: Object, setup: RunSetup, labels: Mapping[str, str]) -> None:
    one["metadata"]["namespace"] = setup.namespace
    one["metadata"]["labels"] = dict(labels)


def _bind(pod: Object, hostnames: Sequence[str]) -> None:
    """Required affinity to the nodes of these names."""
    wanted = {"matchExpressions": [{"key": HOSTNAME, "operator": "In", "values": sorted(hostnames)}]}
    pod["spec"]["affinity"] = {
        "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [wanted]}}
    }
