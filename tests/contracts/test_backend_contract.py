"""What every backend must do, whatever it is made of: one suite for the fake and the real ones.

A backend under test is a `Case`: a way to make it, and a way to make one of its agents die.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import psutil
import pytest

from kabench.backends.base import Backend, Fleet, PlacedTarget, Round
from kabench.backends.fake import FakeBackend, FakeFleet
from kabench.backends.local import LocalBackend
from kabench.core.contention import Contention
from kabench.core.roles import roles
from kabench.core.spec import Load, Noise, Phase, Requests, Scenario, Stressor, Target
from kabench.errors import ClusterError, SpecError

DEFAULT, AWARE = Phase(name="default", policy="default"), Phase(name="aware", policy="contention-aware")
QUIET, NOISY = Phase(name="quiet", pin="quiet"), Phase(name="noisy", pin="noisy")
QUIET_PLACE = Contention(10_000_000, 1_000_000, 0, 80.0, 100.0)
BUSY_PLACE = Contention(10_000_000, 1_000_000, 4_000_000, 160.0, 900.0)


@dataclass(frozen=True)
class Case:
    backend: Callable[[], Backend]
    kill_agent: Callable[[Fleet, str], Awaitable[None]]


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


async def until(condition: Callable[[], bool]) -> None:
    """Give the event loop a chance until `condition` holds."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what it waits for sets no event
            await asyncio.sleep(0.01)


CASES = {
    "fake": Case(FakeBackend, kill_fake_agent),
    "local": Case(lambda: LocalBackend(agent=stand_in_agent), kill_local_agent),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def scenario(*phases: Phase, agents: int = 3, **more: Any) -> Scenario:
    given: dict[str, Any] = {
        "targets": (
            Target(name="cache", kind="redis", replicas=2),
            Target(name="echo", kind="http", replicas=2),
        ),
        "noise": Noise(nodes=1, stressors=(Stressor(kind="stress-cpu"),)),
        "load": Load(rate_per_s=100),
        **more,
    }
    return Scenario(name="contract", agents=agents, phases=phases or (DEFAULT, AWARE), **given)


def roles_of(fleet: Fleet, *noisy: str) -> Mapping[str, str]:
    return roles({node.name: (node.boot_id, node.cpus) for node in fleet.nodes}, noisy)


def round_of(phase: Phase, *noisy: str, block: int = 1, found: Mapping[str, str] | None = None) -> Round:
    return Round(f"{block:03d}-{phase.name}", block, phase, noisy, 1, found or {})


def nodes_of(placed: list[PlacedTarget] | Any) -> set[str]:
    return {target.node for target in placed}


async def test_nodes_and_agents(case: Case, tmp_path: Path) -> None:
    backend = case.backend()
    async with backend.started(scenario(), "run-1", tmp_path, "secret") as fleet:
        names = [node.name for node in fleet.nodes]
        assert len(set(names)) == 3
        assert [agent.node for agent in fleet.agents] == names
        assert all(agent.token == "secret" for agent in fleet.agents)
        assert len({agent.base_url for agent in fleet.agents}) == 3
        assert not any(agent.base_url.endswith("/") for agent in fleet.agents)
        assert "secret" not in repr(fleet.agents)
        assert all(
            node.cpus and node.boot_id and node.cpu_millis and node.memory_bytes for node in fleet.nodes
        )
        assert fleet.environment()
        assert list(fleet.casualties()) == []


async def test_a_whole_round(case: Case, tmp_path: Path) -> None:
    async with case.backend().started(scenario(), "run-1", tmp_path, "t") as fleet:
        round_ = round_of(DEFAULT, "node-1")
        await fleet.start_noise(round_)
        placed = await fleet.place(round_, {})
        assert sorted(target.name for target in placed) == ["cache-1", "cache-2", "echo-1", "echo-2"]
        assert {(t.workload, t.kind) for t in placed} == {("cache", "redis"), ("echo", "http")}
        assert nodes_of(placed) <= {node.name for node in fleet.nodes}
        assert len({(t.host, t.port) for t in placed}) == 4
        assert {t.decided_by for t in placed} == {"simulated:default"}
        assert all(t.reason and t.pending_ns >= 0 for t in placed)
        with fleet.measuring(round_):
            assert list(fleet.casualties()) == []
        await fleet.clear()
        await fleet.clear()
        (work,) = await fleet.stop_noise()
        assert (work.node, work.stressor) == ("node-1", "stress-cpu")
        assert work.ops is not None
        assert work.ops > 0
        assert list(await fleet.stop_noise()) == []
        assert list(fleet.casualties()) == []


async def test_without_noise_there_is_no_work(case: Case, tmp_path: Path) -> None:
    async with case.backend().started(scenario(noise=Noise(nodes=0)), "r", tmp_path, "t") as fleet:
        await fleet.start_noise(round_of(DEFAULT))
        assert list(await fleet.stop_noise()) == []


async def test_targets_are_fresh_in_every_round(case: Case, tmp_path: Path) -> None:
    async with case.backend().started(scenario(), "r", tmp_path, "t") as fleet:
        first = await fleet.place(round_of(DEFAULT), {})
        await fleet.clear()
        second = await fleet.place(round_of(DEFAULT, block=2), {})
        assert {t.port for t in first}.isdisjoint(t.port for t in second)


async def test_the_same_seed_and_telemetry_place_the_same_way(case: Case, tmp_path: Path) -> None:
    async def once(folder: Path) -> dict[str, str]:
        async with case.backend().started(scenario(), "r", folder, "t") as fleet:
            return {target.name: target.node for target in await fleet.place(round_of(DEFAULT), {})}

    assert await once(tmp_path / "a") == await once(tmp_path / "b")


@pytest.mark.parametrize("busy", ["node-1", "node-3"])
async def test_contention_awareness_follows_the_telemetry(case: Case, tmp_path: Path, busy: str) -> None:
    async with case.backend().started(scenario(AWARE), "r", tmp_path, "t") as fleet:
        contention = {n.name: BUSY_PLACE if n.name == busy else QUIET_PLACE for n in fleet.nodes}
        placed = await fleet.place(round_of(AWARE, "node-2"), contention)
        assert nodes_of(placed) == {n.name for n in fleet.nodes} - {busy}


async def test_pins_go_where_the_roles_say(case: Case, tmp_path: Path) -> None:
    async with case.backend().started(scenario(QUIET, NOISY), "r", tmp_path, "t") as fleet:
        found = roles_of(fleet, "node-1")
        for phase in (QUIET, NOISY):
            placed = await fleet.place(round_of(phase, "node-1", found=found), {})
            assert {found[node] for node in nodes_of(placed)} == {phase.pin}
            assert {target.decided_by for target in placed} == {f"pin:{phase.pin}"}
            await fleet.clear()


async def test_more_replicas_than_can_be_placed_are_refused_at_the_start(case: Case, tmp_path: Path) -> None:
    huge = (Target(name="cache", kind="redis", replicas=4, requests=Requests(cpu_millis=3900)),)
    with pytest.raises(SpecError, match="more replicas than can be placed"):
        async with case.backend().started(scenario(targets=huge), "r", tmp_path, "t"):
            pytest.fail("it started")


async def test_a_pin_that_a_round_cannot_keep_is_a_clear_error(case: Case, tmp_path: Path) -> None:
    async with case.backend().started(scenario(QUIET), "r", tmp_path, "t") as fleet:
        every = [node.name for node in fleet.nodes]
        round_ = round_of(QUIET, *every, found=roles_of(fleet, *every))
        with pytest.raises(ClusterError, match="pinned to quiet nodes and there are none"):
            await fleet.place(round_, {})


async def test_an_agent_that_dies_is_a_casualty_and_heals(case: Case, tmp_path: Path) -> None:
    async with case.backend().started(scenario(), "r", tmp_path, "t") as fleet:
        await case.kill_agent(fleet, "node-2")
        assert [agent.node for agent in fleet.agents] == ["node-1", "node-3"]
        (casualty,) = fleet.casualties()
        assert (casualty.role, casualty.node) == ("agent", "node-2")
        assert "SIGKILL" in casualty.reason
        assert list(fleet.casualties()) == []
        assert list(await fleet.heal()) == ["node-2"]
        assert [agent.node for agent in fleet.agents] == ["node-1", "node-2", "node-3"]
        assert list(await fleet.heal()) == []


async def test_an_agent_that_lives_and_does_not_answer_is_replaced(case: Case, tmp_path: Path) -> None:
    async with case.backend().started(scenario(), "r", tmp_path, "t") as fleet:
        assert list(await fleet.heal(["node-2"])) == ["node-2"]
        assert [agent.node for agent in fleet.agents] == ["node-1", "node-2", "node-3"]
        assert list(fleet.casualties()) == []  # its end was ours
        assert list(await fleet.heal()) == []


async def test_an_error_inside_passes_through(case: Case, tmp_path: Path) -> None:
    async def fail() -> None:
        async with case.backend().started(scenario(), "r", tmp_path, "t") as fleet:
            await fleet.start_noise(round_of(DEFAULT, "node-1"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
