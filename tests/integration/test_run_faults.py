"""Whole runs in which something goes wrong: each ends or goes on as it should, says why, and leaves nothing running."""

from __future__ import annotations

import asyncio
import resource
import signal
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
import run_kit as kit

from kabench.backends.local import LocalBackend
from kabench.backends.local import fleet as fleet_module
from kabench.backends.local.servers import find_redis_server
from kabench.cli.session import exit_code
from kabench.controller import link as link_module
from kabench.controller import round as round_module
from kabench.controller.observer import NullObserver
from kabench.controller.run import run_benchmark
from kabench.core.result import BlockRecord, RunResult
from kabench.core.scenario import load_scenario
from kabench.store import RunStore
from kabench.wire.messages import Arm, Armed

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


async def run(store: RunStore, observer: NullObserver, text: str = ONE_PHASE, **replaced: str) -> RunResult:
    path = kit.write_scenario(store.folder.parent, text, **replaced)
    scenario = load_scenario(path.read_text(), "tiny.yaml")
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
    defaults = link_module.AgentLink._ask.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "timeout_s", 1.0)


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


async def test_a_block_that_is_void_already_is_not_measured_any_further(store: RunStore) -> None:
    strict = "{quiet_lag_p99_ms: 0.001, strangers_cpu_share: 1}"
    result = await run(store, NullObserver(), kit.TINY, blocks="{planned: 1, reserve: 1}", gates=strict)
    assert [(block.valid, {reason.phase for reason in block.void}) for block in result.blocks] == [
        (False, {block.order[0]}) for block in result.blocks
    ]
    assert [record.phase for record in result.rounds] == [block.order[0] for block in result.blocks]
    assert len(result.blocks) == 2


async def test_an_agent_that_is_armed_too_late_takes_part_in_the_next_round(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    arm, late = link_module.AgentLink.arm, list[str]()

    async def too_late_once(self: link_module.AgentLink, order: Arm) -> Armed:
        if self.node == "node-2" and not late:
            late.append(order.window)
            order = Arm(order.window, 0)
        return await arm(self, order)

    monkeypatch.setattr(link_module.AgentLink, "arm", too_late_once)
    result = await run(store, NullObserver(), blocks="{planned: 1, reserve: 1}")
    assert [record.error for record in result.rounds] == ["", ""]
    unsealed = [
        (record.window, agent.agent)
        for record in result.rounds
        for agent in record.agents
        if agent.status != "sealed"
    ]
    assert unsealed == [(late[0], "node-2")]


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


SERVER = """
import asyncio, json

async def serve(reader, writer):
    served = 0
    while await reader.readuntil(b"\\r\\n\\r\\n"):
        status = {healthy}
        writer.write(b"HTTP/1.1 %d Said\\r\\nContent-Length: 0\\r\\n\\r\\n" % status)
        served += 1

async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(json.dumps({{"port": server.sockets[0].getsockname()[1]}}), flush=True)
    await server.serve_forever()

asyncio.get_event_loop_policy()
loop = asyncio.new_event_loop()
loop.set_exception_handler(lambda loop, context: None)
loop.run_until_complete(main())
"""
"""An HTTP server; `healthy` is a status, in terms of how many requests its connection has `served` already."""


def http_server(monkeypatch: pytest.MonkeyPatch, healthy: str) -> None:
    """The HTTP target of the next run: a server with that idea of health."""
    command = [sys.executable, "-c", SERVER.format(healthy=healthy)]
    monkeypatch.setattr(fleet_module, "http_echo_command", lambda cpu_us: command)


def redis_server(monkeypatch: pytest.MonkeyPatch, folder: Path, *flags: str) -> None:
    """The Redis of the next run has `flags` of its own."""
    folder.mkdir()
    wrapper = folder / "redis-server"
    quoted = " ".join(f"'{flag}'" for flag in flags)
    wrapper.write_text(f"#!/bin/sh\nexec '{find_redis_server().path}' \"$@\" {quoted}\n")
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


async def test_http_5xx_are_errors_and_the_target_s_own(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    http_server(monkeypatch, "200 if served % 2 == 0 else 503")
    result = await run(store, NullObserver())
    [block] = result.blocks
    assert block.valid, block.void
    figures = result.summary["phases"]["default"]["http"]
    counts = figures["requests"]
    assert counts["sent"] == counts["ok"] + counts["error"] + counts["timeout"]
    assert 0.4 < counts["error"] / counts["sent"] < 0.6
    assert {name for cell in result.cells for name in cell.outcomes.errors} == {"status"}


async def test_a_target_that_never_gets_ready_is_named_and_the_run_ends(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    http_server(monkeypatch, "503")
    result = await run(store, NullObserver(), timing="{window_s: 1, warm_up_s: 0.2, ready_timeout_s: 4}")
    [block] = result.blocks
    [reason] = block.void
    assert reason.code == "round-failed"
    assert "echo" in reason.detail
    assert "did not answer within 4 s: HTTP status 503" in reason.detail
    assert exit_code(result) == 4


async def test_a_redis_that_wants_a_password_is_named_and_the_run_ends(
    store: RunStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    redis_server(monkeypatch, tmp_path / "bin", "--requirepass", "secret")
    result = await run(store, NullObserver())
    [reason] = result.blocks[0].void
    assert (reason.code, "NOAUTH" in reason.detail) == ("round-failed", True), reason.detail
    assert exit_code(result) == 4


async def test_error_replies_in_the_window_are_counted_and_no_arm_with_them_is_void(
    store: RunStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    redis_server(monkeypatch, tmp_path / "bin", "--user", "default", "on", "nopass", "~*", "+@all", "-get")
    result = await run(store, NullObserver())
    [block] = result.blocks
    assert block.valid, block.void
    counts = result.summary["phases"]["default"]["redis"]["requests"]
    assert counts["error"] > counts["ok"] > 0  # the reads, and the writes
    assert counts["sent"] == counts["ok"] + counts["error"] + counts["timeout"]


async def test_killed_in_stages_before_a_window_a_run_is_resumed_until_it_is_whole_and_then_left_alone(
    tmp_path: Path,
) -> None:
    out = tmp_path / "results"
    scenario = kit.write_scenario(tmp_path, ONE_PHASE)
    controller = kit.Controller("run", scenario, *LOCAL, cwd=tmp_path)
    kit.until(at_least(out, "run-started"), "the run's start")
    kill(controller)
    assert not kit.events(out, "fleet-ready")

    controller = kit.Controller("run", "--resume", out / "latest", cwd=tmp_path)
    kit.until(at_least(out, "block-started"), "a block")
    kill(controller)
    assert not kit.events(out, "round-started")

    ended_cleanly(kit.Controller("run", "--resume", out / "latest", cwd=tmp_path), 0)
    whole = kit.results(out)
    assert [(block["block"], block["valid"]) for block in whole["blocks"]] == [(1, False), (2, True)]
    assert whole["status"] == "finished"

    scenario_again = load_scenario(scenario.read_text(), "tiny.yaml")
    with RunStore.open(out / "latest") as store:
        await run_benchmark(scenario_again, LocalBackend(), store, NullObserver(), resume=True)
    nothing_runs()
    again = kit.results(out)
    for part in ("blocks", "rounds", "cells", "summary", "comparison", "status"):
        assert whole[part] == again[part]


def kill(controller: kit.Controller) -> None:
    """With -9; whatever it had started ends with it."""
    kit.until(lambda: controller.child("kabench_agent"), "an agent")
    controller.signal(signal.SIGKILL)
    controller.wait()
    assert not controller.leftovers()


def test_a_run_that_another_controller_writes_is_not_resumed(tmp_path: Path) -> None:
    out = tmp_path / "results"
    first = kit.Controller("run", kit.write_scenario(tmp_path), *LOCAL, cwd=tmp_path)
    kit.until(at_least(out, "fleet-ready"), "the fleet")
    _, err = ended_cleanly(kit.Controller("run", "--resume", out / "latest", cwd=tmp_path), 4)
    assert "another kabench is writing this run" in err
    first.signal(signal.SIGTERM)
    ended_cleanly(first, 130)
