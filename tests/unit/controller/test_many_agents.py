"""What keeps a run with many agents within bounds: few calls at once, logs one by one, time enough to arm."""

from __future__ import annotations

import asyncio
import hashlib
import resource
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from kabench.backends.base import AgentEndpoint, Round
from kabench.backends.fake import FakeFleet
from kabench.clock import ManualClock
from kabench.controller import crew as crew_module
from kabench.controller.crew import FETCHED_AT_ONCE, GREETED_AT_ONCE, Crew, allow_files
from kabench.controller.link import ClockOffset
from kabench.controller.observer import NullObserver
from kabench.controller.round import RoundRunner, _Notes
from kabench.core.plan import BlockPlan
from kabench.core.result import AgentWindow
from kabench.core.spec import Scenario
from kabench.errors import AgentError, AgentLost, ClusterError
from kabench.store import RunStore
from kabench.wire.messages import PROTOCOL, Ack, Arm, Armed, Hello, Windows, WindowState

SCENARIO = Scenario.model_validate(
    {
        "name": "s",
        "agents": 100,
        "phases": [{"name": "a", "policy": "default"}],
        "targets": [{"name": "r", "kind": "redis"}],
    }
)
STANDING = Scenario.model_validate(
    {
        "name": "s",
        "phases": [{"name": "a", "standing": "given"}],
        "targets": [{"name": "r", "kind": "redis", "replicas": 1, "address": "h:1"}],
    }
)
LOG = b"a log"
PLAN = BlockPlan(1, ("a",), (), {"node-1": "quiet"})


class CountingLink:
    """Answers everything after a turn of the loop; counts how many wait at once, of all links."""

    now = most = 0
    armed: Sequence[Arm] = ()

    def __init__(self, endpoint: AgentEndpoint, clock: object) -> None:
        self._held = True

    async def _turn(self) -> None:
        CountingLink.now += 1
        CountingLink.most = max(CountingLink.most, CountingLink.now)
        await asyncio.sleep(0)
        CountingLink.now -= 1

    async def hello(self) -> tuple[Hello, ClockOffset]:
        await self._turn()
        return Hello(PROTOCOL, "i", "n", "b", (0,), 0, 0, "timerfd"), ClockOffset(0, 0)

    async def windows(self, *, patient: bool = True) -> Windows:
        self.patient = patient
        return Windows((WindowState("r", "001-a", len(LOG), True),) if self._held else ())

    async def fetch(self, window: str) -> bytes:
        await self._turn()
        return LOG

    async def ack(self, window: str, ack: Ack) -> None:
        assert ack.sha256 == hashlib.sha256(LOG).hexdigest()
        self._held = False

    async def arm(self, arm: Arm) -> Armed:
        CountingLink.armed = [*CountingLink.armed, arm]
        return Armed(arm.window, arm.start_ns, 0)

    async def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
async def crew(monkeypatch: pytest.MonkeyPatch) -> Crew:
    monkeypatch.setattr(crew_module, "AgentLink", CountingLink)
    monkeypatch.setattr(CountingLink, "most", 0)
    monkeypatch.setattr(CountingLink, "armed", ())
    crew = Crew(ManualClock())
    assert await crew.join([AgentEndpoint(f"node-{n}", "", "") for n in range(100)]) == {}
    return crew


async def test_a_few_agents_are_greeted_at_a_time(crew: Crew) -> None:
    assert len(crew.members) == 100
    assert CountingLink.most == GREETED_AT_ONCE


async def test_a_few_logs_are_fetched_at_a_time_and_all_are_kept(crew: Crew, tmp_path: Path) -> None:
    CountingLink.most = 0
    with RunStore.create(tmp_path, "r") as store:
        assert await crew.collect(store, "001-a") == {}
        assert len(list(store.folder.glob("logs/001-a/*.hlog"))) == 100
    assert CountingLink.most == FETCHED_AT_ONCE
    assert not any(member.link._held for member in crew.members.values())  # type: ignore[attr-defined]


async def test_those_who_were_waited_for_in_vain_are_asked_once(crew: Crew, tmp_path: Path) -> None:
    with RunStore.create(tmp_path, "r") as store:
        await crew.collect(store, "001-a", doubtful={"node-7"})
    hurried = [node for node, member in crew.members.items() if not member.link.patient]  # type: ignore[attr-defined]
    assert hurried == ["node-7"]


class Runner(RoundRunner):
    """Measures nothing, and says that agents were armed."""

    async def _inside(self, round_: Round, plan: BlockPlan, notes: _Notes) -> None:
        notes.armed = True

    async def _watch(
        self, round_: Round, armed: Sequence[str], start_ns: int, window_ns: int
    ) -> tuple[None, None]:
        return None, None


def a_runner(crew: Crew, store: RunStore) -> Runner:
    clock = ManualClock()
    return Runner(SCENARIO, FakeFleet(SCENARIO, (), {}, clock), crew, store, NullObserver(), clock)


@pytest.mark.parametrize("agents", [1, 100])
async def test_each_agent_more_to_arm_gives_the_calls_more_time(
    crew: Crew, tmp_path: Path, agents: int
) -> None:
    with RunStore.create(tmp_path, "r") as store:
        runner = a_runner(crew, store)
        round_ = Round("001-a", 1, SCENARIO.phases[0], (), 1)
        await runner._run_window(round_, PLAN, sorted(crew.members)[:agents], _Notes())
    ahead_ns = {arm.start_ns - 10**9 for arm in CountingLink.armed}  # the warm-up is a second
    assert ahead_ns == {500_000_000 + agents * 4_000_000}
    assert len(CountingLink.armed) == agents


async def test_a_slow_disk_takes_no_time_from_arming(
    crew: Crew, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RunStore.create(tmp_path, "r") as store:
        runner = a_runner(crew, store)
        clock = runner._clock
        assert isinstance(clock, ManualClock)
        monkeypatch.setattr(store, "append", lambda event: clock.advance(3 * 10**9))
        await runner._run_window(Round("001-a", 1, SCENARIO.phases[0], (), 1), PLAN, ["node-1"], _Notes())
    assert {arm.start_ns for arm in CountingLink.armed} == {3 * 10**9 + 504_000_000 + 10**9}


async def test_an_agent_that_went_silent_in_the_window_is_doubtful_when_logs_are_collected(
    crew: Crew, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[set[str]] = []

    class Listening(RoundRunner):
        """Follows three agents, of which one is lost, one ends unsealed, and one is well."""

        async def _prepare(self, round_: Round, placed: object) -> list[str]:
            return []

        async def _run_window(self, round_: Round, plan: BlockPlan, nodes: object, notes: _Notes) -> None:
            for node in ("node-0", "node-1", "node-2"):
                await self._follow(node, round_.window, 5.0)

    async def stream(link: CountingLink, window: str) -> AsyncIterator[object]:
        if link is crew.members["node-0"].link:
            raise AgentLost("silent")
        if link is crew.members["node-1"].link:
            raise TimeoutError
        return
        yield

    async def collect(
        self: Crew, store: RunStore, window: str | None = None, *, doubtful: Collection[str] = ()
    ) -> dict[str, AgentError]:
        asked.append(set(doubtful))
        return {}

    monkeypatch.setattr(CountingLink, "stream", stream, raising=False)
    monkeypatch.setattr(Crew, "collect", collect)
    with RunStore.create(tmp_path, "r") as store:
        clock = ManualClock()
        fleet = FakeFleet(STANDING, (), {}, clock)
        runner = Listening(STANDING, fleet, crew, store, NullObserver(), clock)
        await runner._inside(Round("001-a", 1, STANDING.phases[0], (), 1), PLAN, _Notes())
    assert asked == [{"node-0", "node-1"}]


class ReadLogs(RunStore):
    """Has endless logs; the third one read has the run cancelled."""

    drawn = 0

    def agent_windows(
        self, window: str, roles: Mapping[str, str], offsets: Mapping[str, tuple[int, int]]
    ) -> Iterator[AgentWindow]:
        task = asyncio.current_task()
        assert task is not None
        while self.drawn < 10:
            self.drawn += 1
            if self.drawn == 3:
                task.cancel()
            yield AgentWindow("node-1", "sealed", "quiet")


async def test_a_signal_is_heard_while_logs_are_read(crew: Crew, tmp_path: Path) -> None:
    RunStore.create(tmp_path, "r").close()
    (tmp_path / "r" / "journal.jsonl").touch()
    with ReadLogs(tmp_path / "r") as store:
        runner = a_runner(crew, store)
        measuring = asyncio.create_task(runner.measure(PLAN, SCENARIO.phases[0], "001-a"))
        with pytest.raises(asyncio.CancelledError):
            await measuring
        assert store.drawn == 3


ENDLESS = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("limits", "set_to"),
    [
        ((256, 4096), [(2128, 4096)]),
        ((256, ENDLESS), [(2128, ENDLESS)]),
        ((2128, 4096), []),
        ((ENDLESS, ENDLESS), []),
    ],
)
def test_a_thousand_links_may_be_open(
    monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int], set_to: list[tuple[int, int]]
) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda _, wanted: asked.append(wanted))
    allow_files(1000)
    assert asked == set_to


async def test_a_system_that_allows_too_few_files_is_told_of_before_any_agent_is_called(
    crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    CountingLink.most = 0
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 300))
    with pytest.raises(ClusterError, match=r"100 agents need 328 open files, and this process may have 300"):
        await crew.join([AgentEndpoint(f"node-{n}", "", "") for n in range(100)])
    assert CountingLink.most == 0
