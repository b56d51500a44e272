"""Whole runs in which something goes wrong: each ends or goes on as it should, says why, and leaves nothing running."""

from __future__ import annotations

import asyncio
import resource
import signal
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import run_kit as kit

from kabench.backends.local import LocalBackend
from kabench.controller import link as link_module
from kabench.controller import round as round_module
from kabench.controller.observer import NullObserver
from kabench.controller.run import run_benchmark
from kabench.core.result import BlockRecord, RunResult
from kabench.core.scenario import load_scenario
from kabench.errors import ClusterError, StoreError
from kabench.store import RunStore

ONE_PHASE = kit.TINY.replace("  - {name: contention-aware, policy: contention-aware}\n", "")
LOCAL = ("--backend", "local", "--out", "results")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[RunStore]:
    with RunStore.create(tmp_path / "results", "20260101T000000-abcd") as opened:
        yield opened


@dataclass
class At(NullObserver):
    """Does something once, as the run enters `stage` for the first time, and takes down what the run tells."""

    stage_wanted: str
    do: Callable[[], object]
    notes: list[str] = field(default_factory=list)
    done: bool = False

    def stage(self, text: str) -> None:
        if text == self.stage_wanted and not self.done:
            self.done = True
            self.do()

    def note(self, text: str) -> None:
        self.notes.append(text)


def child(*words: str) -> psutil.Process:
    """A process below this one in whose command line all of `words` stand."""
    for process in psutil.Process().children(recursive=True):
        if all(word in " ".join(process.cmdline()) for word in words):
            return process
    raise AssertionError(f"no process with {words}")


def nothing_runs() -> None:
    _, alive = psutil.wait_procs(psutil.Process().children(recursive=True), timeout=3)
    assert [process.cmdline() for process in alive] == []


async def run(store: RunStore, observer: NullObserver, **replaced: str) -> RunResult:
    scenario = load_scenario(
        kit.write_scenario(store.folder.parent, ONE_PHASE, **replaced).read_text(), "tiny.yaml"
    )
    try:
        return await run_benchmark(scenario, LocalBackend(), store, observer)
    finally:
        nothing_runs()


def reasons(block: BlockRecord) -> set[str]:
    return {reason.code for reason in block.void}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A controller that waits a second where it would wait five."""
    monkeypatch.setattr(round_module, "GRACE_NS", 1_000_000_000)
    monkeypatch.setattr(link_module, "CALL_S", 1.0)
    monkeypatch.setitem(link_module.AgentLink._ask.__kwdefaults__, "timeout_s", 1.0)
    monkeypatch.setattr(link_module, "PAUSES_S", (0.0,))


async def test_an_agent_that_answers_no_more_is_replaced_and_the_run_goes_on(
    store: RunStore, impatient: None
) -> None:
    observer = At("measure", lambda: child("kabench_agent", "node-2").suspend())
    result = await run(store, observer, blocks="{planned: 1, reserve: 1}")
    first, second = result.blocks
    assert not first.valid
    assert "unsealed-log" in reasons(first), first.void  # its spool is read, whoever stands still
    assert second.valid, second.void
    assert "node-2: agent restarted" in observer.notes


async def test_statistics_that_arrive_late_are_counted(store: RunStore) -> None:
    """Stopped through the window's end, the agent goes on, seals late, and none of its requests is lost."""
    stopped: list[psutil.Process] = []

    def stop_for_a_while() -> None:
        agent = child("kabench_agent", "node-2")
        stopped.append(agent)
        loop = asyncio.get_running_loop()
        loop.call_later(0.9, agent.suspend)  # in the window: it begins 0.45 s after this stage
        loop.call_later(2.4, agent.resume)  # a second after its end

    observer = At("measure", stop_for_a_while)
    result = await run(store, observer)
    late = result.rounds[0]
    assert stopped
    [agent] = [one for one in late.agents if one.agent == "node-2"]
    assert agent.status == "sealed"
    assert agent.outcomes.reconciled
    assert agent.outcomes.planned > 0
    assert agent.outcomes.ok + agent.outcomes.timeout + agent.outcomes.skipped >= agent.outcomes.planned * 0.9
    assert agent.lag_p99_ns is not None
    assert agent.lag_p99_ns > 1_000_000_000 or agent.outcomes.skipped > 0
    told = [
        cell.outcomes.planned
        for cell in result.cells
        if cell.cell.agent == "node-2" and cell.cell.kind != "null"
    ]
    assert sum(told) >= agent.outcomes.planned


def at_least(out: Path, name: str, count: int = 1) -> Callable[[], bool]:
    return lambda: len(kit.events(out, name)) >= count


def ended_cleanly(controller: kit.Controller, expected: int) -> tuple[str, str]:
    """Its output; it ended with `expected`, without a traceback, and everything it had started is gone."""
    code, out, err = controller.wait()
    assert code == expected, err
    assert "Traceback" not in err
    assert not controller.leftovers()
    return out, err


async def test_a_disk_that_fills_up_under_an_agent_costs_nothing(store: RunStore) -> None:
    """What its spool does not take, the agent keeps until it is fetched."""

    def limit() -> None:
        agent = child("kabench_agent", "node-2")
        resource.prlimit(agent.pid, resource.RLIMIT_FSIZE, (4096, 4096))

    result = await run(store, At("measure", limit))
    [block] = result.blocks
    assert block.valid, block.void
    assert [agent.status for agent in result.rounds[0].agents] == ["sealed", "sealed"]


def test_a_disk_that_fills_up_under_the_controller_ends_the_run_with_4(tmp_path: Path) -> None:
    out = tmp_path / "results"
    controller = kit.Controller("run", kit.write_scenario(tmp_path), *LOCAL, cwd=tmp_path)
    kit.until(at_least(out, "round-started"), "a window")
    size = (out / "latest" / "journal.jsonl").stat().st_size
    controller.children()
    resource.prlimit(controller.process.pid, resource.RLIMIT_FSIZE, (size, size))
    _, err = ended_cleanly(controller, 4)
    assert str(out) in err
    assert "error: " in err


def test_a_folder_that_becomes_read_only_ends_the_run_with_4_and_keeps_the_journal(tmp_path: Path) -> None:
    """A file in the place of the logs' folder: the one refusal that also holds for root."""
    out = tmp_path / "results"
    controller = kit.Controller("run", kit.write_scenario(tmp_path), *LOCAL, cwd=tmp_path)
    kit.until(at_least(out, "round-started"), "a window")
    (out / "latest" / "logs").write_text("in the way")
    _, err = ended_cleanly(controller, 4)
    assert "logs" in err
    assert kit.results(out)["status"] == "failed"
    assert [event["status"] for event in kit.events(out, "run-ended")] == ["failed"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_a_second_signal_does_not_cut_the_clean_up_short(tmp_path: Path, number: signal.Signals) -> None:
    out = tmp_path / "results"
    controller = kit.Controller("run", kit.write_scenario(tmp_path), *LOCAL, cwd=tmp_path)
    kit.until(at_least(out, "round-started"), "a window")
    for _ in range(3):
        controller.signal(number)
    ended_cleanly(controller, 130)
    assert kit.results(out)["status"] == "interrupted"
