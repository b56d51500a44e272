"""What the controller hands to the judge of a block, and what becomes of errors that are not an agent's."""

from __future__ import annotations

from pathlib import Path

import pytest

from kabench.backends.base import Node
from kabench.backends.fake import FakeBackend, FakeFleet
from kabench.clock import ManualClock, SystemClock
from kabench.controller import crew as crew_module
from kabench.controller.observer import NullObserver
from kabench.controller.run import Session
from kabench.core.identity import Outcomes
from kabench.core.journal import BlockClosed
from kabench.core.plan import BlockPlan
from kabench.core.result import AgentWindow, RoundRecord
from kabench.core.spec import Scenario
from kabench.errors import AgentError, AgentLost, StoreError
from kabench.store import RunStore

SCENARIO = Scenario.model_validate(
    {
        "name": "s",
        "phases": [{"name": "a", "policy": "default"}],
        "targets": [{"name": "r", "kind": "redis"}],
    }
)
ROLES = {"node-1": "quiet"}
NODE = Node("node-1", 4000, 2**33)
ROUND = RoundRecord(
    "001-a", 1, "a", agents=[AgentWindow("node-1", "sealed", "quiet", Outcomes(5, 5, 5), lag_p99_ns=1)]
)


@pytest.mark.parametrize(
    ("after", "codes"), [("boot-1", []), ("boot-2", ["machine-changed"])], ids=["the same", "started anew"]
)
def test_a_machine_that_started_anew_in_a_block_voids_it(
    tmp_path: Path, after: str, codes: list[str]
) -> None:
    with RunStore.create(tmp_path, "r") as store:
        session = Session(SCENARIO, FakeBackend(), store, NullObserver(), SystemClock())
        boot_ids = [{"node-1": "boot-1"}, {"node-1": after}]
        session._close_block(BlockPlan(1, ("a",), (), ROLES), False, [ROUND], boot_ids)
        [closed] = store.journal()
    assert isinstance(closed, BlockClosed)
    assert [reason.code for reason in closed.void] == codes
    assert closed.valid is not bool(codes)


async def test_reserve_blocks_take_no_more_than_the_time_there_is_though_some_end_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two rounds of 10 s each; every second block ends after its first. A whole one must fit into what is left."""
    phases = [{"name": name, "policy": "default"} for name in ("a", "b")]
    given = {
        "blocks": {"planned": 1, "reserve": 20},
        "timing": {"budget_s": 100},
        "phases": phases,
        "noise": {"nodes": 0, "stressors": []},
    }
    scenario = Scenario.model_validate({**SCENARIO.model_dump(mode="json"), **given})
    clock, began_s = ManualClock(), list[float]()
    with RunStore.create(tmp_path, "r") as store:
        session = Session(scenario, FakeBackend(), store, NullObserver(), clock)

        async def block(*_: object, **__: object) -> list[RoundRecord]:
            began_s.append(clock.monotonic_ns() / 1e9)
            rounds = [ROUND] * (1 + len(began_s) % 2)
            clock.advance(len(rounds) * 10_000_000_000)
            session._progress.void += 1
            return rounds

        monkeypatch.setattr(session, "_block", block)
        await session._blocks(FakeFleet(scenario, [NODE], {}, clock))
    assert began_s == [0, 20, 30, 50, 60, 80]


async def test_a_full_disk_is_raised_as_itself_and_agents_failures_are_returned() -> None:
    async def call(name: str, error: Exception | None) -> str:
        if error is not None:
            raise error
        return name

    lost = AgentLost("gone")
    assert await crew_module._on_all({"a": None, "b": lost}, call) == ({"a": "a"}, {"b": lost})
    with pytest.raises(StoreError, match="full"):
        await crew_module._on_all({"a": None, "b": AgentError("no"), "c": StoreError("full")}, call)
