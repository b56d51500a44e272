"""Which runs a cluster holds, and how their agents are reached."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

import pytest
from memory_cluster import MemoryCluster, a_namespace, a_pod, a_token

from kabench.backends.kubernetes.api import Cluster
from kabench.backends.kubernetes.holding import Holders, expires_at, find_run, find_runs, holders
from kabench.backends.kubernetes.manifests import Object
from kabench.backends.kubernetes.naming import EXPIRES, NOISE
from kabench.errors import SpecError

NOW = datetime(2029, 12, 31, 12, tzinfo=UTC)
NOW_NS = round(NOW.timestamp()) * 1_000_000_000
DAY_NS = 86_400 * 1_000_000_000


async def reached(*objects: Object, transport: Any = "proxy") -> Holders:
    cluster = cast(Cluster, MemoryCluster(a_namespace("r"), *objects))
    return await holders(cluster, await find_run(cluster, "r"), transport)


async def test_runs_are_found_by_their_label_with_their_pods_by_role() -> None:
    foreign: Object = {"kind": "Namespace", "metadata": {"name": "kabench-by-hand", "labels": {}}}
    cluster = MemoryCluster(
        a_namespace("run-2"),
        a_namespace("run-1"),
        foreign,
        a_pod("run-2", "a"),
        a_pod("run-2", "b"),
        a_pod("run-2", "c", role=NOISE),
    )
    runs = await find_runs(cast(Cluster, cluster))
    assert [(run.run, run.namespace, run.pods) for run in runs] == [
        ("run-1", "kabench-run-1", {}),
        ("run-2", "kabench-run-2", {"agent": 2, "noise": 1}),
    ]


async def test_a_run_that_is_not_there_is_named_with_those_that_are() -> None:
    cluster = cast(Cluster, MemoryCluster(a_namespace("run-1")))
    with pytest.raises(SpecError, match=r"kabench-test holds no run x; runs there: run-1"):
        await find_run(cluster, "x")


@pytest.mark.parametrize(
    ("expires", "at_ns", "expired", "told"),
    [
        ("2029-12-31T12:00:00Z", NOW_NS, True, "expired 2029-12-31 12:00 UTC"),
        ("2029-12-31T13:00:00+01:00", NOW_NS, True, "expired 2029-12-31 12:00 UTC"),
        ("2029-12-31T12:00:01Z", NOW_NS, False, "may be active until 2029-12-31 12:00 UTC"),
        ("soon", NOW_NS + 999 * DAY_NS, False, "may be active (it does not say until when)"),
        ("2029-12-31T12:00:00", NOW_NS + 999 * DAY_NS, False, "may be active (it does not say until when)"),
        (None, NOW_NS + 999 * DAY_NS, False, "may be active (it does not say until when)"),
    ],
)
async def test_when_a_run_expires(expires: str | None, at_ns: int, expired: bool, told: str) -> None:
    [run] = await find_runs(cast(Cluster, MemoryCluster(a_namespace("r", expires), a_pod("r", "a"))))
    assert run.expired(at_ns) is expired
    assert run.describe(at_ns) == f"r: 1 pod, {told}"


def test_a_namespace_without_annotations_does_not_expire() -> None:
    assert expires_at({"metadata": {"name": "x"}}) is None
    assert expires_at({"metadata": {"annotations": {EXPIRES: "1970-01-01T00:00:02Z"}}}) == 2_000_000_000


async def test_agents_are_reached_through_the_proxy_with_the_runs_token() -> None:
    found = await reached(a_token("r"), a_pod("r", "agent-x"), a_pod("r", "n", role=NOISE, node="w2"))
    [endpoint] = found.endpoints
    assert (endpoint.node, endpoint.token) == ("w1", "the-token")
    assert endpoint.base_url == "https://api/kabench-r/agent-x:7300"
    assert endpoint.headers == {"Authorization": "Bearer x"}
    assert found.mute == {}


async def test_agents_are_reached_at_their_addresses() -> None:
    pod = a_pod("r", "agent-x")
    pod["status"]["podIP"] = "fd00::7"
    [endpoint] = (await reached(a_token("r"), pod, transport="direct")).endpoints
    assert (endpoint.base_url, endpoint.headers) == ("http://[fd00::7]:7300", {})


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (
            {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "restartCount": 3},
            "a container was started anew",
        ),
        ({"state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}, "OOMKilled, exit code 137"),
        (
            {"state": {"waiting": {}}, "lastState": {"terminated": {"exitCode": 1}}},
            "its container does not run",
        ),
    ],
)
async def test_an_agent_that_ran_and_does_not_now_may_hold_logs(state: dict[str, Any], said: str) -> None:
    found = await reached(a_token("r"), a_pod("r", "a", **state))
    assert found.endpoints == ()
    assert said in found.mute["w1"]


async def test_an_agent_that_never_ran_holds_nothing() -> None:
    waiting = {"waiting": {"reason": "ErrImageNeverPull"}}
    assert await reached(a_token("r"), a_pod("r", "a", state=waiting), a_pod("r", "b", node="")) == Holders(
        ()
    )


@pytest.mark.parametrize("data", [{}, {"token": "§"}, {"token": ""}])
async def test_without_the_token_no_agent_can_be_asked(data: dict[str, str]) -> None:
    found = await reached({**a_token("r"), "data": data}, a_pod("r", "a"))
    assert found.endpoints == ()
    assert "the run's token is gone" in found.mute["w1"]


async def test_of_two_agents_on_a_node_the_one_that_stays_counts() -> None:
    for pods in (
        [a_pod("r", "old", ending=True), a_pod("r", "new")],
        [a_pod("r", "new"), a_pod("r", "old", ending=True)],
    ):
        [endpoint] = (await reached(a_token("r"), *pods)).endpoints
        assert endpoint.base_url.endswith("/new:7300")
