"""What an earlier session had begun is brought to an end before a run goes on."""

from __future__ import annotations

import pytest

from kabench.backends.base import AgentEndpoint
from kabench.clock import ManualClock
from kabench.controller import crew as crew_module
from kabench.controller.crew import Crew
from kabench.controller.link import ClockOffset
from kabench.wire.messages import PROTOCOL, Hello, Status


class ScriptedLink:
    """Its agent's states, one after the other; the last one stays."""

    states: dict[str, list[str]]
    calls: list[str]

    def __init__(self, endpoint: AgentEndpoint, clock: object) -> None:
        self._node = endpoint.node

    async def hello(self) -> tuple[Hello, ClockOffset]:
        return Hello(PROTOCOL, "i", self._node, "b", (0,), 0, 0, "timerfd"), ClockOffset(0, 0)

    async def status(self) -> Status:
        states = self.states[self._node]
        return Status(states.pop(0) if len(states) > 1 else states[0])

    async def abort(self) -> Status:
        self.calls.append(f"abort {self._node}")
        return Status("idle")

    async def close(self) -> None:
        """Nothing is open."""


async def settled(monkeypatch: pytest.MonkeyPatch, longest_s: float, **states: list[str]) -> list[str]:
    monkeypatch.setattr(crew_module, "AgentLink", ScriptedLink)
    monkeypatch.setattr(crew_module, "LOOK_S", 0)
    ScriptedLink.states, ScriptedLink.calls = states, []
    crew = Crew(ManualClock())
    await crew.join([AgentEndpoint(node, f"http://{node}", "t") for node in states])
    assert await crew.settle(longest_s) == {}
    return ScriptedLink.calls


async def test_what_is_only_prepared_is_given_up_and_a_window_goes_on_to_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = await settled(
        monkeypatch,
        60,
        idle=["idle"],
        sealed=["sealed"],
        prepared=["prepared"],
        late=["preparing", "preparing", "prepared"],
        running=["armed", "running", "running", "draining", "sealed"],
    )
    assert sorted(calls) == ["abort late", "abort prepared"]


async def test_a_window_that_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await settled(monkeypatch, 0, stuck=["running"]) == ["abort stuck"]
