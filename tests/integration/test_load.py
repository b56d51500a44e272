"""`kabench load` against real servers: what it prints, leaves and ends with, whatever happens to servers and agents."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import load_kit
import pytest
import run_kit as kit

from kabench.cli import main
from kabench.core.hlog import Header, LogReader
from kabench.core.logline import INTERVAL_MARK
from kabench.store import read_result

SHORT = ("--duration", "500ms", "--warmup", "0", "--connections", "4")


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[load_kit.Redis]:
    with load_kit.redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    with load_kit.http() as (_, port):
        yield f"http://127.0.0.1:{port}/"


@pytest.fixture(autouse=True)
def sigterm() -> Iterator[None]:
    """`main` takes SIGTERM over; the test process keeps its own."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


class Loaded:
    """A finished `kabench load`."""

    def __init__(self, code: int, out: str, err: str, results: Path) -> None:
        self.code, self.out, self.err, self._results = code, out, err, results

    @property
    def folder(self) -> Path:
        found = kit.run_folder(self._results)
        assert found is not None
        return found

    def figures(self) -> dict[str, Any]:
        """What `--json` printed."""
        found: dict[str, Any] = json.loads(self.out)
        return found


def headers(folder: Path) -> list[Header]:
    """Those of all logs of a run."""
    found = []
    for path in folder.glob("logs/*/*.hlog"):
        with path.open("rb") as file:
            found.append(LogReader(file).header)
    return found


def seconds_logged(out: Path) -> int:
    """How many seconds of the window a lone agent has written down so far."""
    folder = kit.run_folder(out)
    logs = folder.glob("spool/*/*.hlog") if folder else ()
    return sum(path.read_bytes().count(INTERVAL_MARK) for path in logs)


@pytest.fixture
def load(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*arguments: str) -> Loaded:
        code = main(["load", *arguments, "--out", str(tmp_path / "results")])
        printed = capsys.readouterr()
        return Loaded(code, printed.out, printed.err, tmp_path / "results")

    return run


def test_two_servers_are_driven_and_every_request_is_accounted_for(
    load: Any, redis: load_kit.Redis, web: str, capsys: pytest.CaptureFixture[str]
) -> None:
    redis.ask("CONFIG", "RESETSTAT")
    loaded = load(redis.url, web, "--rate", "800", "--keys", "100", "--agents", "2", "--json", *SHORT)
    assert loaded.code == 0
    phase = loaded.figures()["phases"]["load"]
    for kind in ("redis", "http"):
        counts = phase[kind]["requests"]
        assert counts["ok"] == counts["sent"] == counts["planned"] > 120
        assert counts["error"] == counts["timeout"] == counts["skipped"] == 0
        assert 0 < phase[kind]["service_ns"]["max"] <= phase[kind]["response_ns"]["max"]
    # the server has counted the same requests, and those that filled its key space
    assert redis.calls("get") + redis.calls("set") == phase["redis"]["requests"]["sent"] + 100
    assert len({header.seed for header in headers(loaded.folder)}) == 2
    result = read_result(loaded.folder)
    assert (result.placement_note, result.status) == ("", "finished")
    assert {p.decided_by for record in result.rounds for p in record.placements} == {"standing:given"}
    assert main(["merge", str(loaded.folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["phases"]["load"] == phase
    assert main(["chart", str(loaded.folder)]) == 0
    assert "latency.png" in capsys.readouterr().out


def test_a_closed_loop_says_that_it_hides_queueing(load: Any, redis: load_kit.Redis) -> None:
    redis.ask("CONFIG", "RESETSTAT")
    loaded = load(redis.url, "--closed", "--keys", "10", *SHORT)
    assert loaded.code == 0
    assert "queueing does not show" in loaded.out.replace("\n", " ")
    [record] = read_result(loaded.folder).cells
    assert record.outcomes.sent == record.outcomes.ok > 500
    assert redis.calls("get") + redis.calls("set") == record.outcomes.sent + 10


def test_rates_that_change_within_the_window_are_offered(load: Any, redis: load_kit.Redis) -> None:
    loaded = load(redis.url, "--steps", "200,1000", "--arrivals", "constant", *SHORT, "--duration", "2s")
    assert loaded.code == 0
    [record] = read_result(loaded.folder).cells
    # by completion: what was in flight at a second's end belongs to the next one
    assert record.series.ok[:2] == [pytest.approx(200, abs=20), pytest.approx(1000, abs=50)]


def test_a_scenario_s_servers_are_driven_with_flags_in_its_place(
    load: Any, redis: load_kit.Redis, web: str, tmp_path: Path
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"""
name: mine
agents: 1
phases: [{{name: mine, standing: given}}]
targets:
  - {{name: cache, kind: redis, replicas: 1, address: "127.0.0.1:{redis.port}"}}
  - {{name: web, kind: http, replicas: 1, address: "{web.split("/")[2]}"}}
noise: {{nodes: 0}}
load: {{rate_per_s: 100000, connections: 2}}
blocks: {{planned: 2, reserve: 0}}
timing: {{window_s: 60, warm_up_s: 0}}
gates: {{quiet_lag_p99_ms: null, strangers_cpu_share: null, sent_ratio: null}}
""")
    loaded = load(str(file), "--rate", "300", "--duration", "500ms", "--json")
    assert loaded.code == 0
    assert set(loaded.figures()["phases"]["mine"]) == {"redis", "http"}
    assert [block.valid for block in read_result(loaded.folder).blocks] == [True, True]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1:{closed}/", "connection refused"),
        ("redis://no-such-host.invalid", "not known"),
    ],
)
def test_a_server_that_cannot_be_reached_is_told_in_one_line(load: Any, url: str, reason: str) -> None:
    with socket.socket() as unused:  # bound and not listening: nobody else gets this port meanwhile
        unused.bind(("127.0.0.1", 0))
        loaded = load(url.format(closed=unused.getsockname()[1]), "--rate", "100", *SHORT)
    assert loaded.code == 4
    assert re.fullmatch(rf"error: .*did not answer within 2 s: .*{reason}\]?\n", loaded.err)
    assert "did not answer" not in loaded.out


def test_a_certificate_is_checked_by_the_authority_that_is_given(load: Any, tmp_path: Path) -> None:
    with load_kit.https(tmp_path) as (port, trusted):
        url = f"https://localhost:{port}/"
        refused = load(url, "--rate", "100", *SHORT)
        trusting = load(url, "--rate", "100", "--cacert", str(trusted), *SHORT)
    assert (refused.code, trusting.code) == (4, 0)
    assert "its certificate is refused: unable to get local issuer certificate" in refused.err
    [record] = read_result(trusting.folder).cells
    assert record.outcomes.ok == record.outcomes.planned > 20


def test_a_password_opens_the_server_and_is_written_down_nowhere(load: Any, tmp_path: Path) -> None:
    with load_kit.redis(tmp_path, "--requirepass", "s3cret/word") as server:
        url = f"redis://:s3cret%2Fword@127.0.0.1:{server.port}/1"
        loaded = load(url, "--rate", "100", *SHORT)
        shut = load(server.url, "--rate", "100", *SHORT)
    assert (loaded.code, shut.code) == (0, 4)
    assert "NOAUTH" in shut.err
    written = b"".join(path.read_bytes() for path in (tmp_path / "results").rglob("*") if path.is_file())
    assert written
    assert b"s3cret" not in written
    assert "s3cret" not in loaded.out + loaded.err


def test_a_search_keeps_every_try_and_gives_the_reason(
    load: Any, web: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A promise that no server keeps: the search goes down to one request a second, and ends."""
    loaded = load(web, "--find-rate", "p50 < 1us", "--rate", "2", *SHORT, "--json")
    assert loaded.code == 0
    search = loaded.figures()["search"]
    assert [tried["rate_per_s"] for tried in search["tries"]] == [2, 2, 1, 1]
    assert search["rate_per_s"] is None
    assert search["sentence"].startswith("No rate was found that holds p50 < 1us: even at 1/s")
    assert (loaded.folder / "latency.png").exists()
    assert set(loaded.figures()["phases"]) <= {"try-01", "try-02", "try-03", "try-04"}
    assert main(["merge", str(loaded.folder)]) == 0
    assert main(["chart", str(loaded.folder)]) == 0
    assert "latency.png" in capsys.readouterr().out


def test_a_search_for_a_server_that_is_not_there_ends_with_the_first_try(load: Any) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/"
        loaded = load(url, "--find-rate", "p99 < 1ms", *SHORT)
    assert loaded.code == 4
    assert "connection refused" in loaded.err


def test_a_rate_beyond_the_machine_is_run_and_said_not_to_be_reached(load: Any, web: str) -> None:
    loaded = load(web, "--rate", "200000", *SHORT, "--timeout", "500ms")
    assert loaded.code == 0
    assert "offered not reached" in loaded.out
    [record] = read_result(loaded.folder).cells
    assert record.outcomes.reconciled
    assert record.outcomes.skipped > 0
    assert 90_000 < record.outcomes.planned < 110_000
    assert record.outcomes.ok < record.outcomes.planned / 2


def test_a_server_that_is_killed_and_comes_back_costs_errors_and_no_more(tmp_path: Path) -> None:
    out = tmp_path / "results"
    with load_kit.http() as (first, port):
        controller = kit.Controller(
            *("load", f"http://127.0.0.1:{port}/", "--rate", "300", "--duration", "4s", "--warmup", "0"),
            *("--out", out, "--json"),
            cwd=tmp_path,
        )
        kit.until(lambda: seconds_logged(out), "a second of the window")
        first.kill()
        first.wait()
    with load_kit.http(port):
        code, _, err = controller.wait()
    controller.close()
    assert (code, err.count("void")) == (0, 0)
    [record] = read_result(kit.run_folder(out) or out).cells
    outcomes = record.outcomes
    assert outcomes.reconciled
    assert outcomes.skipped == 0
    assert set(outcomes.errors) <= {"connect", "reset", "aborted"}
    assert outcomes.errors["connect"] > 0
    assert record.series.ok[3] > 200  # the last second, long after it came back


def test_an_agent_that_is_lost_ends_with_four_and_the_others_figures(
    tmp_path: Path, redis: load_kit.Redis
) -> None:
    out = tmp_path / "results"
    controller = kit.Controller(
        *("load", redis.url, "--rate", "500", "--agents", "2", "--duration", "2s", "--warmup", "0"),
        *("--out", out),
        cwd=tmp_path,
    )
    kit.until(lambda: kit.events(out, "round-started"), "the window")
    agent = kit.until(lambda: controller.child("kabench_agent", "node-2"), "the agent")
    agent.kill()
    code, printed, _ = controller.wait()
    controller.close()
    assert code == 4
    assert "node-2" in printed
    agents = {
        window.agent: window.status
        for record in read_result(kit.run_folder(out) or out).rounds
        for window in record.agents
    }
    assert agents["node-1"] == "sealed"
    assert controller.leftovers() == []


def test_an_interrupt_prints_what_was_measured_so_far_and_keeps_it(
    tmp_path: Path, redis: load_kit.Redis
) -> None:
    out = tmp_path / "results"
    controller = kit.Controller(
        *("load", redis.url, "--rate", "500", "--duration", "60s", "--warmup", "0", "--out", out),
        cwd=tmp_path,
    )
    kit.until(lambda: seconds_logged(out) >= 2, "two seconds of the window")
    controller.signal(signal.SIGINT)
    code, printed, _ = controller.wait()
    controller.close()
    assert code == 130
    assert controller.leftovers() == []
    [record] = read_result(kit.run_folder(out) or out).cells
    assert record.outcomes.ok > 700
    assert f"{record.outcomes.ok:,}" in printed
    assert "interrupted" in printed
    assert "not reached" not in printed


def test_more_connections_than_files_are_refused_before_the_start(
    tmp_path: Path, redis: load_kit.Redis
) -> None:
    limited = 'ulimit -n 600 && exec "$@"'
    command = [sys.executable, "-m", "kabench", "load", redis.url, "--closed", "--connections", "1000"]
    done = kit.subprocess.run(
        ["bash", "-c", limited, "bash", *command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "NO_COLOR": "1"},
    )
    assert done.returncode == 4
    assert "error: --connections: an agent needs 1064 open files, and a process may have 600" in done.stderr
