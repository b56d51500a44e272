"""What `merge`, `chart` and `run --resume` say of input that they cannot use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from kabench.cli import main
from kabench.core.journal import RunStarted
from kabench.core.spec import Scenario


def test_runs_of_different_scenarios_are_merged_only_when_told(
    tmp_path: Path, forge: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in (1, 2):
        forge.run, forge.scenario = f"run-{number}", str(number) * 64
        (tmp_path / f"{number}.hlog").write_bytes(forge.log())
    assert main(["merge", str(tmp_path)]) == 2
    assert "different" in capsys.readouterr().err
    assert not (tmp_path / "merged.json").exists()
    assert main(["merge", str(tmp_path), "--allow-different"]) == 0
    assert (tmp_path / "merged.json").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a run's results"),
        (b"{", "not a run's results"),
        (b"[1]", "not a run's results"),
        (b"\xff\xfe", "not a run's results"),
        (b'{"run": "r", "schema": 1}', "not a run's results"),
    ],
)
def test_results_that_do_not_read_are_not_charted(
    content: bytes, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "results.json"
    file.write_bytes(content)
    assert main(["chart", str(tmp_path)]) == 4
    printed = capsys.readouterr().err
    assert str(file) in printed
    assert words in printed
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_a_folder_that_is_no_run_is_not_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "holiday").mkdir()
    assert main(["run", "--resume", str(tmp_path / "holiday")]) == 4
    assert "not a run's folder, it has no journal.jsonl" in capsys.readouterr().err
    assert list((tmp_path / "holiday").iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"event": "run-sta',
        b'{"event":"block-closed","block":1,"valid":true,"void":[],"realtime_ns":1}\n',
    ],
)
def test_a_journal_without_its_beginning_is_not_resumed(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "journal.jsonl").write_bytes(content)
    assert main(["run", "--resume", str(tmp_path)]) == 4
    printed = capsys.readouterr().err
    assert str(tmp_path) in printed
    assert "Traceback" not in printed


def test_a_corrupt_journal_is_not_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "journal.jsonl").write_bytes(b"no event\n")
    assert main(["run", "--resume", str(tmp_path)]) == 4
    assert "line 1 is no event" in capsys.readouterr().err


def test_a_run_whose_results_lack_a_secret_is_not_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scenario = Scenario.model_validate(
        {
            "name": "s",
            "phases": [{"name": "a", "policy": "default"}],
            "targets": [{"name": "cache", "kind": "redis", "redis": {"password": "s3cret"}}],
        }
    )
    opening = RunStarted(
        run="r",
        kabench="0",
        backend="local",
        placement_note="",
        scenario=scenario.model_dump(mode="json"),
        scenario_sha256=scenario.fingerprint,
        seed=1,
        realtime_ns=1,
    )
    (tmp_path / "journal.jsonl").write_bytes(msgspec.json.encode(opening) + b"\n")
    assert main(["run", "--resume", str(tmp_path)]) == 2
    assert (
        "--resume: results keep no secrets, and cache needs one; start a new run" in capsys.readouterr().err
    )
