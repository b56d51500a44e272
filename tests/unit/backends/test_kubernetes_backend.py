"""The Kubernetes backend where something is not as it should be, on a cluster in memory."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from living_cluster import LivingCluster
from memory_cluster import a_namespace, a_pod, a_token

from kabench.backends.base import Fleet, Round
from kabench.backends.kubernetes import backend as backend_module
from kabench.backends.kubernetes.access import Access
from kabench.backends.kubernetes.backend import KubernetesBackend
from kabench.backends.kubernetes.refusals import Refused
from kabench.clock import ManualClock
from kabench.core.roles import roles
from kabench.core.spec import NS_PER_S, Noise, Phase, Scenario, Stressor, Target
from kabench.errors import ClusterError, SpecError, TargetLost

DEFAULT = Phase(name="default", scheduler="default-scheduler")
MISSING = {"waiting": {"reason": "ErrImageNeverPull"}}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> LivingCluster:
    cluster = LivingCluster()
    monkeypatch.setattr(backend_module, "open_cluster", cluster.opened)
    return cluster


def scenario(*phases: Phase, agents: int = 4) -> Scenario:
    return Scenario(
        name="s",
        agents=agents,
        phases=phases or (DEFAULT,),
        targets=(Target(name="cache", kind="redis", replicas=2),),
        noise=Noise(nodes=1, stressors=(Stressor(kind="stress-cpu"),)),
    )


@contextlib.asynccontextmanager
async def started(wanted: Scenario | None = None, access: Access | None = None) -> AsyncIterator[Fleet]:
    backend = KubernetesBackend(access or Access())
    async with backend.started(wanted or scenario(), "r", Path("unused"), "new-token") as fleet:
        yield fleet


def round_of(fleet: Fleet, *noisy: str, block: int = 1, phase: Phase = DEFAULT) -> Round:
    found = roles({node.name: (node.boot_id, node.cpus) for node in fleet.nodes}, noisy)
    return Round(f"{block:03d}-{phase.name}", block, phase, noisy, 1, found)


def namespaces(cluster: LivingCluster) -> list[str]:
    return [name for kind, _, name in cluster.objects if kind == "Namespace"]


async def test_a_scheduler_that_does_not_exist_is_named_and_nothing_is_left(
    cluster: LivingCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend_module, "CANARY_S", 0.01)
    with pytest.raises(ClusterError, match="no scheduler named mine is bound to answer"):
        async with started(scenario(Phase(name="mine", scheduler="mine"))):
            pytest.fail("it started")
    assert namespaces(cluster) == []


async def test_an_image_that_is_not_there_ends_the_start_at_once(cluster: LivingCluster) -> None:
    cluster.state = lambda _pod: MISSING
    with pytest.raises(SpecError, match=r"kabench-agent:\S+ is not to be had \(ErrImageNeverPull\)"):
        async with started():
            pytest.fail("it started")
    assert namespaces(cluster) == []


async def test_a_quota_that_nobody_counts_is_told(
    cluster: LivingCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend_module, "QUOTA_S", 0.01)
    cluster.quota_is_seen = False
    with pytest.raises(ClusterError, match="kube-controller-manager"):
        async with started():
            pytest.fail("it started")
    assert namespaces(cluster) == []


async def test_too_few_workers_are_counted_with_the_reasons_of_the_others(cluster: LivingCluster) -> None:
    cluster.objects["Node", "", "w1"]["spec"]["unschedulable"] = True
    with pytest.raises(
        ClusterError, match=r"5 workers .* and 6 are wanted \(w1: cordoned\); give --agents 5"
    ):
        async with started(scenario(agents=6)):
            pytest.fail("it started")


async def test_another_active_run_is_respected_unless_told(cluster: LivingCluster) -> None:
    cluster.objects["Namespace", "", "kabench-other"] = a_namespace("other", "2099-01-01T00:00:00Z")
    with pytest.raises(
        ClusterError, match=r"the run other is active .*, until 2099-01-01 00:00 UTC\): .* --alongside"
    ):
        async with started():
            pytest.fail("it started")
    async with started(access=Access(alongside=True)):
        assert sorted(namespaces(cluster)) == ["kabench-other", "kabench-r"]
    assert namespaces(cluster) == ["kabench-other"]


@pytest.mark.parametrize(
    "other", [a_namespace("other", "2020-01-01T00:00:00Z"), a_namespace("other", ending=True)]
)
async def test_a_run_that_is_over_does_not_stand_in_the_way(
    cluster: LivingCluster, other: dict[str, Any]
) -> None:
    cluster.objects["Namespace", "", "kabench-other"] = other
    async with started() as fleet:
        assert len(fleet.agents) == 4


def left_by_a_session(cluster: LivingCluster, *more: dict[str, Any]) -> None:
    pods = [a_pod("r", f"kabench-agent-{node}", node) for node in ("w2", "w3", "w5", "w6")]
    for pod in pods:
        pod["status"]["conditions"] = [{"type": "Ready", "status": "True"}]
        pod["status"]["containerStatuses"] *= 2
        pod["spec"]["containers"] *= 2
    for one in (a_namespace("r"), a_token("r"), *pods, *more):
        metadata = one["metadata"]
        cluster.objects[one["kind"], metadata.get("namespace", ""), metadata["name"]] = one


async def test_a_resumed_run_goes_on_with_the_agents_that_it_has(cluster: LivingCluster) -> None:
    leftover = a_pod("r", "cache-1-1-default", "w2", "target")
    left_by_a_session(cluster, leftover)
    async with started() as fleet:
        assert [node.name for node in fleet.nodes] == ["w2", "w3", "w5", "w6"]
        assert {agent.token for agent in fleet.agents} == {"the-token"}
        assert cluster.pods("target") == []
        assert all("kabench-agent" not in call for call in cluster.calls)
    assert namespaces(cluster) == []


async def test_a_resumed_run_that_cannot_start_leaves_what_agents_hold(
    cluster: LivingCluster, caplog: pytest.LogCaptureFixture
) -> None:
    left_by_a_session(cluster)
    cluster.refused["DaemonSet"] = Refused(403, "no", "the API server refuses")
    with pytest.raises(Refused):
        async with started():
            pytest.fail("it started")
    assert namespaces(cluster) == ["kabench-r"]
    assert len(cluster.pods("agent")) == 4
    assert "kabench collect r" in caplog.text


async def test_a_cancelled_start_leaves_nothing(cluster: LivingCluster) -> None:
    cluster.state = lambda _pod: {"waiting": {"reason": "ContainerCreating"}}

    async def run() -> None:
        async with started():
            pytest.fail("it started")

    task = asyncio.create_task(run())
    while not cluster.pods("agent"):  # noqa: ASYNC110 - a turn of the loop
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert namespaces(cluster) == []


async def test_a_namespace_that_stays_is_told_and_hides_no_error(
    cluster: LivingCluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("kabench.backends.kubernetes.cleaning.GONE_S", 0.01)
    cluster.held_up["kabench-r"] = "a finalizer"
    with caplog.at_level(logging.WARNING), pytest.raises(ZeroDivisionError):
        async with started():
            raise ZeroDivisionError
    assert "a finalizer" in caplog.text
    assert "kabench clean --run r" in caplog.text


async def test_decoys_stay_where_the_next_round_wants_them(cluster: LivingCluster) -> None:
    async with started() as fleet:
        first, second, *_ = [node.name for node in fleet.nodes]
        await fleet.start_noise(round_of(fleet, first))
        before = {pod["spec"]["nodeName"]: pod["metadata"]["uid"] for pod in cluster.pods("decoy")}
        assert before.keys() == {node.name for node in fleet.nodes} - {first}
        await fleet.stop_noise()
        await fleet.start_noise(round_of(fleet, second, block=2))
        after = {pod["spec"]["nodeName"]: pod["metadata"]["uid"] for pod in cluster.pods("decoy")}
        assert after.keys() == {node.name for node in fleet.nodes} - {second}
        assert {node for node in before if after.get(node) == before[node]} == before.keys() - {second}
        assert list(fleet.casualties()) == []


async def test_decoys_that_would_not_outlive_the_round_are_made_anew(cluster: LivingCluster) -> None:
    clock = ManualClock()
    async with KubernetesBackend(Access(), clock).started(scenario(), "r", Path(), "t") as fleet:
        noisy = fleet.nodes[0].name
        await fleet.start_noise(round_of(fleet, noisy))
        before = {pod["metadata"]["uid"] for pod in cluster.pods("decoy")}
        await fleet.stop_noise()
        clock.advance(3500 * NS_PER_S)
        await fleet.start_noise(round_of(fleet, noisy, block=2))
        assert before.isdisjoint(pod["metadata"]["uid"] for pod in cluster.pods("decoy"))


async def test_noise_that_ends_by_itself_is_a_casualty_and_noted(cluster: LivingCluster) -> None:
    async with started() as fleet:
        await fleet.start_noise(round_of(fleet, fleet.nodes[0].name))
        (pod,) = cluster.pods("noise")
        cluster.end(pod, 137)
        while not (lost := list(fleet.casualties())):  # noqa: ASYNC110 - a turn of the loop
            await asyncio.sleep(0)
        assert [(one.role, one.node) for one in lost] == [("noise", fleet.nodes[0].name)]
        (work,) = await fleet.stop_noise()
        assert "ended early" in work.note


async def test_a_round_goes_on_without_a_node_that_is_out_of_reach(
    cluster: LivingCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kabench.backends.kubernetes.ending.END_S", 0.01)
    monkeypatch.setattr("kabench.backends.kubernetes.agents.HEAL_S", 0.05)
    async with started() as fleet:
        lost, *others = [node.name for node in fleet.nodes]
        await fleet.start_noise(round_of(fleet, others[0]))
        cluster.cut.add(lost)
        cluster.objects["Node", "", lost]["status"]["conditions"] = [{"type": "Ready", "status": "Unknown"}]
        (agent,) = [pod for pod in cluster.pods("agent") if pod["spec"]["nodeName"] == lost]
        agent["status"]["conditions"] = []
        cluster._tell("MODIFIED", agent)
        while len(fleet.agents) == 4:  # noqa: ASYNC110 - a turn of the loop
            await asyncio.sleep(0)
        assert [(one.role, one.node) for one in fleet.casualties()] == [("agent", lost)]
        await fleet.stop_noise()
        assert list(await fleet.heal([lost])) == [lost]
        monkeypatch.setattr("kabench.backends.kubernetes.agents.HEAL_S", 1e6)  # it is not waited for again
        assert list(await fleet.heal([lost])) == []
        await fleet.start_noise(round_of(fleet, lost, block=2))
        assert lost not in {pod["spec"]["nodeName"] for pod in cluster.pods("decoy")}
        (work,) = await fleet.stop_noise()
        assert (work.node, work.ops) == (lost, None)
        assert "out of reach" in work.note


async def test_pods_on_a_node_that_the_cluster_calls_lost_are_not_waited_for(
    cluster: LivingCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kabench.backends.kubernetes.ending.END_S", 1e6)
    async with started() as fleet:
        lost = fleet.nodes[0].name
        await fleet.start_noise(round_of(fleet, lost))
        cluster.cut.add(lost)
        (noise,) = cluster.pods("noise")
        stopping = asyncio.create_task(fleet.stop_noise())
        for _ in range(20):
            await asyncio.sleep(0)
        assert not stopping.done()  # as far as anyone knows, it is about to end
        noise["status"]["conditions"] = []
        cluster._tell("MODIFIED", noise)
        async with asyncio.timeout(5):
            await stopping
        assert cluster.pods("noise") == []


async def test_a_node_that_comes_back_into_reach_is_waited_for(cluster: LivingCluster) -> None:
    async with started() as fleet:
        lost = fleet.nodes[0].name
        cluster.objects["Node", "", lost]["status"]["conditions"] = [{"type": "Ready", "status": "Unknown"}]
        (agent,) = [pod for pod in cluster.pods("agent") if pod["spec"]["nodeName"] == lost]
        ready, agent["status"]["conditions"] = agent["status"]["conditions"], []
        cluster._tell("MODIFIED", agent)
        while len(fleet.agents) == 4:  # noqa: ASYNC110 - a turn of the loop
            await asyncio.sleep(0)
        healing = asyncio.create_task(fleet.heal([lost]))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not healing.done()
        agent["status"]["conditions"] = ready
        cluster._tell("MODIFIED", agent)
        await healing
        assert lost in {endpoint.node for endpoint in fleet.agents}


@pytest.mark.parametrize(
    ("state", "kind", "words"),
    [
        (MISSING, SpecError, "is not to be had"),
        ({"terminated": {"exitCode": 1, "message": "no port"}}, ClusterError, "exit code 1: no port"),
    ],
)
async def test_a_target_that_does_not_start_says_why_and_is_cleared(
    cluster: LivingCluster, state: dict[str, Any], kind: type[Exception], words: str
) -> None:
    async with started() as fleet:
        cluster.state = lambda _pod: state
        with pytest.raises(kind, match=words):
            await fleet.place(round_of(fleet), {})
        await fleet.clear()
        await fleet.stop_noise()
        assert cluster.pods("target") == []


async def test_a_target_that_is_taken_away_before_it_runs_is_lost(cluster: LivingCluster) -> None:
    async with started() as fleet:
        cluster.state = lambda _pod: {"waiting": {"reason": "ContainerCreating"}}
        placing = asyncio.create_task(fleet.place(round_of(fleet), {}))
        while len(cluster.pods("target")) < 2:  # noqa: ASYNC110 - a turn of the loop
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        cluster.vanish(cluster.pods("target")[0])
        with pytest.raises(TargetLost, match="was deleted before it ran"):
            await placing


async def test_the_run_is_renewed_before_it_expires(cluster: LivingCluster) -> None:
    clock = ManualClock()
    async with KubernetesBackend(Access(), clock).started(scenario(), "r", Path(), "t") as fleet:

        def expires() -> str:
            annotations = cluster.objects["Namespace", "", "kabench-r"]["metadata"]["annotations"]
            return str(annotations["kabench.dev/expires"])

        first = expires()
        await fleet.start_noise(round_of(fleet))
        assert expires() == first
        clock.advance(3600 * NS_PER_S)
        await fleet.start_noise(round_of(fleet))
        assert expires() > first


async def test_a_signal_does_not_cut_the_removal_short(
    cluster: LivingCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()
    remove = backend_module.remove

    async def slow_removal(*arguments: Any) -> None:
        begun.set()
        await go_on.wait()
        await remove(*arguments)

    monkeypatch.setattr(backend_module, "remove", slow_removal)

    async def run() -> None:
        async with started():
            pass

    task = asyncio.create_task(run())
    await begun.wait()
    task.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert namespaces(cluster) == []


async def test_the_time_to_schedule_is_from_the_request_to_the_first_sight_of_a_node(
    cluster: LivingCluster,
) -> None:
    clock = ManualClock()
    async with KubernetesBackend(Access(), clock).started(scenario(), "r", Path(), "t") as fleet:
        cluster.state = lambda _pod: clock.advance(7)
        placed = await fleet.place(round_of(fleet), {})
        assert [target.pending_ns for target in placed] == [14, 14]  # all are asked for together


async def test_images_are_recorded_with_the_digests_that_kubelets_list_them_by(
    cluster: LivingCluster,
) -> None:
    wanted = scenario()
    image, digest = wanted.kubernetes.images.redis, f"sha256:{'1' * 64}"
    listed = [f"docker.io/library/{image}", f"docker.io/library/redis@{digest}"]
    for node in cluster.objects.values():
        node["status"]["images"] = [{"names": listed}]
    async with started(wanted) as fleet:
        images = fleet.environment()["images"]
    assert images["redis"] == {"name": image, "digest": digest}
    assert images["noise"]["digest"] == "unavailable"
