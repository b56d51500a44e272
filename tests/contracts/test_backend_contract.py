"""The backends that need no cluster, under the suite; and what a simulated scheduler promises beyond it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import cast

import psutil
import pytest
from backend_contract import Case, EndContract, FleetContract, nodes_of, round_of, scenario, until

from kabench.backends.base import Fleet
from kabench.backends.fake import FakeBackend, FakeFleet
from kabench.backends.local import LocalBackend
from kabench.core.contention import Contention
from kabench.core.spec import Noise, Phase, Requests, Target
from kabench.errors import SpecError

DEFAULT, AWARE = Phase(name="default", policy="default"), Phase(name="aware", policy="contention-aware")
STANDING = Phase(name="load", standing="given")
QUIET_PLACE = Contention(10_000_000, 1_000_000, 0, 80.0, 100.0)
BUSY_PLACE = Contention(10_000_000, 1_000_000, 4_000_000, 160.0, 900.0)


def stand_in_agent(node: str, null_port: int, spool: Path) -> list[str]:
    """Serves on a port and says which: all that a backend knows of an agent."""
    return [sys.executable, "-m", "kabench_targets", "null-echo", "--port", "0"]


async def kill_fake_agent(fleet: Fleet, node: str) -> None:
    cast(FakeFleet, fleet).lose("agent", f"agent-{node}", node)


async def kill_local_agent(fleet: Fleet, node: str) -> None:
    port = next(int(agent.base_url.rpartition(":")[2]) for agent in fleet.agents if agent.node == node)
    for child in psutil.Process().children():
        if any(
            c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in child.net_connections("tcp4")
        ):
            child.kill()
    await until(lambda: all(agent.node != node for agent in fleet.agents))


CASES = {
    "fake": Case(FakeBackend, kill_fake_agent, DEFAULT, "simulated:default", "SIGKILL", True, True),
    "local": Case(
        lambda: LocalBackend(agent=stand_in_agent),
        kill_local_agent,
        DEFAULT,
        "simulated:default",
        "SIGKILL",
        True,
        True,
    ),
}


@pytest.fixture(scope="class", params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


class TestFleetWithoutACluster(FleetContract):
    """The fake's fleet, and the local one."""


class TestWithoutACluster(EndContract):
    """With a fleet for each test."""

    async def test_the_same_seed_and_telemetry_place_the_same_way(self, case: Case, tmp_path: Path) -> None:
        async def once(folder: Path) -> dict[str, str]:
            async with case.backend().started(scenario(DEFAULT, AWARE), "r", folder, "t") as fleet:
                return {target.name: target.node for target in await fleet.place(round_of(DEFAULT), {})}

        assert await once(tmp_path / "a") == await once(tmp_path / "b")

    @pytest.mark.parametrize("busy", ["node-1", "node-3"])
    async def test_contention_awareness_follows_the_telemetry(
        self, case: Case, tmp_path: Path, busy: str
    ) -> None:
        async with case.backend().started(scenario(AWARE), "r", tmp_path, "t") as fleet:
            contention = {n.name: BUSY_PLACE if n.name == busy else QUIET_PLACE for n in fleet.nodes}
            placed = await fleet.place(round_of(AWARE, "node-2"), contention)
            assert nodes_of(placed) == {n.name for n in fleet.nodes} - {busy}

    async def test_what_stands_already_is_where_its_address_says(self, case: Case, tmp_path: Path) -> None:
        targets = (
            Target(name="cache", kind="redis", replicas=1, address="cache.example:6380"),
            Target(name="web", kind="http", replicas=1, address="[::1]:80"),
        )
        asked = scenario(STANDING, targets=targets, noise=Noise(nodes=0))
        async with case.backend().started(asked, "r", tmp_path, "t") as fleet:
            before = len(psutil.Process().children())
            placed = await fleet.place(round_of(STANDING), {})
            assert len(psutil.Process().children()) == before
            await fleet.clear()
        assert [(t.name, t.workload, t.kind, t.host, t.port) for t in placed] == [
            ("cache", "cache", "redis", "cache.example", 6380),
            ("web", "web", "http", "::1", 80),
        ]
        assert {(t.node, t.decided_by) for t in placed} == {("standing", "standing:given")}

    async def test_more_replicas_than_can_be_placed_are_refused_at_the_start(
        self, case: Case, tmp_path: Path
    ) -> None:
        huge = (Target(name="cache", kind="redis", replicas=4, requests=Requests(cpu_millis=3900)),)
        with pytest.raises(SpecError, match="more replicas than can be placed"):
            async with case.backend().started(scenario(DEFAULT, targets=huge), "r", tmp_path, "t"):
                pytest.fail("it started")
