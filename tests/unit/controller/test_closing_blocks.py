"""What the controller hands to the judge of a block, and what becomes of errors that are not an agent's."""

from __future__ import annotations

from pathlib import Path

import pytest

from kabench.backends.fake import FakeBackend
from kabench.clock import SystemClock
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


async def test_a_full_disk_is_raised_as_itself_and_agents_failures_are_returned() -> None:
    async def call(name: str, error: Exception | None) -> str:
        if error is not None:
            raise error
        return name

    lost = AgentLost("gone")
    assert await crew_module._on_all({"a": None, "b": lost}, call) == ({"a": "a"}, {"b": lost})
    with pytest.raises(StoreError, match="full"):
        await crew_module._on_all({"a": None, "b": AgentError("no"), "c": StoreError("full")}, call)
