"""The example of a workload and a batch job of one's own, on some of the workers, with agents called at their pods' IPs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from e2e_kit import RUN_S, Cluster
from ruamel.yaml import YAML

from kabench.backends.kubernetes import naming

EXAMPLE = Path(__file__).parents[2] / "examples" / "own-workload"
CONTROLS = {
    "phases": [{"name": "other", "scheduler": "second"}],
    "blocks": {"planned": 1, "reserve": 0},
    "timing": {"window_s": 3, "warm_up_s": 0.5, "ready_timeout_s": 30},
    "gates": {"quiet_lag_p99_ms": 10000},  # the tests' own load is no reason to fail
}


def short_example(folder: Path) -> Path:
    """The example as it stands, its phases fewer and its windows shorter."""
    shutil.copytree(EXAMPLE, folder)
    scenario = folder / "scenario.yaml"
    yaml = YAML(typ="safe", pure=True)
    content: dict[str, Any] = yaml.load(scenario.read_text())
    with scenario.open("w") as file:
        yaml.dump(content | CONTROLS, file)
    return scenario


def test_a_workload_and_noise_of_ones_own_on_four_workers_and_at_pod_ips(
    cluster: Cluster, tmp_path: Path
) -> None:
    scenario = short_example(tmp_path / "own")
    few = ("--agents", "4", "--transport", "direct")
    run = cluster.start("run", scenario, "--backend", "kubernetes", "--out", cluster.out, *few)
    cluster.in_window()
    targets = cluster.admin.pods(cluster.run_id, naming.TARGET)
    noise = cluster.admin.pods(cluster.run_id, naming.NOISE)
    code, _, err = run.wait(RUN_S)
    assert code == 0, err

    assert len(targets) == 4
    for pod in targets:
        assert pod["metadata"]["labels"]["app"] == "my-cache"
        assert pod["spec"]["schedulerName"] == "second"  # the phase's, whatever the template says
        assert "allkeys-lfu" in pod["spec"]["containers"][0]["args"]
    assert [pod["metadata"]["labels"]["app"] for pod in noise] == ["my-batch"] * 2

    result = cluster.results()
    assert [block["valid"] for block in result["blocks"]] == [True], result["blocks"]
    chosen = {node["name"] for node in result["nodes"]}
    assert len(chosen) == 4
    for record in result["rounds"]:
        assert record["error"] == ""
        assert {placement["node"] for placement in record["placements"]} <= chosen
        assert sorted(agent["agent"] for agent in record["agents"]) == sorted(chosen)
        assert {placed["workload"] for placed in record["placements"]} == {"my-cache"}
        assert {placed["decided_by"] for placed in record["placements"]} == {"second"}
        assert [work["stressor"] for work in record["noise"]] == ["my-batch"] * 2
        assert all(work["ops"] > 0 for work in record["noise"]), record["noise"]
        outcomes = [agent["outcomes"] for agent in record["agents"]]
        assert sum(one["ok"] for one in outcomes) > 0.9 * sum(one["planned"] for one in outcomes) > 0
    template = result["scenario"]["targets"][0]["pod"]["template"]
    assert template["metadata"]["labels"] == {"app": "my-cache"}
