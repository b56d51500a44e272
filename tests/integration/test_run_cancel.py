"""A run cancelled in each of its stages: it cleans up, keeps what it measured, and raises the cancellation again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
import run_kit as kit

from kabench.backends.local import LocalBackend
from kabench.controller.observer import NullObserver
from kabench.controller.run import run_benchmark
from kabench.core.scenario import load_scenario
from kabench.store import RunStore, read_result

STAGES = ("start", "noise", "probe", "place", "prepare", "measure", "collect")


class CancelAt(NullObserver):
    """Cancels the run as soon as it says that it enters `stage`."""

    def __init__(self, stage: str) -> None:
        self.wanted = stage
        self.task: asyncio.Task[object] | None = None
        self.reached = False

    def stage(self, text: str) -> None:
        if text == self.wanted and self.task is not None and not self.reached:
            self.reached = True
            # a moment later, in the middle of the stage rather than at its first line
            asyncio.get_running_loop().call_later(0.02, self.task.cancel)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[RunStore]:
    with RunStore.create(tmp_path / "results", "20260101T000000-abcd") as opened:
        yield opened


@pytest.mark.parametrize("stage", STAGES)
async def test_cancelled_in_a_stage_nothing_is_left_running_and_the_results_are_written(
    stage: str, store: RunStore
) -> None:
    observer = CancelAt(stage)
    scenario = load_scenario(kit.TINY, "tiny.yaml")
    observer.task = asyncio.create_task(run_benchmark(scenario, LocalBackend(), store, observer))
    with pytest.raises(asyncio.CancelledError):
        await observer.task
    assert observer.reached
    _, alive = psutil.wait_procs(psutil.Process().children(recursive=True), timeout=3)
    assert [process.cmdline() for process in alive] == []
    result = read_result(store.folder)
    assert result.status == "interrupted"
    assert all(not block.valid for block in result.blocks)
