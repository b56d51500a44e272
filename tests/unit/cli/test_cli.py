"""The command line as a user calls it: what it prints, and what it ends with."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from kabench import __version__
from kabench.backends.kubernetes.access import Access
from kabench.backends.local import LocalBackend
from kabench.cli import main
from kabench.cli import session as session_module
from kabench.cli.session import Request, choose_backend, exit_code, new_run_id
from kabench.cli.sources import load_source, seconds
from kabench.core.result import AgentWindow, Comparison, Contrast, KindComparison, RoundRecord, RunResult
from kabench.core.scenario import KUBERNETES_ARMS
from kabench.errors import SpecError, StoreError
from kabench.report.as_json import run_summary
from kabench.scenarios import built_in


@pytest.fixture(autouse=True)
def sigterm() -> Iterator[None]:
    """`main` takes SIGTERM over; the test process keeps its own."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def result(**changes: object) -> RunResult:
    content: dict[str, object] = {
        "run": "r",
        "schema": 1,
        "kabench": __version__,
        "status": "finished",
        "started_realtime_ns": 1,
        "finished_realtime_ns": 2,
        "backend": "local",
        "placement_note": "simulated placement",
        "scenario": {},
        "scenario_sha256": "0",
        "seed": 1,
        "environment": {},
        "nodes": [],
        "blocks": [],
        "rounds": [],
        "cells": [],
        "summary": {"phases": {}, "void": {}, "corrupt": [], "unjudged": []},
        "comparison": Comparison(valid_blocks=8),
    }
    return RunResult(**(content | changes))  # type: ignore[arg-type]


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"kabench {__version__}\n"
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(command in printed for command in ("run", "merge", "chart", "scenario"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fly"], "No such command"),
        (["run", "--bogus"], "No such option"),
        (["run", "--agents", "six"], "Invalid value for '--agents'"),
        (["run", "--agents", "0"], "error: --agents: found 0; give a number ≥ 1"),
        (["run", "--rate", "-1"], "error: --rate: found -1.0; give a number > 0"),
        (["run", "nope"], "error: scenario 'nope': no such file, and no built-in scenario"),
        (["run", "no/such.yaml"], "error: no/such.yaml: cannot be read: No such file or directory"),
        (["run", "--backend", "cloud"], "error: --backend cloud: give one of auto, local"),
        (["run", "--duration", "3x"], "error: --duration 3x: give a time such as 90s, 30m or 1h30m"),
        (["run", "--duration", "30m", "--blocks", "3"], "error: --duration and --blocks: give one of them"),
        (["load"], "Missing argument 'TARGET...'"),
        (["load", "tcp://h", "--rate", "1"], "error: tcp://h: the scheme 'tcp' is not known; give redis://"),
        (["load", "redis://h"], "error: give --rate (requests leave by a schedule) or --closed"),
        (["load", "redis://h", "--rate", "1", "--closed"], "error: --rate and --closed: give one of"),
        (["load", "redis://h", "--rate", "1", "--duration", "5"], "error: --duration 5: give a time such as"),
        (["load", "redis://h", "--rate", "1", "--warmup", "-1s"], "error: --warmup -1s: give a time such as"),
        (["load", "redis://h", "--rate", "1", "--correct", "1ms"], "error: --correct: an open loop needs no"),
        (["load", "redis://h", "--find-rate", "p99"], "error: --find-rate 'p99': 'p99' is no promise"),
        (
            ["load", "redis://h", "--find-rate", "p99<1ms", "--closed"],
            "error: --find-rate: it chooses the rates",
        ),
        (["load", "https://h", "--rate", "1", "--cacert", "no/such"], "Invalid value for '--cacert'"),
        (["load", "http://h", "--rate", "1", "--body", "@no/such"], "error: --body @no/such: cannot be read"),
        (["load", "no/such.yaml"], "error: no/such.yaml: cannot be read: No such file or directory"),
        (["load", "a.yaml", "redis://h"], "error: a.yaml: a scenario names all its targets; give it alone"),
        (["run", "--resume", "no-such-run"], "error: --resume no-such-run: no such run in results"),
        (["run", "--resume", "x", "--seed", "3"], "error: --resume: a run goes on with its own scenario"),
        (["scenario", "validate", "nope"], "error: scenario 'nope'"),
        (["merge", "no-such-folder"], "error: no-such-folder: "),
    ],
)
def test_a_users_mistake_ends_with_two_and_a_line(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err + captured.out
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_results_cannot_be_charted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["chart", str(tmp_path)]) == StoreError.exit_code
    assert "no results.json here" in capsys.readouterr().err


def test_debug_raises_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KABENCH_DEBUG", "1")
    with pytest.raises(SpecError, match="no built-in scenario"):
        main(["scenario", "show", "nope"])


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, None])
def test_an_interruption_before_the_run_ends_with_130(
    interruption: type[BaseException] | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(request: Request) -> int:
        if interruption:
            raise interruption
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError("SIGTERM is not taken for an interruption")

    monkeypatch.setattr(session_module, "execute", interrupted)
    assert main(["run"]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_scenario_show_prints_what_validate_accepts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["scenario", "show"]) == 0
    shown = capsys.readouterr().out
    assert shown == built_in("seed")
    copy = tmp_path / "copy.yaml"
    copy.write_text(shown)
    assert main(["scenario", "validate", str(copy)]) == 0
    assert capsys.readouterr().out.endswith(f"{copy}: valid\n")


def test_scenario_validate_names_file_line_and_field(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(built_in("seed").replace("rate_per_s: 2400", "rate_per_s: -1"))
    assert main(["scenario", "validate", str(wrong)]) == 2
    line = 1 + wrong.read_text().splitlines().index(
        next(x for x in wrong.read_text().splitlines() if "rate_per_s" in x)
    )
    assert capsys.readouterr().err == f"error: {wrong}:{line}: load.rate_per_s: found -1; give a number > 0\n"


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    binary = tmp_path / "scenario.yaml"
    binary.write_bytes(b"name: \xff\xfe")
    with pytest.raises(SpecError, match=r"not a text file in UTF-8 \(byte 6\)"):
        load_source(str(binary))


def test_scenario_schema_is_json_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scenario", "schema"]) == 0
    assert set(json.loads(capsys.readouterr().out)["required"]) == {"name", "phases", "targets"}


@pytest.mark.parametrize(("text", "expected"), [("90s", 90), ("30m", 1800), ("1h30m", 5400), ("0.5h", 1800)])
def test_durations(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "30", "m", "-3m", "0s", "3m!", "3 m"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(SpecError):
        seconds(text)


def test_quick_leaves_what_other_flags_ask_for() -> None:
    scenario = Request(quick=True).scenario(LocalBackend())
    assert ([p.name for p in scenario.phases], scenario.blocks.planned) == (
        ["default", "contention-aware"],
        8,
    )
    scenario = Request(
        quick=True, blocks=3, phases=("oracle-quiet", "oracle-noisy", "default"), seed=4
    ).scenario(LocalBackend())
    assert [p.name for p in scenario.phases] == ["oracle-quiet", "oracle-noisy", "default"]
    assert (scenario.blocks.planned, scenario.timing.window_s, scenario.seed) == (3, 5, 4)


def test_duration_fits_the_plan() -> None:
    scenario = Request(quick=True, duration="10m").scenario(LocalBackend())
    assert (len(scenario.phases), scenario.blocks.planned, scenario.timing.budget_s) == (2, 20, 600)


def kubeconfig(folder: Path, current: str, *contexts: str) -> Path:
    path = folder / "kubeconfig"
    names = "\n".join(f"- {{name: {name}, context: {{cluster: c, user: u}}}}" for name in contexts)
    path.write_text(f"current-context: {current}\ncontexts:\n{names}\n")
    return path


def test_auto_is_the_local_backend_unless_the_current_context_is_our_kind_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    assert choose_backend("auto", Access()).name == choose_backend("local", Access()).name == "local"
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path, "production", "production", "kind-kabench")))
    assert choose_backend("auto", Access()).name == "local"


def test_cluster_flags_are_refused_on_the_local_backend() -> None:
    with pytest.raises(SpecError, match="are for --backend kubernetes"):
        choose_backend("local", Access(context="kind-kabench"))


def test_a_built_in_scenario_has_the_arms_of_its_backend() -> None:
    class Cluster(LocalBackend):
        arms = KUBERNETES_ARMS
        quick_arms = 3

    assert [p.way for p in Request().scenario(Cluster()).phases] == [
        "scheduler:default-scheduler",
        "pin:quiet",
        "pin:noisy",
        "scheduler:default-scheduler",
    ]
    quick = Request(quick=True).scenario(Cluster())
    assert [p.name for p in quick.phases] == ["default", "oracle-quiet", "oracle-noisy"]
    named = Request(phases=("default", "mine=scheduler:mine")).scenario(Cluster())
    assert [p.way for p in named.phases] == ["scheduler:default-scheduler", "scheduler:mine"]


def test_run_ids_differ_and_sort_by_time() -> None:
    ids = {new_run_id() for _ in range(20)}
    assert len(ids) == 20
    assert all(run[:2] == "20" and run[8] == "-" for run in ids)


LOST = RoundRecord("001-a", 1, "a", casualties=[{"role": "target", "name": "redis-0"}])
EFFECT = Contrast(
    "effect", "a", "b", [KindComparison("redis", withheld="too few blocks"), KindComparison("http")]
)
NO_EFFECT = Contrast(
    "effect", "a", "b", [KindComparison("redis", withheld="too few blocks to compare: 2 of 7")]
)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, 0),
        ({"comparison": Comparison(contrasts=[EFFECT], valid_blocks=8)}, 0),
        ({"comparison": Comparison(contrasts=[NO_EFFECT], valid_blocks=2)}, 3),
        ({"comparison": Comparison(valid_blocks=0)}, 3),
        ({"rounds": [LOST]}, 4),
        ({"rounds": [LOST], "comparison": Comparison(valid_blocks=0)}, 4),
        ({"rounds": [RoundRecord("w", 1, "a", error="redis-0 did not get ready")]}, 4),
        ({"rounds": [RoundRecord("w", 1, "a", agents=[AgentWindow("node-1", "missing", "quiet")])]}, 4),
        ({"rounds": [RoundRecord("w", 1, "a", agents=[AgentWindow("node-1", "sealed", "quiet")])]}, 0),
        ({"rounds": [RoundRecord("w", 1, "a", casualties=[{"role": "noise", "name": "stress"}])]}, 0),
    ],
)
def test_how_a_run_ends(changes: dict[str, object], code: int) -> None:
    assert exit_code(result(**changes)) == code


def test_the_json_of_a_run_is_that_of_a_merge_with_placements_and_comparison() -> None:
    found = run_summary(result(), "results/r")
    assert {"phases", "void", "corrupt", "unjudged", "placements", "comparison"} <= found.keys()
    assert (found["run"], found["status"], found["folder"]) == ("r", "finished", "results/r")
