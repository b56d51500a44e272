"""The noise's commands, its memory, and its account, on texts as the tools write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from kabench.backends.local.noise import (
    DEFAULT_CACHE_BYTES,
    MAX_CACHE,
    NOTHING,
    RunningNoise,
    StressTool,
    account_of,
    available_memory_bytes,
    check_memory,
    find_stress_tool,
    last_level_cache_bytes,
    work_done,
)
from kabench.backends.local.processes import Child, Exit
from kabench.core.placement import MIB
from kabench.core.spec import Stressor
from kabench.errors import ClusterError

BUILT_IN = StressTool("built-in", None, 32 * MIB)
STRESS_NG = StressTool("stress-ng 0.15.06", "/usr/bin/stress-ng", 32 * MIB)
REPORT = """---
system-info:
      stress-ng-version: 0.15.06
metrics:
    - stressor: cache
      bogo-ops: 617929
      bogo-ops-per-second-real-time: 414402.079030
      wall-clock-time: 1.491134
    - stressor: stream
      bogo-ops: 4
      wall-clock-time: 1.532944
"""


def ended(tool: StressTool, folder: Path, output: str = "", expected: bool = True) -> RunningNoise:
    log = folder / "noise.log"
    log.write_text("oops\n")
    child = Child("noise", "noise", "node-1", frozenset({0}), log, 0, 1, -1, -1, started_ns=0)
    child.output += output.encode()
    child.exit = Exit(at_ns=3_000_000_000, code=0 if expected else -9, cpu_ns=700_000_000)
    child.expected = expected
    return RunningNoise(child, Stressor(kind="stress-cache"), tool, folder / "report.yaml")


def test_every_kind_has_a_command_that_ends_by_itself(tmp_path: Path) -> None:
    for kind in ("stress-cache", "stress-membw", "stress-cpu"):
        stressor = Stressor(kind=kind, workers=2)
        ng = STRESS_NG.command(stressor, 90, tmp_path / "r.yaml")
        assert ng[ng.index("--timeout") + 1] == "90s"
        assert ng[ng.index("--temp-path") + 1] == str(tmp_path)
        assert ng[2] == "2"
        built_in = BUILT_IN.command(stressor, 90, tmp_path / "r.yaml")
        assert built_in[built_in.index("--seconds") + 1] == "90"
        assert built_in[built_in.index("--kind") + 1] == kind.removeprefix("stress-")
    assert "--cache-no-affinity" in STRESS_NG.command(Stressor(kind="stress-cache"), 1, tmp_path / "r")


def test_buffers_exceed_the_last_level_cache(tmp_path: Path) -> None:
    assert BUILT_IN.buffer_bytes == 64 * MIB
    assert StressTool("built-in", None, 2 * MIB).buffer_bytes == 64 * MIB
    assert StressTool("built-in", None, MAX_CACHE).buffer_bytes == 256 * MIB


def test_the_cache_size_is_the_largest_that_is_told(tmp_path: Path) -> None:
    for name, size in (("index0", "32K"), ("index2", "1M"), ("index3", "36864K")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "size").write_text(size + "\n")
    assert last_level_cache_bytes(tmp_path) == 36 * MIB
    (tmp_path / "index3" / "size").write_text("1056768K\n")
    assert last_level_cache_bytes(tmp_path) == MAX_CACHE
    assert last_level_cache_bytes(tmp_path / "none") == DEFAULT_CACHE_BYTES


def test_memory_is_bounded() -> None:
    stressors = [Stressor(kind="stress-cache"), Stressor(kind="stress-membw", workers=2)]
    wanted = 2 * (64 + 2 * 2 * 64) * MIB
    check_memory(BUILT_IN, stressors, nodes=2, available=2 * wanted)
    with pytest.raises(
        ClusterError, match=f"would fill {wanted // MIB} MiB and {2 * wanted // MIB - 1} MiB are available"
    ):
        check_memory(BUILT_IN, stressors, nodes=2, available=2 * wanted - 1)
    check_memory(BUILT_IN, [Stressor(kind="stress-cpu", workers=8)], nodes=6, available=0)


def test_a_containers_limit_counts_as_available_memory(tmp_path: Path) -> None:
    unlimited = available_memory_bytes(tmp_path)
    assert unlimited > 100 * MIB
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("100\n")
    assert available_memory_bytes(tmp_path) > 100 * MIB
    (tmp_path / "memory.max").write_text("1000\n")
    assert available_memory_bytes(tmp_path) == 900
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("500\n")
    (tmp_path / "memory" / "memory.usage_in_bytes").write_text("600\n")
    assert available_memory_bytes(tmp_path) == 0


READY = '{"ready": true}\n'
FIRST = '{"ops": 100, "bytes": 9, "cpu_seconds": 0.25, "seconds": 1.0}\n'
SECOND = '{"ops": 123, "bytes": 9, "cpu_seconds": 0.75, "seconds": 2.5}\n'


def test_the_built_in_account(tmp_path: Path) -> None:
    noise = ended(BUILT_IN, tmp_path, READY + SECOND)
    work = work_done(noise, account_of(noise), 2.25)
    assert (work.ops, work.seconds, work.cpu_seconds, work.tool) == (123.0, 2.25, 0.7, "built-in")
    assert (work.node, work.stressor, work.note) == ("node-1", "stress-cache", "")


def test_what_a_stressor_did_in_earlier_rounds_is_not_counted_again(tmp_path: Path) -> None:
    noise = ended(BUILT_IN, tmp_path, READY + FIRST)
    noise.child.exit = None
    first = account_of(noise)
    assert first is not None
    noise.before, noise.told = first, 1
    assert account_of(noise) is None
    noise.child.output += SECOND.encode()
    work = work_done(noise, account_of(noise), 2.25)
    assert (work.ops, work.seconds, work.cpu_seconds, work.note) == (23.0, 2.25, 0.5, "")
    noise.child.exit = Exit(at_ns=3_000_000_000, code=-9, cpu_ns=1_000_000_000)
    assert work_done(noise, None, 2.25).cpu_seconds == 0.75


@pytest.mark.parametrize("line", ["", "{}", "[1]", '{"ops": null, "seconds": 1, "cpu_seconds": 1}'])
def test_what_is_no_account_is_none(tmp_path: Path, line: str) -> None:
    assert account_of(ended(BUILT_IN, tmp_path, READY + line + "\n")) is None


def test_the_stress_ng_account(tmp_path: Path) -> None:
    noise = ended(STRESS_NG, tmp_path)
    noise.report.write_text(REPORT)
    account = account_of(noise)
    assert account is not None
    assert account.seconds == pytest.approx(1.533, abs=0.001)
    work = work_done(noise, account, 1.25)
    assert (work.ops, work.seconds, work.cpu_seconds, work.stressor) == (617933.0, 1.25, 0.7, "stress-cache")


@pytest.mark.parametrize("tool", [BUILT_IN, STRESS_NG])
def test_noise_that_was_killed_has_no_figures_and_says_so(tool: StressTool, tmp_path: Path) -> None:
    noise = ended(tool, tmp_path, READY, expected=False)
    assert noise.before == NOTHING
    work = work_done(noise, account_of(noise), 3.0)
    assert work.ops is None
    assert work.seconds == 3.0
    assert work.note == "it left no account of its work; ended early: killed by SIGKILL"


def test_without_stress_ng_the_built_in_stressor_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_stress_tool().name == "built-in"


def test_a_stress_ng_on_the_path_is_named_with_its_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "stress-ng"
    program.write_text("#!/bin/sh\necho 'stress-ng, version 0.15.06 (gcc 12.2.0, x86_64)'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_stress_tool().name == "stress-ng 0.15.06"
    program.write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(ClusterError, match="stress-ng does not run"):
        find_stress_tool()
