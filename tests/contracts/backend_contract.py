"""What every backend must do, whatever it is made of: one suite for the fake and the real ones.

A tier subclasses `FleetContract` and `EndContract` for each backend that it can run, with a `case` fixture of class scope.
Bringing a real fleet up takes longest, so the tests of `FleetContract` share one: each leaves it whole and at rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from kabench.backends.base import Backend, Fleet, PlacedTarget, Round
from kabench.core.roles import roles
from kabench.core.spec import Load, Noise, Phase, Scenario, Stressor, Target
from kabench.errors import ClusterError

QUIET, NOISY = Phase(name="quiet", pin="quiet"), Phase(name="noisy", pin="noisy")


@dataclass(frozen=True)
class Case:
    """A backend under test.

    Attributes:
        backend: makes it.
        kill_agent: makes the agent of a node die, and returns once the fleet knows.
        phase: one in which the backend's own scheduler decides.
        decided_by: who is named for its placements.
        killed: a word in the reason of a casualty that `kill_agent` made.
        explains: whether placements come with what they rested on.
        knows_cpus: whether it can say which CPUs a node has before its agent does.
    """

    backend: Callable[[], Backend]
    kill_agent: Callable[[Fleet, str], Awaitable[None]]
    phase: Phase
    decided_by: str
    killed: str
    explains: bool
    knows_cpus: bool


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
    return Scenario(name="contract", agents=agents, phases=phases, **given)


async def until(condition: Callable[[], bool]) -> None:
    """Give the event loop a chance until `condition` holds."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what it waits for sets no event
            await asyncio.sleep(0.01)


def roles_of(fleet: Fleet, *noisy: str) -> Mapping[str, str]:
    return roles({node.name: (node.boot_id, node.cpus) for node in fleet.nodes}, noisy)


def round_of(phase: Phase, *noisy: str, block: int = 1, found: Mapping[str, str] | None = None) -> Round:
    return Round(f"{block:03d}-{phase.name}", block, phase, noisy, 1, found or {})


def nodes_of(placed: list[PlacedTarget] | Any) -> set[str]:
    return {target.node for target in placed}


@pytest.mark.asyncio(loop_scope="class")
class FleetContract:
    """What a fleet does, round after round. Those tests come last that have it replace an agent."""

    @pytest_asyncio.fixture(scope="class", loop_scope="class")
    @classmethod
    async def fleet(cls, case: Case, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
        folder = tmp_path_factory.mktemp("fleet")
        phases = scenario(case.phase, QUIET, NOISY)
        async with case.backend().started(phases, "run-1", folder, "secret") as fleet:
            yield fleet

    async def test_nodes_and_agents(self, case: Case, fleet: Fleet) -> None:
        names = [node.name for node in fleet.nodes]
        assert len(set(names)) == 3
        assert [agent.node for agent in fleet.agents] == names
        assert all(agent.token == "secret" for agent in fleet.agents)
        assert len({agent.base_url for agent in fleet.agents}) == 3
        assert not any(agent.base_url.endswith("/") for agent in fleet.agents)
        assert "secret" not in repr(fleet.agents)
        assert all(node.cpu_millis and node.memory_bytes for node in fleet.nodes)
        assert all(bool(node.cpus and node.boot_id) is case.knows_cpus for node in fleet.nodes)
        assert fleet.environment()
        assert list(fleet.casualties()) == []

    async def test_a_whole_round(self, case: Case, fleet: Fleet) -> None:
        loud = fleet.nodes[0].name
        round_ = round_of(case.phase, loud)
        await fleet.start_noise(round_)
        placed = await fleet.place(round_, {})
        assert sorted(target.name for target in placed) == ["cache-1", "cache-2", "echo-1", "echo-2"]
        assert {(t.workload, t.kind) for t in placed} == {("cache", "redis"), ("echo", "http")}
        assert nodes_of(placed) <= {node.name for node in fleet.nodes}
        assert len({(t.host, t.port) for t in placed}) == 4
        assert {t.decided_by for t in placed} == {case.decided_by}
        assert all(bool(t.reason) is case.explains and t.pending_ns >= 0 for t in placed)
        with fleet.measuring(round_):
            assert list(fleet.casualties()) == []
        await fleet.clear()
        await fleet.clear()
        (work,) = await fleet.stop_noise()
        assert (work.node, work.stressor) == (loud, "stress-cpu")
        assert work.ops is not None
        assert work.ops > 0
        assert list(await fleet.stop_noise()) == []
        assert list(fleet.casualties()) == []

    async def test_without_noise_there_is_no_work(self, case: Case, fleet: Fleet) -> None:
        await fleet.start_noise(round_of(case.phase))
        assert list(await fleet.stop_noise()) == []

    async def test_targets_are_fresh_in_every_round(self, case: Case, fleet: Fleet) -> None:
        first = await fleet.place(round_of(case.phase), {})
        await fleet.clear()
        second = await fleet.place(round_of(case.phase, block=2), {})
        await fleet.clear()
        assert {(t.host, t.port) for t in first}.isdisjoint((t.host, t.port) for t in second)

    async def test_pins_go_where_the_roles_say(self, fleet: Fleet) -> None:
        loud = fleet.nodes[0].name
        found = roles_of(fleet, loud)
        for phase in (QUIET, NOISY):
            placed = await fleet.place(round_of(phase, loud, found=found), {})
            await fleet.clear()
            assert {found[node] for node in nodes_of(placed)} == {phase.pin}
            assert {target.decided_by for target in placed} == {f"pin:{phase.pin}"}

    async def test_a_pin_that_a_round_cannot_keep_is_a_clear_error(self, fleet: Fleet) -> None:
        every = [node.name for node in fleet.nodes]
        round_ = round_of(QUIET, *every, found=roles_of(fleet, *every))
        with pytest.raises(ClusterError, match="pinned to quiet nodes and there are none"):
            await fleet.place(round_, {})

    async def test_an_agent_that_dies_is_a_casualty_and_heals(self, case: Case, fleet: Fleet) -> None:
        names = [node.name for node in fleet.nodes]
        await case.kill_agent(fleet, names[1])
        assert [agent.node for agent in fleet.agents] == [names[0], names[2]]
        (casualty,) = fleet.casualties()
        assert (casualty.role, casualty.node) == ("agent", names[1])
        assert case.killed in casualty.reason
        assert list(fleet.casualties()) == []
        assert list(await fleet.heal()) == [names[1]]
        assert [agent.node for agent in fleet.agents] == names
        assert list(await fleet.heal()) == []

    async def test_an_agent_that_lives_and_does_not_answer_is_replaced(self, fleet: Fleet) -> None:
        names = [node.name for node in fleet.nodes]
        assert list(await fleet.heal([names[1]])) == [names[1]]
        assert [agent.node for agent in fleet.agents] == names
        assert list(fleet.casualties()) == []  # its end was ours
        assert list(await fleet.heal()) == []


class EndContract:
    """How a fleet ends."""

    async def test_an_error_inside_passes_through(self, case: Case, tmp_path: Path) -> None:
        async def fail() -> None:
            async with case.backend().started(scenario(case.phase), "r", tmp_path, "t") as fleet:
                await fleet.start_noise(round_of(case.phase, fleet.nodes[0].name))
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fail()
