"""Whole runs on six real kubelets: what they leave has the form of a local run, and says who placed what."""

from __future__ import annotations

import json
from typing import Any

from e2e_kit import Cluster
from run_kit import TINY, write_scenario

CHARTS = {"p99_comparison.png", "placement_accuracy.png", "latency_distribution.png", "dashboard.png"}
FOUR_ARMS = """[{name: default, scheduler: default-scheduler}, {name: other, scheduler: second},
  {name: oracle-quiet, pin: quiet}, {name: oracle-noisy, pin: noisy}]""".replace("\n", "")


def form(value: Any) -> Any:
    """The form of a JSON value: keys and types, lists by their first entry."""
    if isinstance(value, dict):
        return {key: form(entry) for key, entry in sorted(value.items())}
    if isinstance(value, list):
        return [form(value[0])] if value else []
    return type(value).__name__


def form_of_result(result: dict[str, Any]) -> dict[str, Any]:
    """The form of what a reader of results.json relies on; names that the run chose are left out."""
    chosen = {"scenario", "environment", "journal", "summary", "comparison"}
    found = {key: form(value) for key, value in result.items() if key not in chosen}
    for record in found["rounds"]:
        record["placements"][0].pop("reason")  # scores, where a policy of ours decided
        for free in ("contention", "casualties", "strangers_cpu_share"):
            record.pop(free)
    found["nodes"][0].pop("environment")
    found["blocks"][0].pop("roles")
    found["blocks"][0].pop("void")
    return found


def test_two_schedulers_and_the_oracles(cluster: Cluster) -> None:
    home = cluster.beside("home")
    local = home.start("run", write_scenario(home.folder, TINY), "--backend", "local", "--out", home.out)
    code, out, err = cluster.run("--json", phases=FOUR_ARMS)
    assert code == 3, err  # one block is too few to compare
    result = cluster.results()
    assert result["status"] == "finished"
    assert result["backend"] == "kubernetes"
    assert result["placement_note"] == ""
    assert [block["valid"] for block in result["blocks"]] == [True], result["blocks"]

    rounds = {record["phase"]: record for record in result["rounds"]}
    assert {record["error"] for record in rounds.values()} == {""}
    for record in rounds.values():
        assert len(record["placements"]) == 4
        assert [agent["status"] for agent in record["agents"]] == ["sealed"] * 6
        assert all(work["ops"] > 0 for work in record["noise"]), record["noise"]
        assert len(record["noise"]) == 2
    deciders = {name: {p["decided_by"] for p in record["placements"]} for name, record in rounds.items()}
    assert deciders == {
        "default": {"default-scheduler"},
        "other": {"second"},
        "oracle-quiet": {"pin:quiet"},
        "oracle-noisy": {"pin:noisy"},
    }
    for pin in ("quiet", "noisy"):
        assert {p["role"] for p in rounds[f"oracle-{pin}"]["placements"]} == {pin}
    assert all(p["pending_ns"] > 0 for record in rounds.values() for p in record["placements"])
    assert len({node["name"] for node in result["nodes"]}) == 6
    assert len({node["boot_id"] for node in result["nodes"]}) == 1  # six workers, one machine
    assert all(node["cpus"] for node in result["nodes"])
    assert result["environment"]["cluster"]["server"].startswith("v1.")

    summary = json.loads(out)
    for phase in rounds:
        counts = summary["phases"][phase]["redis"]["requests"]
        assert counts["planned"] == counts["sent"] + counts["skipped"] > 0
        assert counts["sent"] == counts["ok"] + counts["error"] + counts["timeout"]
    folder = cluster.out / cluster.run_id
    assert {path.name for path in folder.glob("*.png")} == CHARTS
    for name in CHARTS:
        (folder / name).unlink()
    code, out, err = cluster.call("chart", folder)
    assert (code, err) == (0, "")
    assert {path.name for path in folder.glob("*.png")} == CHARTS
    code, out, err = cluster.call("merge", folder, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["phases"] == summary["phases"]

    local.wait()
    assert form_of_result(result) == form_of_result(home.results())


def test_what_would_be_applied_is_taken_by_the_api_server(cluster: Cluster) -> None:
    code, out, err = cluster.call("render", "seed", "--dry-run=server")
    assert code == 0, err
    assert "DaemonSet kabench-agent: accepted" in out
    assert "NetworkPolicy kabench-targets: accepted" in out
    assert "refused" not in out
