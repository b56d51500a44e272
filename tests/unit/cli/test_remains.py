"""`kabench clean` and `kabench collect`, as a user calls them: a cluster in memory, with a real agent in it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import pytest
from agent_kit import TOKEN, Served, an_order, http_server, http_target, served
from memory_cluster import MemoryCluster, a_namespace, a_node, a_pod, a_token

from kabench.backends.kubernetes.access import Access
from kabench.cli import main, remains
from kabench.cli.remains import Choice, clean_up, collect_run
from kabench.controller.collecting import Held
from kabench.controller.crew import Crew
from kabench.errors import SpecError, StoreError
from kabench.store import RunStore
from kabench.wire.messages import Arm

RUN = "run-1"
LONG_GONE = "2020-01-01T00:00:00Z"
MS = 1_000_000


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> MemoryCluster:
    """What every command here finds."""
    cluster = MemoryCluster(a_node("node-1"))

    @contextlib.asynccontextmanager
    async def opened(_: Access) -> AsyncIterator[Any]:
        yield cluster

    monkeypatch.setattr(remains, "open_cluster", opened)
    return cluster


def add(cluster: MemoryCluster, *objects: Any) -> None:
    for one in MemoryCluster(*objects).objects.items():
        cluster.objects.update([one])


@contextlib.asynccontextmanager
async def an_agent(cluster: MemoryCluster, tmp_path: Path) -> AsyncIterator[Served]:
    """The run, with one agent in it that holds a log."""
    async with served(tmp_path / "spool") as agent, http_server(200) as port:
        add(cluster, a_namespace(RUN), a_token(RUN, TOKEN), a_pod(RUN, "agent-1", "node-1"))
        cluster.urls["agent-1"] = agent.endpoint.base_url
        await agent.agent.prepare(an_order(http_target(port), run=RUN))
        agent.agent.arm(Arm("001-default", agent.agent.clock.monotonic_ns() + 20 * MS))
        agent.engines[0].go_on.set()
        while agent.agent.status().state != "sealed":  # noqa: ASYNC110 - nothing else tells
            await asyncio.sleep(0)
        yield agent


def clean(**flags: Any) -> Coroutine[Any, Any, int]:
    return clean_up(Access(), Choice(**flags))


def test_without_runs_there_is_nothing_to_do(
    cluster: MemoryCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["clean"]) == 0
    assert main(["clean", "--all"]) == 0
    assert capsys.readouterr().out == "kabench-test holds no runs\n" * 2


def test_without_a_flag_it_only_lists(cluster: MemoryCluster, capsys: pytest.CaptureFixture[str]) -> None:
    add(
        cluster,
        a_namespace("old", LONG_GONE),
        a_namespace("live", "2100-01-01T00:00:00Z"),
        a_pod("live", "a"),
    )
    assert main(["clean"]) == 0
    assert capsys.readouterr().out == (
        "kabench-test holds 2 runs:\n"
        "  live: 1 pod, may be active until 2100-01-01 00:00 UTC\n"
        "  old: 0 pods, expired 2020-01-01 00:00 UTC\n"
        "nothing was removed; --run RUN removes one, --expired those whose time is over, --all all\n"
    )
    assert cluster.calls == []


def test_expired_ones_are_removed(cluster: MemoryCluster, capsys: pytest.CaptureFixture[str]) -> None:
    add(cluster, a_namespace("old", LONG_GONE), a_namespace("live", "2100-01-01T00:00:00Z"))
    assert main(["clean", "--expired"]) == 0
    assert capsys.readouterr().out.startswith("removed old in ")
    assert cluster.calls == ["delete Namespace kabench-old"]


def test_a_run_that_is_not_there_is_a_mistake(
    cluster: MemoryCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    add(cluster, a_namespace("old"))
    for command in (["clean", "--run", "x"], ["collect", "x"]):
        assert main(command) == 2
        assert "holds no run x; runs there: old" in capsys.readouterr().err


async def test_a_run_whose_agents_hold_logs_stays_until_they_are_fetched(
    cluster: MemoryCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with an_agent(cluster, tmp_path):
        assert await clean(run=RUN) == 4
        assert capsys.readouterr().out == (
            f"{RUN} stays: agents still hold 1 log (node-1: 1). "
            f"kabench collect {RUN} fetches logs; --discard drops them\n"
        )
        assert cluster.calls == []
        assert await collect_run(Access(), RUN, tmp_path / "results") == 0
        printed = capsys.readouterr().out
        assert "fetched 1 log (node-1: 1)" in printed
        assert f"kabench merge {tmp_path / 'results' / RUN}" in printed
        assert (tmp_path / "results" / RUN / "logs/001-default/node-1.hlog").exists()
        assert await collect_run(Access(), RUN, tmp_path / "results") == 0
        assert "nothing to fetch" in capsys.readouterr().out
        assert await clean(run=RUN) == 0
        assert f"removed {RUN} in" in capsys.readouterr().out


async def test_where_nothing_is_held_no_folder_is_made(cluster: MemoryCluster, tmp_path: Path) -> None:
    add(cluster, a_namespace(RUN), a_token(RUN, TOKEN))
    assert await collect_run(Access(), RUN, tmp_path / "results") == 0
    assert not (tmp_path / "results").exists()


async def test_a_run_that_lives_on_this_machine_is_left_alone(cluster: MemoryCluster, tmp_path: Path) -> None:
    async with an_agent(cluster, tmp_path) as agent:
        with RunStore.create(tmp_path / "results", RUN):
            with pytest.raises(StoreError, match="another kabench is writing this run"):
                await collect_run(Access(), RUN, tmp_path / "results")
            assert len(agent.agent.windows().windows) == 1


async def test_logs_are_dropped_only_when_told(cluster: MemoryCluster, tmp_path: Path) -> None:
    async with an_agent(cluster, tmp_path):
        assert await clean(run=RUN, discard=True) == 0
    assert ("Namespace", "", "kabench-run-1") not in cluster.objects


async def test_an_agent_that_is_gone_is_told_and_keeps_its_run(
    cluster: MemoryCluster,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("kabench.backends.kubernetes.holding.PROXY_PATIENCE_S", 0.0)
    async with an_agent(cluster, tmp_path):
        pass
    assert await collect_run(Access(), RUN, tmp_path / "results") == 4
    assert "node-1: agent node-1 at" in capsys.readouterr().out
    assert await clean(run=RUN) == 4
    assert f"{RUN} stays: it is not known what the agent on node-1 holds" in capsys.readouterr().out


async def test_an_agent_that_answers_no_more_keeps_its_run(
    cluster: MemoryCluster,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def silent(_crew: Crew, _run: str) -> Held:
        return Held({}, {"node-1": "it does not answer"})

    monkeypatch.setattr(remains, "held", silent)
    async with an_agent(cluster, tmp_path):
        assert await clean(run=RUN) == 4
    assert "what the agent on node-1 holds (node-1: it does not answer)" in capsys.readouterr().out


async def test_one_run_that_stays_keeps_no_other(
    cluster: MemoryCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with an_agent(cluster, tmp_path):
        add(cluster, a_namespace("run-2"))
        with pytest.raises(SpecError, match="may still be active: run-1, run-2"):
            await clean(everything=True)
        assert await clean(everything=True, sure=True) == 4
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("run-1 stays")
    assert printed[1].startswith("removed run-2")
