"""The table of pods: fed by a watch that the test holds in its hands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from kabench.backends.kubernetes.api import Change, Cluster
from kabench.backends.kubernetes.manifests import Object
from kabench.backends.kubernetes.pods import Pod
from kabench.backends.kubernetes.table import PodTable
from kabench.clock import ManualClock
from kabench.core.spec import NS_PER_S
from kabench.errors import ClusterError, SpecError


class FakeCluster:
    """Its watches say what the test puts into them; an error among it is raised."""

    def __init__(self) -> None:
        self.says: dict[str, asyncio.Queue[Change | ClusterError]] = {
            kind: asyncio.Queue() for kind in ("Pod", "Event")
        }
        self.asked: list[tuple[str, str, str]] = []

    async def watch(
        self, kind: str, namespace: str = "", *, fields: str = "", known: dict[str, Object] | None = None
    ) -> AsyncIterator[Change]:
        self.asked.append((kind, namespace, fields))
        while True:
            said = await self.says[kind].get()
            if isinstance(said, ClusterError):
                raise said
            yield said


def pod(uid: str = "a", role: str = "target", node: str = "", state: dict[str, Any] | None = None) -> Object:
    return {
        "metadata": {"uid": uid, "name": f"pod-{uid}", "labels": {"kabench.dev/role": role}},
        "spec": {"nodeName": node, "containers": [{"name": "c"}]},
        "status": {"containerStatuses": [{"name": "c", "image": "i", "state": state}] if state else []},
    }


def made() -> tuple[FakeCluster, PodTable, ManualClock]:
    cluster, clock = FakeCluster(), ManualClock()
    return cluster, PodTable(cast(Cluster, cluster), "kabench-r", clock), clock


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_pods_come_change_and_go() -> None:
    cluster, table, clock = made()
    seen: list[tuple[Pod, Pod | None]] = []
    table.changed = lambda before, after: seen.append((before, after))
    async with table.watching():
        cluster.says["Pod"].put_nowait(Change("ADDED", pod()))
        await settle()
        assert table.bound_ns == {}
        clock.advance(5)
        cluster.says["Pod"].put_nowait(Change("MODIFIED", pod(node="worker-1")))
        cluster.says["Pod"].put_nowait(Change("ADDED", pod("b", "noise")))
        await settle()
        clock.advance(5)
        assert [p.uid for p in table.of("target")] == ["a"]
        assert [p.uid for p in table.of("noise", "target")] == ["a", "b"]
        cluster.says["Pod"].put_nowait(Change("MODIFIED", pod(node="worker-1", state={"running": {}})))
        cluster.says["Pod"].put_nowait(
            Change("DELETED", pod(node="worker-1", state={"terminated": {"exitCode": 0}}))
        )
        await settle()
    assert table.bound_ns == {"a": 5}  # the first sight of a node, not a later one
    assert list(table.pods) == ["b"]
    assert table.gone["a"].end
    assert [after is None for _, after in seen] == [False, False, True]
    table.forget("a")
    assert (table.gone, table.bound_ns) == ({}, {})
    assert sorted(cluster.asked) == [("Event", "kabench-r", "reason=Scheduled"), ("Pod", "kabench-r", "")]


async def test_events_say_who_bound_a_pod_in_the_new_way_and_the_old() -> None:
    cluster, table, _ = made()
    async with table.watching():
        for event in (
            {"regarding": {"uid": "a"}, "reportingController": "second"},
            {"regarding": {"uid": "b"}, "deprecatedSource": {"component": "old-one"}},
            {"regarding": {"uid": "c"}},
        ):
            cluster.says["Event"].put_nowait(Change("ADDED", event))
        await settle()
    assert table.bound_by == {"a": "second", "b": "old-one"}


async def test_a_wait_ends_with_the_change_that_it_is_for() -> None:
    cluster, table, _ = made()
    async with table.watching():
        waiting = asyncio.create_task(table.until(lambda: table.pods.get("b"), 60, lambda: "never"))
        cluster.says["Pod"].put_nowait(Change("ADDED", pod("a")))
        await settle()
        assert not waiting.done()
        cluster.says["Pod"].put_nowait(Change("ADDED", pod("b")))
        assert (await waiting).uid == "b"


async def test_a_wait_says_at_its_deadline_what_is_missing() -> None:
    _, table, _ = made()
    with pytest.raises(ClusterError, match="pod-x is missing"):
        await table.until(lambda: None, 0, lambda: "pod-x is missing")


async def test_a_watch_that_fails_ends_the_waits_and_is_taken_up_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("kabench.backends.kubernetes.table.PAUSE_S", 0)
    cluster, table, _ = made()
    async with table.watching():
        waiting = asyncio.create_task(table.until(lambda: table.pods.get("a"), 60, lambda: "never"))
        await settle()
        cluster.says["Pod"].put_nowait(ClusterError("the API server is out of reach"))
        with pytest.raises(ClusterError, match="out of reach"):
            await waiting
        cluster.says["Pod"].put_nowait(Change("ADDED", pod("a")))
        assert (await table.until(lambda: table.pods.get("a"), 60, lambda: "never")).uid == "a"


async def test_a_trouble_is_raised_once_it_has_lasted() -> None:
    _, table, clock = made()
    waits = Pod(pod(state={"waiting": {"reason": "ErrImagePull"}}))
    table.check(waits)
    clock.advance(4 * NS_PER_S)
    table.check(waits)
    clock.advance(2 * NS_PER_S)
    with pytest.raises(SpecError, match="ErrImagePull"):
        table.check(waits)
    table.check(Pod(pod(state={"running": {}})))
