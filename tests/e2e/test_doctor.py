"""`kabench doctor` on a real cluster, with the shipped rights only."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from e2e_kit import RUN_S, SMALL, Admin, Cluster
from kubernetes_asyncio import client, config
from run_kit import Controller, until, write_scenario

from cluster import layout
from kabench.backends.kubernetes import naming
from kabench.backends.kubernetes.api import Cluster as Api
from kabench.backends.kubernetes.manifests import Object, load_all

LESSER = "s-test-lesser"
LAST_WORKER = "worker-6"


Findings = dict[str, list[dict[str, Any]]]


def findings(cluster: Cluster, *args: str) -> tuple[int, Findings]:
    """The exit code, and the findings by check."""
    return told(cluster.start("doctor", "--json", *args))


def told(doctor: Controller) -> tuple[int, Findings]:
    """The exit code and the findings of one that has been started."""
    code, out, err = doctor.wait(RUN_S)
    assert not err
    answer = json.loads(out)
    assert answer["could_run"] is (code == 0)
    found: Findings = {}
    for finding in answer["findings"]:
        found.setdefault(finding["check"], []).append(finding)
    return code, found


@pytest.fixture
def foreign(cluster: Cluster) -> Cluster:
    """The cluster under a context's name that is not ours."""
    content = json.loads(cluster.kubeconfig.read_text())
    content["contexts"][0]["name"] = content["current-context"] = "production"
    cluster.kubeconfig = cluster.folder / "foreign"
    cluster.kubeconfig.write_text(json.dumps(content))
    return cluster


def test_a_foreign_context_is_refused_and_once_it_is_allowed_a_run_could_start(foreign: Cluster) -> None:
    code, out, err = foreign.call("doctor")
    assert (code, out) == (2, "")
    assert "--allow-context production" in err
    code, found = findings(foreign, "--allow-context", "production", "--scheduler", "second")
    assert code == 0, found
    levels = {check: {one["level"] for one in ones} for check, ones in found.items()}
    assert levels.pop("metrics") == {"note"}  # the test cluster has no metrics server
    assert set().union(*levels.values()) == {"ok"}, found
    assert "allowed by --allow-context" in found["context"][0]["text"]
    bound = [one["text"] for one in found["scheduler"]]
    assert [text.split()[0] for text in bound] == ["default-scheduler", "second"]
    assert "6 agents answer through the API server's proxy" in found["agents' API"][0]["text"]
    assert "2 groups of nodes share no CPU" in found["CPUs"][0]["text"]


def test_a_scheduler_and_an_image_that_do_not_exist_are_told_beside_all_that_works(cluster: Cluster) -> None:
    absent = "{pull_policy: Never, images: {agent: 'nowhere.example/agent:1'}}"
    scenario = write_scenario(cluster.folder, SMALL, agents="3", kubernetes=absent)
    beside = ("doctor", "--json", "--alongside")  # each other: most of their time is waiting
    without_scheduler = cluster.start(*beside, "--agents", "3", "--scheduler", "nobody")
    without_image = cluster.start(*beside, scenario)

    code, found = told(without_scheduler)
    assert code == 4
    [problem] = [one for ones in found.values() for one in ones if one["level"] == "problem"]
    assert (problem["check"], problem["text"]) == ("scheduler", "nobody has bound no pod within 10 s")
    assert found["agents"][0]["level"] == "ok"
    assert "a cluster that kabench makes" in found["context"][0]["text"]

    code, found = told(without_image)
    assert code == 4
    assert "nowhere.example/agent:1 on worker-1, " in found["images"][0]["text"]
    [agents] = found["agents"]
    assert agents["level"] == "problem"
    assert "nowhere.example/agent:1 is not to be had (ErrImageNeverPull)" in agents["text"]


@pytest.fixture
def cordoned(admin: Admin) -> Iterator[str]:
    """A worker that takes no pods meanwhile."""
    node: Object = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": LAST_WORKER}}
    admin.ask(lambda api: api.apply({**node, "spec": {"unschedulable": True}}))
    yield LAST_WORKER
    admin.ask(lambda api: api.apply(node))


def test_too_few_workers_are_explained_and_no_pod_is_started(cluster: Cluster, cordoned: str) -> None:
    code, out, _ = cluster.call("doctor")
    assert code == 4
    assert f"{cordoned} is cordoned" in out
    assert f"kubectl uncordon {cordoned}, or --agents 5" in " ".join(out.split())
    assert "no pods were started" in out
    assert "a run could not start" in out


@pytest.fixture
def lesser_account(admin: Admin, kubeconfig: Path, tmp_path: Path) -> Iterator[Path]:
    """A kubeconfig of an account that has all rights of the shipped role but those on pods/proxy."""
    [role] = [one for one in load_all("controller-rbac") if one["kind"] == "ClusterRole"]
    role["metadata"]["name"] = LESSER
    role["rules"] = [rule for rule in role["rules"] if rule["resources"] != ["pods/proxy"]]
    account = {"kind": "ServiceAccount", "name": LESSER, "namespace": naming.SYSTEM_NAMESPACE}
    rbac = "rbac.authorization.k8s.io"
    objects: list[Object] = [
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": LESSER, "namespace": naming.SYSTEM_NAMESPACE},
        },
        role,
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": LESSER},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": LESSER},
            "subjects": [account],
        },
    ]
    for one in objects:
        admin.ask(partial(_applied, one))
    content = json.loads(kubeconfig.read_text())
    content["users"][0]["user"]["token"] = asyncio.run(_token_of(LESSER))
    path = tmp_path / "lesser"
    path.write_text(json.dumps(content))
    yield path
    for one in objects:
        admin.ask(partial(_deleted, one))


async def _applied(wanted: Object, api: Api) -> None:
    await api.apply(wanted)


async def _deleted(wanted: Object, api: Api) -> None:
    metadata = wanted["metadata"]
    await api.delete(wanted["kind"], metadata["name"], metadata.get("namespace", ""))


async def _token_of(account: str) -> str:
    settings = client.Configuration()
    await config.load_kube_config(str(layout.KUBECONFIG), layout.CONTEXT, client_configuration=settings)
    async with client.ApiClient(settings) as connection:
        answer = await client.CoreV1Api(connection).create_namespaced_service_account_token(
            account, naming.SYSTEM_NAMESPACE, {"spec": {"expirationSeconds": 600}}
        )
    return str(answer.status.token)


def test_rights_that_are_missing_are_named(cluster: Cluster, lesser_account: Path) -> None:
    code, found = findings(cluster, "--kubeconfig", str(lesser_account))
    assert code == 4
    [rights] = found["rights"]
    assert rights["level"] == "problem"
    assert re.match(r"2 of \d+ are missing: get pods/proxy, create pods/proxy$", rights["text"])
    assert "no pods were started" in found["trial"][0]["text"]


def test_interrupted_it_takes_its_pods_away(cluster: Cluster) -> None:
    doctor = cluster.start("doctor", "--agents", "3")
    [namespace] = until(cluster.admin.run_namespaces, "the trial's namespace")
    until(lambda: cluster.admin.pods(namespace.removeprefix("kabench-")), "the trial's pods")
    doctor.signal(signal.SIGINT)
    code, _, err = doctor.wait()
    assert code == 130, err
    assert cluster.admin.run_namespaces() == []
