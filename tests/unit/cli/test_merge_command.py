"""`kabench merge` over logs as an agent writes them."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from kabench.cli import main
from kabench.cli.merge import MANY, _followed


@pytest.fixture
def logs(tmp_path: Path, forge: Any) -> Path:
    folder = tmp_path / "logs"
    folder.mkdir()
    for agent in ("node-1", "node-2"):
        (folder / f"{agent}.hlog").write_bytes(forge.log(agent=agent))
    return folder


def test_the_table_names_every_outcome_and_quantile(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["merge", str(logs)]) == 0
    printed = capsys.readouterr().out
    for word in (
        "default",
        "redis",
        "http",
        "sent",
        "timeout",
        "skipped",
        "ok/s",
        "p99.9",
        "response",
        "service",
    ):
        assert word in printed
    assert "2 agents' windows counted" in printed
    assert (logs / "merged.json").exists()


def test_json_is_all_there_is_on_stdout_and_equals_the_file(
    logs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["merge", str(logs), "--json", "--out", str(tmp_path / "out")]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "out" / "merged.json").read_text())
    redis = printed["phases"]["default"]["redis"]
    assert redis["requests"]["planned"] == redis["requests"]["sent"] + redis["requests"]["skipped"]
    assert set(redis["response_ns"]) == {"p50", "p90", "p99", "p99.9", "max"}


def test_corrupt_logs_are_named_and_end_with_five(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torn = logs / "node-2.hlog"
    torn.write_bytes(torn.read_bytes()[:-40])
    assert main(["merge", str(logs), "--json"]) == 5
    captured = capsys.readouterr()
    assert "node-2.hlog" in captured.err
    assert len(json.loads(captured.out)["corrupt"]) == 1


@pytest.mark.parametrize("flags", ["", "--json"])
@pytest.mark.parametrize(("torn", "code"), [(False, 0), (True, 5)])
def test_a_reader_that_has_gone_changes_no_exit_code(logs: Path, flags: str, torn: bool, code: int) -> None:
    if torn:
        (logs / "node-2.hlog").write_bytes((logs / "node-2.hlog").read_bytes()[:-40])
    script = f"({sys.executable} -m kabench merge {logs} {flags} 2>err) | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=logs, check=True)
    assert (done.stdout, done.stderr) == (f"{code}\n", "")
    assert "Traceback" not in (logs / "err").read_text()


@pytest.mark.parametrize(
    ("terminal", "count", "shown"), [(True, MANY, True), (True, MANY - 1, False), (False, MANY, False)]
)
def test_a_bar_follows_many_logs_on_a_terminal(terminal: bool, count: int, shown: bool) -> None:
    printed = io.StringIO()
    logs = [object() for _ in range(count)]
    assert list(_followed(logs, Console(file=printed, force_terminal=terminal))) == logs  # type: ignore[arg-type]
    assert ("merging" in printed.getvalue()) is shown
