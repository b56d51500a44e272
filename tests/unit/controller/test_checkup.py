"""All checks of a cluster in turn, the trial included: a cluster in memory, with real agents in it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from agent_kit import TOKEN, served
from memory_cluster import MemoryCluster, a_namespace, a_node

from kabench.backends.kubernetes import agents, holding, trial
from kabench.backends.kubernetes.access import Access
from kabench.backends.kubernetes.doctor import Finding
from kabench.cli.sources import load_source
from kabench.controller import checkup
from kabench.controller.checkup import check_up
from kabench.core.scenario import KUBERNETES_ARMS, override, with_arms
from kabench.errors import ClusterError, SpecError

IMAGES = (
    "docker.io/library/kabench-agent:0.1.0",
    "docker.io/library/kabench-noise:0.1.0",
    "docker.io/library/redis:7.4.2",
)
NODES = ("w1", "w2", "w3", "w4", "w5")
SCENARIO = override(with_arms(load_source("seed"), KUBERNETES_ARMS), agents=len(NODES))


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> MemoryCluster:
    """Ready for a run."""
    cluster = MemoryCluster(*(a_node(name, *IMAGES) for name in NODES))

    @contextlib.asynccontextmanager
    async def opened(_: Access) -> AsyncIterator[Any]:
        yield cluster

    monkeypatch.setattr(checkup, "open_cluster", opened)
    monkeypatch.setattr(checkup.secrets, "token_urlsafe", lambda _: TOKEN)
    return cluster


@pytest.fixture
async def at_work(cluster: MemoryCluster, tmp_path: Path) -> AsyncIterator[None]:
    """The agent that answers for all nodes."""
    async with served(tmp_path) as agent:
        cluster.urls = {f"agent-{name}": agent.endpoint.base_url for name in NODES}
        yield


async def checked(*names: str, access: Access | None = None) -> dict[str, list[Finding]]:
    found: dict[str, list[Finding]] = {}
    await check_up(
        access or Access(), SCENARIO, names, lambda one: found.setdefault(one.check, []).append(one)
    )
    return found


def left(cluster: MemoryCluster) -> set[str]:
    """What is there beside the nodes."""
    return {kind for kind, _, _ in cluster.objects} - {"Node"}


@pytest.mark.usefixtures("at_work")
async def test_all_is_well(cluster: MemoryCluster) -> None:
    cluster.schedulers.add("mine")
    found = await checked("mine")
    [cpus] = found.pop("CPUs")
    assert {one.level for ones in found.values() for one in ones} == {"ok", "note"}
    assert [one.text.split()[0] for one in found["scheduler"]] == ["default-scheduler", "mine"]
    assert "5 agents answer through the API server's proxy" in found["agents' API"][0].text
    assert cpus.level == "warning"  # all of them have this machine's CPUs
    assert "no node can be quiet" in cpus.text
    assert left(cluster) == set()


@pytest.mark.usefixtures("at_work")
async def test_a_scheduler_that_binds_nothing_is_told_beside_what_works(
    cluster: MemoryCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "CANARY_S", 0.05)
    found = await checked("nobody")
    assert [(one.level, one.text) for one in found["scheduler"] if one.level != "ok"] == [
        ("problem", "nobody has bound no pod within 0.05 s")
    ]
    assert found["agents' API"][0].level == "ok"
    assert left(cluster) == set()


async def test_agents_that_do_not_come_up_are_not_called(
    cluster: MemoryCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def not_ready(_: agents.Agents) -> None:
        raise ClusterError("no agent is ready on w1")

    monkeypatch.setattr(agents.Agents, "ready", not_ready)
    cluster.runs_agents = False
    found = await checked()
    assert found["agents"] == [Finding("agents", "problem", "no agent is ready on w1")]
    assert "agents' API" not in found
    assert left(cluster) == set()


async def test_agents_that_do_not_answer_are_told(
    cluster: MemoryCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holding, "PROXY_PATIENCE_S", 0.0)
    cluster.urls = {f"agent-{name}": "http://127.0.0.1:1" for name in NODES}
    found = await checked()
    [way] = found["agents' API"]
    assert way.level == "problem"
    assert "5 agents do not answer through the API server's proxy (w1, w2, w3, w4, w5); w1: " in way.text
    assert "CPUs" not in found


@pytest.mark.usefixtures("at_work")
async def test_pods_that_are_not_let_in_are_told(cluster: MemoryCluster) -> None:
    cluster.refused["agent"] = 'violates PodSecurity "restricted:latest"'
    [admission] = (await checked())["admission"]
    assert admission.level == "problem"
    assert "violates PodSecurity" in admission.text


@pytest.mark.parametrize("beside", ["a run", "rights", "nodes"])
async def test_nothing_is_started_where_a_run_could_not(cluster: MemoryCluster, beside: str) -> None:
    if beside == "a run":
        live = a_namespace("live", "2100-01-01T00:00:00Z")
        cluster.objects["Namespace", "", "kabench-live"] = live
    elif beside == "rights":
        cluster.denied = {"create pods/proxy"}
    else:
        cluster.objects["Node", "", "w1"] = a_node("w1", cordoned=True)
    found = await checked()
    assert "no pods were started" in found["trial"][0].text
    assert cluster.calls == []
    assert sum(one.level == "problem" for ones in found.values() for one in ones) == 1


@pytest.mark.usefixtures("at_work")
async def test_beside_another_run_when_told(cluster: MemoryCluster) -> None:
    cluster.objects["Namespace", "", "kabench-live"] = a_namespace("live", "2100-01-01T00:00:00Z")
    found = await checked(access=Access(alongside=True))
    assert found["runs"][0].level == "warning"
    assert found["agents"][0].level == "ok"
    assert ("Namespace", "", "kabench-live") in cluster.objects


async def test_cancelled_in_the_trial_it_takes_everything_away(
    cluster: MemoryCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = asyncio.Event()

    async def never_ready(_: agents.Agents) -> None:
        begun.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(agents.Agents, "ready", never_ready)
    task = asyncio.create_task(checked())
    await begun.wait()
    assert "Namespace" in left(cluster)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert left(cluster) == set()


async def test_a_cluster_that_fails_meanwhile_is_a_finding(
    cluster: MemoryCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def out_of_reach() -> str:
        raise ClusterError("the API server is out of reach")

    monkeypatch.setattr(cluster, "version", out_of_reach)
    assert (await checked())["cluster"] == [Finding("cluster", "problem", "the API server is out of reach")]


async def test_a_scenario_that_no_cluster_can_run_is_refused_at_once(cluster: MemoryCluster) -> None:
    local = load_source("seed")
    with pytest.raises(SpecError, match="policy"):
        await check_up(Access(), local, (), lambda _: None)
    assert cluster.asked == []
