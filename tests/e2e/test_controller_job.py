"""A run whose controller is a pod of the cluster: the shipped Job, with the shipped rights, and a scenario of its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import pytest
from e2e_kit import RUN_S, SMALL, Admin
from kubernetes_asyncio import client, config
from run_kit import until, write_scenario

from cluster import images, layout
from kabench.backends.kubernetes import naming
from kabench.backends.kubernetes.manifests import Object, load_all

T = TypeVar("T")

WHERE = layout.Worker(6)
SCENARIO = "small-scenario"
ENDED = ("Succeeded", "Failed")


def ask(question: Callable[[client.ApiClient], Awaitable[T]]) -> T:
    """Ask the API server as the cluster's administrator."""

    async def asked() -> T:
        settings = client.Configuration()
        await config.load_kube_config(str(layout.KUBECONFIG), layout.CONTEXT, client_configuration=settings)
        async with client.ApiClient(settings) as api:
            return await question(api)

    return asyncio.run(asked())


@pytest.fixture
def image(kubeconfig: object, controller_image: Future[Path]) -> None:
    """The controller's image, on one worker."""
    images.ctr(WHERE, "images", "import", controller_image.result())


def the_job() -> Object:
    """The shipped Job, on the worker that has its image, with a scenario of a minute instead of the seed benchmark."""
    [job] = load_all("controller-job")
    pod = job["spec"]["template"]["spec"]
    pod["nodeName"] = WHERE.name
    pod["volumes"].append({"name": "scenario", "configMap": {"name": SCENARIO}})
    [container] = pod["containers"]
    container["volumeMounts"].append({"name": "scenario", "mountPath": "/scenario"})
    container["args"] = [
        *(one for one in container["args"] if one != "--quick"),
        "--json",
        "/scenario/small.yaml",
    ]
    return job


@pytest.fixture
def job(image: None, admin: Admin, tmp_path: Path) -> Iterator[str]:
    """The Job's name; it is removed afterwards."""
    small = write_scenario(tmp_path, SMALL, agents="3").read_text()
    namespace = naming.SYSTEM_NAMESPACE

    async def create(api: client.ApiClient) -> str:
        data: Any = {"metadata": {"name": SCENARIO}, "data": {"small.yaml": small}}
        job: Any = the_job()
        await client.CoreV1Api(api).create_namespaced_config_map(namespace, data)
        made = await client.BatchV1Api(api).create_namespaced_job(namespace, job)
        return str(made.metadata.name)

    async def delete(api: client.ApiClient) -> None:
        await client.CoreV1Api(api).delete_namespaced_config_map(SCENARIO, namespace)
        await client.BatchV1Api(api).delete_namespaced_job(name, namespace, propagation_policy="Foreground")

    name = ask(create)
    yield name
    ask(delete)
    for left in admin.run_namespaces():
        admin.remove(left)


def pods_of(job: str) -> list[Any]:
    """The Job's pods."""

    async def listed(api: client.ApiClient) -> list[Any]:
        found = await client.CoreV1Api(api).list_namespaced_pod(
            naming.SYSTEM_NAMESPACE, label_selector=f"job-name={job}"
        )
        return list(found.items)

    return ask(listed)


def test_a_run_from_inside_the_cluster(job: str, admin: Admin) -> None:
    [pod] = until(
        lambda: [one for one in pods_of(job) if one.status.phase in ENDED], "the end of the Job's pod", RUN_S
    )

    async def log(api: client.ApiClient) -> str:
        return str(
            await client.CoreV1Api(api).read_namespaced_pod_log(pod.metadata.name, naming.SYSTEM_NAMESPACE)
        )

    said = ask(log)
    assert pod.status.container_statuses[0].state.terminated.exit_code in (0, 3), said
    summary = json.loads(said[said.index("\n{\n") :])
    requests = summary["phases"]["default"]["redis"]["requests"]
    assert requests["planned"] == requests["sent"] > 0
    assert {placement["decided_by"] for placement in summary["placements"]} == {"default-scheduler"}
    assert admin.run_namespaces() == []  # it took everything away
