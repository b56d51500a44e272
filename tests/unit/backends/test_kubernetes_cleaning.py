"""What `kabench clean` removes, and how."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from memory_cluster import MemoryCluster, a_namespace, a_node, a_pod

from kabench.backends.kubernetes import cleaning
from kabench.backends.kubernetes.api import Cluster
from kabench.backends.kubernetes.cleaning import remove, to_remove
from kabench.backends.kubernetes.holding import HeldRun
from kabench.backends.kubernetes.manifests import Object
from kabench.backends.kubernetes.naming import namespace_of
from kabench.errors import ClusterError, SpecError

OLD = HeldRun("old", "kabench-old", expires_ns=5)
LIVE = HeldRun("live", "kabench-live", expires_ns=50)
GOING = HeldRun("going", "kabench-going", expires_ns=50, ending=True)
UNTOLD = HeldRun("untold", "kabench-untold", expires_ns=None)
RUNS = [GOING, LIVE, OLD, UNTOLD]


def removed(**flags: Any) -> list[str]:
    given: dict[str, Any] = {"run": None, "expired": False, "everything": False, "sure": False} | flags
    return [run.run for run in to_remove(RUNS, 10, **given)]


def test_without_a_flag_nothing_is_removed() -> None:
    assert removed() == []
    assert removed(sure=True) == []


def test_expired_are_those_whose_time_is_over_and_those_that_go_anyway() -> None:
    assert removed(expired=True) == ["going", "old"]


def test_a_run_is_removed_by_its_name_whatever_its_time() -> None:
    assert removed(run="live") == ["live"]
    assert removed(run="untold") == ["untold"]


def test_all_is_refused_while_some_may_be_active() -> None:
    with pytest.raises(SpecError, match="may still be active: live, untold; add --yes"):
        removed(everything=True)
    assert removed(everything=True, sure=True) == ["going", "live", "old", "untold"]
    assert to_remove([OLD, GOING], 10, run=None, expired=False, everything=True, sure=False) == [OLD, GOING]


@pytest.mark.parametrize(
    "flags",
    [{"run": "old", "expired": True}, {"expired": True, "everything": True}, {"run": "", "everything": True}],
)
def test_flags_that_contradict_each_other(flags: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="give one of them"):
        removed(**flags)


def agents(run: str) -> Object:
    return {"kind": "DaemonSet", "metadata": {"name": "kabench-agent", "namespace": namespace_of(run)}}


async def clean(cluster: MemoryCluster, run: str = "r") -> None:
    await remove(cast(Cluster, cluster), namespace_of(run))


async def test_pods_are_told_to_end_before_the_namespace_and_nothing_of_others() -> None:
    cluster = MemoryCluster(
        a_namespace("r"),
        a_namespace("other"),
        agents("r"),
        agents("other"),
        a_node("w1"),
        a_pod("r", "a"),
        a_pod("other", "b"),
    )
    await clean(cluster)
    assert cluster.calls == ["delete DaemonSet kabench-agent", "delete Pod a", "delete Namespace kabench-r"]
    assert {key[1] or key[2] for key in cluster.objects} == {"kabench-other", "w1"}
    await clean(cluster)  # again: nothing to do


async def test_pods_on_nodes_out_of_reach_are_not_waited_for() -> None:
    cluster = MemoryCluster(
        a_namespace("r"),
        a_node("w1"),
        a_node("w2", ready=False),
        a_pod("r", "near"),
        a_pod("r", "far", "w2"),
        a_pod("r", "lost", "w3"),
        a_pod("r", "unbound", ""),
    )
    cluster.deaf = {"far", "lost"}
    async with asyncio.timeout(cleaning.GRACE_S / 4):
        await clean(cluster)
    assert [call for call in cluster.calls if "at once" in call] == [
        "delete Pod far at once",
        "delete Pod lost at once",
    ]


async def test_pods_that_do_not_end_are_ended_without_their_kubelets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleaning, "GRACE_S", 0.0)
    cluster = MemoryCluster(a_namespace("r"), a_node("w1"), a_pod("r", "a"))
    cluster.deaf = {"a"}
    await clean(cluster)
    assert cluster.calls == ["delete Pod a", "delete Namespace kabench-r", "delete Pod a at once"]
    assert await cluster.get("Namespace", "kabench-r") is None


async def test_a_namespace_that_stays_is_told_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleaning, "GONE_S", 0.01)
    monkeypatch.setattr(cleaning, "LOOK_S", 0.001)
    cluster = MemoryCluster(a_namespace("r"), a_node("w1"))
    cluster.held_up["kabench-r"] = "Some content has finalizers remaining: example.com/x"
    with pytest.raises(ClusterError, match=r"kabench-r is not gone after 0.01 s: .*example.com/x; once that"):
        await clean(cluster)
