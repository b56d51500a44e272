"""The Kubernetes backend under the suite, on a cluster in memory; the cluster tier has it on real kubelets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from backend_contract import Case, EndContract, FleetContract, until
from living_cluster import LivingCluster

from kabench.backends.base import Fleet
from kabench.backends.kubernetes.access import Access
from kabench.backends.kubernetes.backend import KubernetesBackend
from kabench.core.spec import Phase


@pytest.fixture(scope="class")
def case() -> Iterator[Case]:
    cluster = LivingCluster()

    async def kill_agent(fleet: Fleet, node: str) -> None:
        cluster.state = lambda _pod: {"waiting": {"reason": "ContainerCreating"}}
        (pod,) = [one for one in cluster.pods("agent") if one["spec"]["nodeName"] == node]
        cluster.vanish(pod)
        await until(lambda: all(agent.node != node for agent in fleet.agents))
        (young,) = [one for one in cluster.pods("agent") if one["spec"]["nodeName"] == node]
        cluster.state = lambda _pod: None
        cluster._run(young, node)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kabench.backends.kubernetes.backend.open_cluster", cluster.opened)
        yield Case(
            backend=lambda: KubernetesBackend(Access()),
            kill_agent=kill_agent,
            phase=Phase(name="second", scheduler="second"),
            decided_by="second",
            killed="deleted",
            explains=False,
            knows_cpus=False,
        )
    left: list[Any] = [key for key in cluster.objects if key[0] != "Node"]
    assert not left, f"the backend left {left}"


class TestFleetInMemory(FleetContract):
    """One fleet for all."""


class TestInMemory(EndContract):
    """With a fleet for each test."""
