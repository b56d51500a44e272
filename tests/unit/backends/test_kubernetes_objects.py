"""The objects of a run: valid, restricted, equal where the comparison needs it, and no more than the scenario asks for."""

from __future__ import annotations

import base64
import copy
import re
from typing import Any

import kubernetes_validate
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pod_security import breaches, own_breaches, pod_specs

from kabench.backends.kubernetes import naming
from kabench.backends.kubernetes.manifests import load
from kabench.backends.kubernetes.objects import (
    HOSTNAME,
    MOST_NOISE_S,
    RunSetup,
    check_scenario,
    decoy_pods,
    noise_pods,
    object_name,
    pick_nodes,
    run_objects,
    scheduler_canary,
    schedulers,
    target_pods,
)
from kabench.backends.kubernetes.templates import noise_limit_mib
from kabench.backends.stressors import MAX_CACHE
from kabench.core.quantities import Amounts, amounts_of, read_mib, read_millis
from kabench.core.scenario import KUBERNETES_ARMS, load_scenario, with_arms
from kabench.core.spec import Phase, Scenario, Stressor
from kabench.errors import SpecError
from kabench.scenarios import built_in

RUN = "20260102-030405-a1b2"
NODES = tuple(f"worker-{number}" for number in range(1, 7))
KUBERNETES = kubernetes_validate.latest_version()
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def seed(**update: Any) -> Scenario:
    """The built-in scenario as Kubernetes runs it, with fields replaced at the top."""
    scenario = with_arms(load_scenario(built_in("seed"), "seed.yaml"), KUBERNETES_ARMS)
    return Scenario.model_validate(scenario.model_dump() | update)


def setup(scenario: Scenario | None = None, **more: Any) -> RunSetup:
    fields = {"token": "s3cret", "nodes": NODES, "expires": "2026-01-02T04:00:00Z"}
    return RunSetup(RUN, scenario or seed(), **(fields | more))


def everything(the: RunSetup) -> list[dict[str, Any]]:
    """All that a run of one block applies."""
    found = run_objects(the)
    for phase in the.scenario.phases:
        found += target_pods(the, phase, 1, the.nodes[2:])
        found += noise_pods(the, the.nodes[:2], 60, f"001-{phase.name}")
        found += decoy_pods(the, the.nodes[2:], 60, f"001-{phase.name}")
    return found + [scheduler_canary(the, name) for name in schedulers(the.scenario)]


def affinity(pod: dict[str, Any]) -> list[str]:
    """The hostnames that a pod is bound to."""
    required = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    ((expression,),) = [term["matchExpressions"] for term in required["nodeSelectorTerms"]]
    assert (expression["key"], expression["operator"]) == (HOSTNAME, "In")
    values: list[str] = expression["values"]
    return values


def labels(one: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = one["metadata"]["labels"]
    return found


def container(pod: dict[str, Any], number: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = pod["spec"]["containers"][number]
    return found


TWO_SCHEDULERS = [{"name": "a", "scheduler": "one"}, {"name": "b", "scheduler": "other"}]
AWKWARD = {
    "agents": 6,
    "kubernetes": {
        "images": {"agent": "a.example/agent:1", "noise": "a.example/noise:1", "redis": "a.example/redis:1"},
        "pull_policy": "Never",
        "agent_requests": {"cpu_millis": 0, "memory_mib": 0},
    },
    "phases": [
        {"name": "a" * 40, "scheduler": "My.Scheduler/x"},
        {"name": "b" * 40, "scheduler": "default-scheduler"},
    ],
    "targets": [
        {
            "name": "1" + "x" * 39,
            "kind": "redis",
            "replicas": 5,
            "requests": {"cpu_millis": 0, "memory_mib": 0},
        },
        {"name": "1" + "x" * 38 + "y", "kind": "http", "replicas": 3, "http": {"cpu_us": 250}},
    ],
    "noise": {"nodes": 3, "stressors": [{"kind": "stress-cpu", "workers": 4}, {"kind": "stress-cpu"}]},
}


@pytest.mark.parametrize("scenario", [seed(), seed(**AWKWARD), seed(noise={"nodes": 0})])
def test_every_object_is_valid_restricted_and_ours(scenario: Scenario) -> None:
    found = everything(setup(scenario))
    for one in found:
        kubernetes_validate.validate(one, KUBERNETES, strict=True)
        assert labels(one).items() >= naming.run_labels(RUN).items()
        assert all(LABEL_VALUE.fullmatch(value) for value in labels(one).values())
        for spec in pod_specs(one):
            assert breaches(spec) + own_breaches(spec) == []
            assert spec["automountServiceAccountToken"] is False
    assert found[0]["kind"] == "Namespace"
    assert {one["metadata"].get("namespace") for one in found[1:]} == {naming.namespace_of(RUN)}
    names = [(one["kind"], one["metadata"]["name"]) for one in found]
    assert len(set(names)) == len(names)
    assert all(DNS_LABEL.fullmatch(name) for _, name in names)


def test_what_stays_comes_in_the_order_to_apply() -> None:
    found = run_objects(setup())
    kinds = ["Namespace", "ResourceQuota", *["NetworkPolicy"] * 3, "Secret", *["Service"] * 2, "DaemonSet"]
    assert [one["kind"] for one in found] == kinds
    assert found[0]["metadata"]["name"] == naming.namespace_of(RUN)
    assert labels(found[0])["pod-security.kubernetes.io/enforce"] == "restricted"
    assert found[0]["metadata"]["annotations"] == {naming.EXPIRES: "2026-01-02T04:00:00Z"}


def test_the_token_is_in_the_secret_and_not_in_what_is_printed() -> None:
    the = setup(token="s3cret")
    secret = next(one for one in run_objects(the) if one["kind"] == "Secret")
    assert base64.b64decode(secret["data"][naming.TOKEN_KEY]) == b"s3cret"
    assert "s3cret" not in repr(the)


def test_agents_are_on_the_runs_nodes_with_what_the_scenario_requests() -> None:
    kubernetes = {"agent_requests": {"cpu_millis": 250, "memory_mib": 700}, "pull_policy": "Never"}
    agents = run_objects(setup(seed(kubernetes=kubernetes), nodes=NODES[:4]))[-1]
    template = agents["spec"]["template"]
    assert affinity(template) == list(NODES[:4])
    assert labels(template) == agents["spec"]["selector"]["matchLabels"]
    agent, null = template["spec"]["containers"]
    assert agent["resources"] == {
        "requests": {"cpu": "250m", "memory": "700Mi"},
        "limits": {"memory": "1212Mi"},
    }
    assert null["resources"]["requests"]["memory"] == "32Mi"
    assert agent["imagePullPolicy"] == null["imagePullPolicy"] == "Never"


def test_phases_differ_in_name_scheduler_affinity_and_phase_label_only() -> None:
    the = setup(
        seed(
            phases=[
                {"name": "d", "scheduler": "default-scheduler"},
                {"name": "mine", "scheduler": "mine"},
                {"name": "q", "pin": "quiet"},
            ]
        )
    )

    def bare(phase: Phase, candidates: tuple[str, ...]) -> list[dict[str, Any]]:
        pods = copy.deepcopy(target_pods(the, phase, 7, candidates))
        for pod in pods:
            assert pod["metadata"].pop("name").endswith(f"-7-{phase.name}")
            assert labels(pod).pop(naming.PHASE) == phase.name
            assert affinity(pod) == list(candidates)
            del pod["spec"]["affinity"]
            assert pod["spec"].pop("schedulerName") == (phase.scheduler or "default-scheduler")
        return pods

    first, second, pinned = the.scenario.phases
    assert bare(first, NODES) == bare(second, NODES) == bare(pinned, NODES[3:])


def test_pods_tell_no_scheduler_which_nodes_are_noisy() -> None:
    pods = target_pods(setup(), seed().phases[0], 1, NODES)
    assert not re.search(
        "noise|noisy|quiet|nodeSelector", repr([p["spec"] for p in pods]).replace("nodeSelectorTerms", "")
    )
    kinds = {one["kind"] for one in everything(setup())}
    assert "Node" not in kinds  # no node is labelled


def test_replicas_alternate_and_say_whose_they_are() -> None:
    scenario = seed()
    pods = target_pods(setup(scenario), scenario.phases[0], 12, NODES)
    assert [labels(pod)[naming.WORKLOAD] for pod in pods] == ["redis-latency-test", "http-echo"] * 4
    assert [pod["metadata"]["name"] for pod in pods[:2]] == [
        "redis-latency-test-1-12-default",
        "http-echo-1-12-default",
    ]
    own = {
        naming.WORKLOAD: "http-echo",
        naming.REPLICA: "http-echo-2",
        naming.BLOCK: "12",
        naming.PHASE: "default",
    }
    assert labels(pods[3]).items() >= (naming.run_labels(RUN, naming.TARGET) | own).items()


def test_a_service_selects_the_replicas_of_its_workload() -> None:
    the = setup()
    pods = target_pods(the, the.scenario.phases[0], 1, NODES) + noise_pods(the, NODES[:1], 60, "r")
    for service in [one for one in run_objects(the) if one["kind"] == "Service"]:
        wanted = service["spec"]["selector"].items()
        selected = [pod for pod in pods if wanted <= labels(pod).items()]
        assert service["spec"]["clusterIP"] == "None"
        assert len(selected) == 4
        assert {labels(pod)[naming.WORKLOAD] for pod in selected} == {labels(service)[naming.WORKLOAD]}


def test_the_http_echo_burns_what_the_scenario_says() -> None:
    scenario = seed(**AWKWARD)
    pods = target_pods(setup(scenario), scenario.phases[0], 1, NODES)
    arguments = [container(pod)["args"] for pod in pods if "--cpu-us" in container(pod)["args"]]
    assert [a[a.index("--cpu-us") + 1] for a in arguments] == ["250"] * 3


def test_requests_of_nothing_are_written_out() -> None:
    # with a limit and no request, the limit would be requested
    scenario = seed(**AWKWARD)
    redis = target_pods(setup(scenario), scenario.phases[0], 1, NODES)[0]
    assert container(redis)["resources"]["requests"] == {"cpu": "0m", "memory": "0Mi"}


def test_a_redis_limit_holds_its_keys() -> None:
    scenario = seed(
        targets=[{"name": "r", "kind": "redis", "redis": {"keys": 1_000_000, "value_bytes": 1000}}]
    )
    pod = target_pods(setup(scenario), scenario.phases[0], 1, NODES)[0]
    assert (
        read_mib(container(pod)["resources"]["limits"]["memory"]) * 2**20 > 64 * 2**20 + 2 * 1_000_000 * 1000
    )


@pytest.mark.parametrize("scenario", [seed(), seed(**AWKWARD)])
def test_decoys_look_like_noise_to_a_scheduler(scenario: Scenario) -> None:
    the = setup(scenario)

    def seen(pods: list[dict[str, Any]]) -> list[Any]:
        return [
            [c["resources"]["requests"] for c in pod["spec"]["containers"]]
            + [
                pod["spec"]["schedulerName"],
                pod["spec"].get("priorityClassName"),
                labels(pod)[naming.WORKLOAD],
            ]
            for pod in pods
        ]

    noise, decoys = noise_pods(the, ["worker-1"], 60, "r"), decoy_pods(the, ["worker-1"], 60, "r")
    assert seen(noise) == seen(decoys)
    assert [affinity(pod) for pod in noise + decoys] == [["worker-1"]] * 4


def test_noise_is_one_pod_a_stressor_and_node_and_ends_twice() -> None:
    noise = noise_pods(setup(), NODES[:2], 90, "003-default")
    assert [(affinity(pod), labels(pod)[naming.WORKLOAD]) for pod in noise] == [
        ([node], kind) for node in NODES[:2] for kind in ("stress-cache", "stress-membw")
    ]
    for pod in noise:
        arguments = container(pod)["args"]
        assert arguments[arguments.index("--timeout") + 1] == "90s"
        assert 90 < pod["spec"]["activeDeadlineSeconds"] < 180
        assert arguments[arguments.index("--yaml") + 1] == container(pod)["terminationMessagePath"]
    with pytest.raises(ValueError, match="at most"):
        noise_pods(setup(), NODES[:1], MOST_NOISE_S + 1, "r")


def test_noise_follows_the_cache_as_far_as_it_is_bounded() -> None:
    def l3(cache_bytes: int) -> int:
        pod = noise_pods(setup(cache_bytes=cache_bytes), NODES[:1], 60, "r")[1]
        arguments = container(pod)["args"]
        assert (
            read_mib(container(pod)["resources"]["limits"]["memory"])
            > 12 * int(arguments[arguments.index("--stream-l3-size") + 1]) // 2**20
        )
        return int(arguments[arguments.index("--stream-l3-size") + 1])

    assert l3(2**24) == 2**23
    assert l3(2**40) == MAX_CACHE // 2


def test_the_quota_is_twice_what_a_round_needs() -> None:
    the = setup()
    hard = run_objects(the)[1]["spec"]["hard"]
    # 6 agents, 2 × 4 targets, 2 stressors on 2 nodes and their decoys on 4, the canary of one scheduler
    assert hard["pods"] == str(2 * (6 + 8 + 12 + 1))
    pods = [
        *target_pods(the, the.scenario.phases[2], 9, NODES),
        *noise_pods(the, NODES[4:], 60, "r"),
        *decoy_pods(the, NODES[:4], 60, "r"),
        scheduler_canary(the, "default-scheduler"),
        *[run_objects(the)[-1]["spec"]["template"]] * 6,
    ]
    needed = sum((amounts_of(pod["spec"]) for pod in pods), Amounts())
    assert read_millis(hard["requests.cpu"]) == 2 * needed.cpu_millis
    assert read_mib(hard["requests.memory"]) == 2 * needed.memory_mib
    assert read_mib(hard["limits.memory"]) == 2 * needed.limit_mib


def test_the_quota_of_the_manifest_holds_the_built_in_scenario() -> None:
    written, hard = load("quota")["spec"]["hard"], run_objects(setup())[1]["spec"]["hard"]
    assert written.keys() == hard.keys()
    assert int(written["pods"]) >= int(hard["pods"])
    assert read_millis(written["requests.cpu"]) >= read_millis(hard["requests.cpu"])
    for amount in ("requests.memory", "limits.memory"):
        assert read_mib(written[amount]) >= read_mib(hard[amount])


def test_every_scheduler_is_asked_once() -> None:
    phases = [{"name": n, "scheduler": s} for n, s in (("a", "mine"), ("b", "mine"), ("c", "other"))]
    assert schedulers(seed(phases=phases)) == ("mine", "other", "default-scheduler")
    assert schedulers(seed(phases=phases, noise={"nodes": 0})) == ("mine", "other")
    assert schedulers(seed(phases=[{"name": "q", "pin": "quiet"}])) == ("default-scheduler",)
    canary = scheduler_canary(setup(), "mine")
    assert (canary["spec"]["schedulerName"], affinity(canary)) == ("mine", list(NODES))


@given(st.permutations(NODES), st.integers(1, 6), st.integers(0, 2**63 - 1))
def test_nodes_are_picked_by_the_seed_alone(names: list[str], wanted: int, seed_: int) -> None:
    picked = pick_nodes(names, wanted, seed_)
    assert picked == pick_nodes(NODES, wanted, seed_) == tuple(sorted(picked))
    assert len(set(picked)) == wanted
    assert set(picked) <= set(NODES)


def test_other_seeds_pick_other_nodes_and_too_many_are_refused() -> None:
    assert len({pick_nodes(NODES, 3, number) for number in range(50)}) > 10
    with pytest.raises(ValueError, match="larger than population"):
        pick_nodes(NODES, 7, 1)


@given(
    st.lists(st.text(max_size=70), min_size=1, max_size=4),
    st.lists(st.text(max_size=70), min_size=1, max_size=4),
)
def test_names_are_labels_and_differ(first: list[str], second: list[str]) -> None:
    one, other = object_name(*first), object_name(*second)
    assert DNS_LABEL.fullmatch(one)
    assert (one == other) == ("-".join(first) == "-".join(second))


@pytest.mark.parametrize(
    ("update", "told"),
    [
        ({"phases": [{"name": "p", "policy": "default"}]}, "phase p: policy is of the local backend"),
        (
            {
                "phases": [{"name": "p", "standing": "given"}],
                "targets": [{"name": "t", "kind": "http", "replicas": 1, "address": "h:80"}],
            },
            "phase p: servers that stand already are loaded from this machine",
        ),
        (
            {"phases": [{"name": "p", "pin": "noisy"}], "noise": {"nodes": 0}},
            "phase p: pin: noisy needs noise",
        ),
        (
            {"phases": [{"name": "p", "pin": "quiet"}], "noise": {"nodes": 6}},
            "phase p: pin: quiet needs a node",
        ),
        (
            {"targets": [{"name": "t", "kind": "http", "replicas": 6}], "phases": TWO_SCHEDULERS},
            "target t: 6 replicas on 6 nodes",
        ),
        (
            {"noise": {"stressors": [{"kind": "stress-cpu", "workers": 8}, {"kind": "stress-cpu"}]}},
            "noise.stressors: 9 workers on a node; give at most 8",
        ),
        (
            {"noise": {"stressors": [{"kind": "stress-cpu", "requests": {"memory_mib": 8000}}]}},
            "noise.stressors: they may take 8128 MiB",
        ),
    ],
)
def test_what_no_cluster_can_do_is_refused(update: dict[str, Any], told: str) -> None:
    with pytest.raises(SpecError, match=f"^{re.escape(told)}"):
        check_scenario(seed(**update))


def test_all_problems_are_told_at_once_and_a_sound_scenario_has_none() -> None:
    check_scenario(seed())
    check_scenario(seed(**AWKWARD))
    spread = [{"name": "t", "kind": "http", "replicas": 6}]
    check_scenario(seed(targets=spread))  # one scheduler, beside its oracles
    check_scenario(seed(targets=[{"name": "t", "kind": "http", "replicas": 7}], phases=TWO_SCHEDULERS))
    wrong = seed(phases=[*TWO_SCHEDULERS, {"name": "p", "policy": "default"}], targets=spread)
    with pytest.raises(SpecError) as caught:
        check_scenario(wrong)
    assert len(str(caught.value).splitlines()) == 2


def test_a_larger_cache_counts_against_the_noises_memory() -> None:
    scenario = seed(noise={"stressors": [{"kind": "stress-membw", "workers": 8}]})
    check_scenario(scenario)
    with pytest.raises(SpecError, match="they may take 6272 MiB"):
        check_scenario(scenario, cache_bytes=2**40)
    assert noise_limit_mib(Stressor(kind="stress-membw", workers=8), MAX_CACHE) == 6272
