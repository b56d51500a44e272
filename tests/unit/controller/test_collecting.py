"""What agents hold of a run whose controller is gone, and its way into the run's folder: real agents, scripted engines."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from agent_kit import Served, an_order, http_server, http_target, served

from kabench.cli.sources import load_source
from kabench.clock import SystemClock
from kabench.controller import collecting
from kabench.controller.collecting import fetch, held, settled
from kabench.controller.crew import Crew
from kabench.core.journal import RunStarted
from kabench.store import RunStore, read_result
from kabench.wire.messages import Arm

RUN = "run-1"
MS = 1_000_000


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path / "spool") as agent:
        yield agent


@contextlib.asynccontextmanager
async def joined(*agents: Served, lost: bool = False) -> AsyncIterator[Crew]:
    """A crew of these agents; `lost`: and of one that is gone once it has said hello."""
    crew = Crew(SystemClock())
    async with contextlib.AsyncExitStack() as gone:
        endpoints = [agent.endpoint for agent in agents]
        if lost:
            other = await gone.enter_async_context(served(Path("/nonexistent")))
            endpoints.append(replace(other.endpoint, node="node-2", patience_s=0.0))
        assert await crew.join(endpoints) == {}
    try:
        yield crew
    finally:
        await crew.close()


async def begin(agent: Served, window: str = "001-default", run: str = RUN) -> None:
    """Bring an agent into a window; its engine waits for `go_on`."""
    async with http_server(200) as port:
        await agent.agent.prepare(an_order(http_target(port), window=window, run=run))
    agent.agent.arm(Arm(window, agent.agent.clock.monotonic_ns() + 20 * MS))


async def end(agent: Served) -> None:
    agent.engines[-1].go_on.set()
    while agent.agent.status().state != "sealed":  # noqa: ASYNC110 - nothing else tells
        await asyncio.sleep(0)


async def measured(agent: Served, window: str = "001-default", run: str = RUN) -> None:
    await begin(agent, window, run)
    await end(agent)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RunStore]:
    with RunStore.create(tmp_path / "results", RUN) as store:
        yield store


async def test_agents_say_how_many_logs_of_the_run_they_hold(agent: Served) -> None:
    await measured(agent)
    await measured(agent, "002-default")
    await measured(agent, "001-other", run="run-2")
    async with joined(agent, lost=True) as crew:
        found = await held(crew, RUN)
    assert found.logs == {"node-1": 2}
    assert found.total == 2
    assert "node-2" in found.unknown["node-2"]


async def test_logs_are_fetched_once_and_those_of_other_runs_stay(agent: Served, store: RunStore) -> None:
    await measured(agent)
    await measured(agent, "001-other", run="run-2")
    async with joined(agent, lost=True) as crew:
        first = await fetch(crew, store)
        assert first.logs == {"node-1": 1}
        assert list(first.unknown) == ["node-2"]
        assert (await fetch(crew, store)).logs == {"node-1": 0}
        assert (await held(crew, "run-2")).total == 1
    assert [path.name for path in (store.folder / "logs").rglob("*.hlog")] == ["node-1.hlog"]
    assert not (store.folder / "results.json").exists()  # nobody knows the run's scenario here


async def test_with_the_runs_journal_its_results_are_built_anew(agent: Served, store: RunStore) -> None:
    scenario = load_source("seed").model_dump(mode="json")
    store.append(RunStarted(RUN, "0", "kubernetes", "", scenario, "0" * 64, 7, 1))
    await measured(agent)
    async with joined(agent) as crew:
        await fetch(crew, store)
    result = read_result(store.folder)
    assert (result.run, result.status) == (RUN, "interrupted")
    assert {record.cell.agent for record in result.cells} == {"node-1"}


async def test_a_window_under_way_is_waited_for(
    agent: Served, store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting, "LOOK_S", 0.0)
    await begin(agent)
    told: list[list[str]] = []

    def waiting(nodes: list[str]) -> None:
        told.append(nodes)
        agent.engines[0].go_on.set()

    async with joined(agent) as crew:
        await settled(crew, waiting)
        assert told == [["node-1"]]
        assert (await fetch(crew, store)).logs == {"node-1": 1}


async def test_a_window_that_does_not_end_is_not_waited_for_for_ever(
    agent: Served, store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting, "WINDOW_S", 0.05)
    monkeypatch.setattr(collecting, "LOOK_S", 0.0)
    await begin(agent)
    async with joined(agent) as crew:
        async with asyncio.timeout(5):
            await settled(crew, lambda _: None)
        fetched = await fetch(crew, store)
    assert fetched.logs == {"node-1": 0}
    assert "still being written" in fetched.unknown["node-1"]
    await end(agent)
