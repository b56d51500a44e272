"""The fake backend's own: what it writes down and how failures are scripted. The rest is in the contract's suite."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from kabench.backends.base import AgentEndpoint, CpuUsage, Round
from kabench.backends.fake import FakeBackend, FakeFleet
from kabench.clock import ManualClock
from kabench.core.spec import Phase, Scenario, Target
from kabench.errors import ClusterError

DEFAULT = Phase(name="default", policy="default")
SCENARIO = Scenario(name="s", phases=(DEFAULT,), targets=(Target(name="cache", kind="redis"),))
ROUND = Round("001-default", 1, DEFAULT, ("node-1", "node-2"), 1)


async def test_calls_are_written_down_and_fail_once_as_scripted(tmp_path: Path) -> None:
    def script(fleet: FakeFleet) -> None:
        fleet.failures["place"] = ClusterError("no room")
        fleet.noise_ops = 7.0

    backend = FakeBackend(script=script)
    async with backend.started(SCENARIO, "run", tmp_path, "t") as fleet:
        await fleet.start_noise(ROUND)
        with pytest.raises(ClusterError, match="no room"):
            await fleet.place(ROUND, {})
        assert len(await fleet.place(ROUND, {})) == 4
        await fleet.clear()
        work = await fleet.stop_noise()
        assert [(w.node, w.stressor, w.ops) for w in work] == [
            (node, kind, 7.0) for node in ("node-1", "node-2") for kind in ("stress-cache", "stress-membw")
        ]
        window = ("001-default",)
        assert cast(FakeFleet, fleet).calls == [
            ("start_noise", *window),
            ("place", *window),
            ("place", *window),
            ("clear",),
            ("stop_noise",),
        ]
    assert (len(backend.fleets), backend.ended) == (1, 1)


async def test_casualties_are_dated_by_the_clock_given(tmp_path: Path) -> None:
    clock = ManualClock(5)
    async with FakeBackend(clock=clock).started(SCENARIO, "run", tmp_path, "t") as fleet:
        clock.advance(10)
        cast(FakeFleet, fleet).lose("target", "cache-1", "node-3", "exit status 1")
        (casualty,) = fleet.casualties()
        assert (casualty.at_ns, casualty.role, casualty.reason) == (15, "target", "exit status 1")
        assert len(fleet.agents) == 6


async def test_agents_are_where_the_test_says_and_usage_what_it_says(tmp_path: Path) -> None:
    backend = FakeBackend(
        cpus=4, endpoint=lambda node, token: AgentEndpoint(node, f"http://127.0.0.1:1/{node}", token)
    )
    async with backend.started(SCENARIO, "run", tmp_path, "t") as fleet:
        assert fleet.agents[5].base_url == "http://127.0.0.1:1/node-6"
        assert frozenset().union(*(node.cpus for node in fleet.nodes)) == {0, 1, 2, 3}
        assert await fleet.cpu_usage() is None
        usage = cast(FakeFleet, fleet).usage = CpuUsage(1, {0: 2}, {0: 1})
        assert await fleet.cpu_usage() is usage
