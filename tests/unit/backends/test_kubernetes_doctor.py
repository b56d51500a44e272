"""What `kabench doctor` says of what it found."""

from __future__ import annotations

from typing import Any, cast

import pytest
from memory_cluster import MemoryCluster, a_node

from kabench.backends.kubernetes.api import Cluster
from kabench.backends.kubernetes.doctor import (
    Finding,
    Group,
    Right,
    context_finding,
    images_finding,
    images_of,
    metrics_finding,
    needed_rights,
    rights_finding,
    runs_finding,
    separation_finding,
    some,
    workers_finding,
)
from kabench.backends.kubernetes.holding import HeldRun
from kabench.backends.kubernetes.manifests import load_all
from kabench.backends.kubernetes.objects import RunSetup
from kabench.backends.kubernetes.trial import round_pods
from kabench.cli.sources import load_source
from kabench.core.scenario import KUBERNETES_ARMS, with_arms

LIVE = HeldRun("live", "kabench-live", 50, {"agent": 2})
OLD = HeldRun("old", "kabench-old", 5)


def test_whose_cluster_it_is() -> None:
    assert "kabench makes" in context_finding("kind-kabench").text
    assert "--allow-context" in context_finding("production").text


def test_the_rights_that_are_asked_for_are_those_that_the_shipped_role_grants() -> None:
    [role] = [one for one in load_all("controller-rbac") if one["kind"] == "ClusterRole"]
    needed = needed_rights()
    for rule in role["rules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                asked = {
                    (right.verb, right.name)
                    for right in needed
                    if (right.group, right.resource) == (group, resource)
                }
                for verb in rule["verbs"]:
                    for name in rule.get("resourceNames", [""]):
                        assert (verb, name) in asked
    assert len(needed) == len(set(needed))
    assert Right("create", "", "pods/proxy") in needed
    assert Right("get", "", "secrets", "kabench-token") in needed
    assert not any(right.resource.startswith("nodes/") for right in needed)


async def test_missing_rights_are_named_as_an_administrator_would_say_them() -> None:
    cluster = MemoryCluster()
    assert (await rights_finding(cast(Cluster, cluster))).level == "ok"
    assert len(cluster.asked) == len(needed_rights())
    cluster.denied = {"create pods/proxy", "patch networkpolicies kabench-nobody"}
    finding = await rights_finding(cast(Cluster, cluster))
    assert finding.level == "problem"
    assert "create pods/proxy, patch networkpolicies.networking.k8s.io kabench-nobody" in finding.text
    assert "controller-rbac.yaml" in finding.advice


def test_workers_that_take_pods_are_counted_and_others_explained() -> None:
    nodes = [
        a_node("w1"),
        a_node("w2", cordoned=True),
        a_node("w3", ready=False),
        a_node("c", taint="control"),
    ]
    assert workers_finding(nodes, 1) == Finding(
        "workers",
        "ok",
        "1 take pods, 1 are wanted: w1; c is tainted control, w2 is cordoned, w3 is not Ready",
    )
    finding = workers_finding(nodes, 2)
    assert (finding.level, finding.advice) == (
        "problem",
        "kubectl uncordon w2, or --agents 1, or more workers",
    )
    assert workers_finding([], 2).advice == "more workers"


@pytest.mark.parametrize(
    ("runs", "alongside", "level", "said", "advice"),
    [
        ([], False, "ok", "no other run", ""),
        ([OLD], False, "warning", "left behind: old: 0 pods, expired", "kabench clean --expired"),
        ([OLD, LIVE], False, "problem", "live: 2 pods, may be active", "kabench clean --run live"),
        ([LIVE], True, "warning", "live: 2 pods, may be active", "kabench clean --run live"),
        ([HeldRun("r", "n", 50, ending=True)], False, "warning", "being deleted", "kabench clean"),
    ],
)
def test_other_runs(runs: list[HeldRun], alongside: bool, level: str, said: str, advice: str) -> None:
    finding = runs_finding(runs, 10, alongside=alongside)
    assert finding.level == level
    assert said in finding.text
    assert "old" not in finding.text or level == "warning"
    assert advice in finding.advice


@pytest.mark.parametrize(
    ("listed", "wanted"),
    [
        ("docker.io/library/redis:7.4.2", "redis:7.4.2"),
        ("docker.io/some/redis:1", "some/redis:1"),
        ("localhost/kabench-agent:0.1.0", "kabench-agent:0.1.0"),
        ("docker.io/library/redis:latest", "redis"),
        ("registry.example:5000/a/b:1", "registry.example:5000/a/b:1"),
        ("registry.example:5000/a/b:latest", "registry.example:5000/a/b"),
    ],
)
def test_an_image_is_recognised_by_the_name_that_the_runtime_gives_it(listed: str, wanted: str) -> None:
    assert images_finding([a_node("w1", listed)], [wanted], "Never").level == "ok"
    assert images_finding([a_node("w1", listed + "x")], [wanted], "Never").level == "problem"


def test_images_that_are_not_there_are_a_problem_where_nobody_pulls_them() -> None:
    nodes = [a_node("w1", "a:1", "b:1"), a_node("w2", "a:1"), a_node("w3", ready=False)]
    assert images_finding(nodes, ["a:1"], "Never").text == "on all 2 workers: a:1"
    finding = images_finding(nodes, ["a:1", "b:1"], "IfNotPresent")
    assert (finding.level, finding.text) == ("warning", "not there yet: b:1 on w2")
    assert images_finding(nodes, ["b:1"], "Never").level == "problem"


def test_a_kubelet_tells_of_fifty_images_only() -> None:
    full = a_node("w1", *(f"i{number}:1" for number in range(50)))
    assert "50 images only" in images_finding([full], ["b:1"], "IfNotPresent").text


def test_the_images_of_a_round_are_its_pods_own() -> None:
    scenario = with_arms(load_source("seed"), KUBERNETES_ARMS)
    setup = RunSetup("r", scenario, "t", ("w1", "w2", "w3"), "2030-01-01T00:00:00Z")
    pods = round_pods(setup)
    assert sorted(images_of(pods)) == ["kabench-agent:0.1.0", "kabench-noise:0.1.0", "redis:7.4.2"]
    assert len({pod["metadata"]["name"] for pod in pods}) == len(pods)
    assert {pod["metadata"]["namespace"] for pod in pods} == {"kabench-r"}
    silent = scenario.model_copy(update={"noise": scenario.noise.model_copy(update={"nodes": 0})})
    quiet = RunSetup("r", silent, "t", ("w1", "w2"), "2030-01-01T00:00:00Z")
    assert "kabench-noise:0.1.0" not in images_of(round_pods(quiet))


def test_metrics_are_a_note() -> None:
    assert metrics_finding({"apps", "metrics.k8s.io"}).level == "ok"
    assert metrics_finding({"apps"}).level == "note"


def group(nodes: str, *cpus: int, boot_id: str = "b") -> Group:
    return Group(tuple(nodes.split()), frozenset(cpus), boot_id)


TWO = [group("w1 w2 w3", 0), group("w4 w5 w6", 1)]


@pytest.mark.parametrize(
    ("groups", "noisy", "level", "said"),
    [
        (TWO, 3, "ok", "With noise on 3 of 6, 3 can be quiet"),
        (TWO, 1, "ok", "With noise on 1 of 6, 3 can be quiet"),
        (TWO, 4, "warning", "With noise on 4 of 6, none can be quiet"),
        (TWO, 0, "ok", "There is no noise"),
        ([group("w1 w2", 0, 1, 2, 5)], 1, "warning", "w1, w2 on CPU 0-2,5: each shares CPUs with others"),
        (
            [group("w1", 0), group("w2 w3", 1), group("w4", 2)],
            2,
            "ok",
            "With noise on 2 of 4, 2 can be quiet",
        ),
        ([group("w1", 0, boot_id="b"), group("w2", 0, boot_id="c")], 1, "ok", "(2 machines)"),
    ],
)
def test_which_nodes_can_be_quiet(groups: list[Group], noisy: int, level: Any, said: str) -> None:
    finding = separation_finding(groups, noisy)
    assert finding.level == level
    assert said in finding.text
    assert bool(finding.advice) == (level == "warning")


def test_too_much_noise_is_told_with_how_much_leaves_quiet_nodes() -> None:
    finding = separation_finding([group("w1 w2", 0), group("w3", 1)], 3)
    assert finding.advice == "set noise.nodes to 2 or less"
    assert separation_finding([group("w1 w2", 0), group("w3", 1)], 2).level == "ok"


def test_of_many_names_the_last_ones_are_counted() -> None:
    assert some(["a", "b"]) == "a, b"
    assert some([str(number) for number in range(1000)]) == "0, 1, 2, 3, 4, 5, 6, 7 and 992 more"
