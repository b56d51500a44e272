"""Runs on the test cluster, as a user starts them, and what an administrator sees meanwhile."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from kubernetes_asyncio import client, config
from run_kit import Controller, events, results, run_folder, until, write_scenario

from cluster import layout
from kabench.backends.kubernetes import naming
from kabench.backends.kubernetes.access import Access
from kabench.backends.kubernetes.api import Cluster as Api
from kabench.backends.kubernetes.api import open_cluster
from kabench.backends.kubernetes.manifests import Object, load_all

T = TypeVar("T")

SMALL = """
name: small
seed: 5
agents: 6
phases: [{name: default, scheduler: default-scheduler}]
targets:
  - {name: cache, kind: redis, replicas: 2, slo: {p99_ms: 1}, redis: {keys: 50}}
  - {name: echo, kind: http, replicas: 2, slo: {p99_ms: 5}}
noise:
  nodes: 2
  stressors: [{kind: stress-cpu, requests: {cpu_millis: 200, memory_mib: 64}}]
load: {rate_per_s: 600, timeout_ms: 1000}
blocks: {planned: 1, reserve: 0}
timing: {window_s: 2, warm_up_s: 0.5, ready_timeout_s: 20}
gates: {quiet_lag_p99_ms: 10000, strangers_cpu_share: 1}
kubernetes: {}
"""
"""One block of one phase. Its gates are wide: tests of faults must not hang on this machine's load."""

FEW = {"agents": "2", "  nodes": "1"}
"""For `replaced`: the small scenario on two workers, where more prove nothing more."""

RUN_S = 180
"""A small run takes half a minute; so long where something is broken."""


class Admin:
    """The administrator's view; every call is a connection of its own."""

    def __init__(self, kubeconfig: Path) -> None:
        self._access = Access(kubeconfig=kubeconfig)

    def ask(self, question: Callable[[Api], Awaitable[T]]) -> T:
        """Run `question` with the cluster's API."""

        async def asked() -> T:
            async with open_cluster(self._access) as api:
                return await question(api)

        return asyncio.run(asked())

    def run_namespaces(self) -> list[str]:
        """The namespaces of runs, those that are being deleted too."""
        found = self.ask(
            lambda api: api.list("Namespace", labels=f"{naming.MANAGED_BY}=kabench,{naming.RUN}")
        )
        return sorted(str(one["metadata"]["name"]) for one in found)

    def pods(self, run: str, role: str = "") -> list[Object]:
        """The pods of a run, of one role or of all."""
        labels = {naming.RUN: run} | ({naming.ROLE: role} if role else {})
        return self.ask(lambda api: api.list("Pod", naming.namespace_of(run), labels=naming.selector(labels)))

    def delete_pod(self, pod: Object) -> None:
        """Delete it at once."""
        metadata = pod["metadata"]
        self.ask(lambda api: api.delete("Pod", metadata["name"], metadata["namespace"], grace_s=0))

    def remove(self, namespace: str) -> None:
        """Delete a namespace, and wait until it is gone."""

        async def gone(api: Api) -> None:
            await api.delete("Namespace", namespace)
            async with asyncio.timeout(60):
                while await api.get("Namespace", namespace) is not None:  # noqa: ASYNC110 - a test may poll
                    await asyncio.sleep(0.3)

        self.ask(gone)


class Cluster:
    """Commands against the cluster, with the shipped rights, in a folder of their own."""

    def __init__(self, admin: Admin, kubeconfig: Path, folder: Path) -> None:
        self.admin, self.kubeconfig, self.folder = admin, kubeconfig, folder
        self.out = folder / "results"
        self._controllers: list[Controller] = []
        self._others: list[Cluster] = []

    def beside(self, name: str) -> Cluster:
        """Another user of the cluster, with a folder of their own."""
        other = Cluster(self.admin, self.kubeconfig, self.folder / name)
        other.folder.mkdir()
        self._others.append(other)
        return other

    def start(self, *args: str | Path) -> Controller:
        """Start `kabench ARGS`."""
        controller = Controller(*args, cwd=self.folder, env={"KUBECONFIG": str(self.kubeconfig)})
        self._controllers.append(controller)
        return controller

    def call(self, *args: str | Path) -> tuple[int, str, str]:
        """`kabench ARGS`, to its end: exit code, output, errors."""
        return self.start(*args).wait(RUN_S)

    def start_run(self, *args: str | Path, **replaced: str) -> Controller:
        """Start a run of the small scenario, with some of its lines replaced."""
        scenario = write_scenario(self.folder, SMALL, **replaced)
        return self.start("run", scenario, "--backend", "kubernetes", "--out", self.out, *args)

    def run(self, *args: str | Path, **replaced: str) -> tuple[int, str, str]:
        """A run of the small scenario, to its end."""
        return self.start_run(*args, **replaced).wait(RUN_S)

    @property
    def run_id(self) -> str:
        """The newest run."""
        folder = run_folder(self.out)
        assert folder is not None
        return folder.name

    def results(self) -> dict[str, Any]:
        """The newest run's."""
        return results(self.out)

    def wait_for(self, event: str, count: int = 1) -> list[dict[str, Any]]:
        """Wait until the newest run's journal has so many events of a kind; "round-started" is when a window is armed."""
        found: list[dict[str, Any]] = until(
            lambda: (seen := events(self.out, event))[count - 1 :] and seen, f"{count} × {event}", RUN_S
        )
        return found

    def in_window(self, count: int = 1) -> None:
        """Wait until the `count`-th window is about to measure: a second after its agents were armed."""
        self.wait_for("round-started", count)
        time.sleep(1)

    def end(self) -> None:
        """End what still runs."""
        for other in self._others:
            other.end()
        for controller in self._controllers:
            if controller.process.poll() is None:
                controller.process.kill()
            controller.close()


def controller_kubeconfig(admin: Path, path: Path) -> None:
    """Apply the shipped rights, and write a kubeconfig of the account that has them."""
    host, authority, token = asyncio.run(_account(admin))
    where = {"server": host, "certificate-authority": authority}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": layout.CONTEXT,
        "clusters": [{"name": layout.CONTEXT, "cluster": where}],
        "users": [{"name": naming.CONTROLLER, "user": {"token": token}}],
        "contexts": [
            {"name": layout.CONTEXT, "context": {"cluster": layout.CONTEXT, "user": naming.CONTROLLER}}
        ],
    }
    path.write_text(json.dumps(content))
    path.chmod(0o600)


async def _account(admin: Path) -> tuple[str, str, str]:
    """The API server's address, the file with its authority, and the account's token."""
    async with open_cluster(Access(kubeconfig=admin)) as api:
        for wanted in load_all("controller-rbac"):
            await api.apply(wanted)
    settings = client.Configuration()
    await config.load_kube_config(str(admin), layout.CONTEXT, client_configuration=settings)
    async with client.ApiClient(settings) as connection:
        request = {"spec": {"expirationSeconds": 4 * 3600}}
        answer = await client.CoreV1Api(connection).create_namespaced_service_account_token(
            naming.CONTROLLER, naming.SYSTEM_NAMESPACE, request
        )
    return settings.host, str(settings.ssl_ca_cert), str(answer.status.token)
