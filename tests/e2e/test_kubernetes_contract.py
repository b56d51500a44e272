"""The Kubernetes backend under the suite that all backends pass, with the shipped rights, on six real kubelets."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from backend_contract import Case, EndContract, FleetContract, until
from e2e_kit import Admin

from kabench.backends.base import Fleet
from kabench.backends.kubernetes.access import Access
from kabench.backends.kubernetes.backend import KubernetesBackend
from kabench.core.spec import Phase


@pytest.fixture(scope="class")
def case(kubeconfig: Path, admin: Admin) -> Iterator[Case]:
    async def kill_agent(fleet: Fleet, node: str) -> None:
        run = str(fleet.environment()["cluster"]["namespace"]).removeprefix("kabench-")
        pods = await asyncio.to_thread(admin.pods, run, "agent")
        (pod,) = [one for one in pods if one["spec"]["nodeName"] == node]
        await asyncio.to_thread(admin.delete_pod, pod)
        await until(lambda: all(agent.node != node for agent in fleet.agents))

    yield Case(
        backend=lambda: KubernetesBackend(Access(kubeconfig=kubeconfig)),
        kill_agent=kill_agent,
        phase=Phase(name="second", scheduler="second"),
        decided_by="second",
        killed="deleted",
        explains=False,
        knows_cpus=False,
    )
    left = admin.run_namespaces()
    assert not left, f"the backend left {left}"


class TestFleetOnKubernetes(FleetContract):
    """One fleet for all."""


class TestOnKubernetes(EndContract):
    """With a fleet for each test."""
