"""What goes wrong in the middle of a window: the block is void or whole as it should be, and the run goes on."""

from __future__ import annotations

import signal
import time
from typing import Any

from e2e_kit import RUN_S, Cluster
from run_kit import until

from cluster import faults

TWO_BLOCKS = "{planned: 1, reserve: 1}"


def codes(block: dict[str, Any]) -> set[str]:
    return {reason["code"] for reason in block["void"]}


def test_an_agent_pod_deleted_in_a_window_voids_the_block_and_the_run_goes_on(cluster: Cluster) -> None:
    controller = cluster.start_run(blocks=TWO_BLOCKS)
    cluster.in_window()
    lost = cluster.admin.pods(cluster.run_id, "agent")[0]
    cluster.admin.delete_pod(lost)
    code, out, err = controller.wait(RUN_S)
    assert code == 4, err
    first, second = cluster.results()["blocks"]
    assert "missing-agent" in codes(first)
    assert second["valid"], second
    [casualty] = [c for r in cluster.results()["rounds"] for c in r["casualties"] if c["role"] == "agent"]
    assert casualty["node"] == lost["spec"]["nodeName"]
    assert lost["spec"]["nodeName"] in out + err


def test_a_worker_cut_off_the_network_voids_the_block_and_the_run_goes_on(cluster: Cluster) -> None:
    controller = cluster.start_run(blocks=TWO_BLOCKS)
    cluster.in_window()
    with faults.cut_off("worker-3"):
        cluster.wait_for("round-ended")
    code, _, err = controller.wait(RUN_S)
    assert code == 4, err
    first, second = cluster.results()["blocks"]
    assert not first["valid"]
    assert "missing-agent" in codes(first)
    assert second["valid"], second


def test_an_api_server_restarted_in_a_window_loses_nothing(cluster: Cluster) -> None:
    controller = cluster.start_run()
    cluster.in_window()
    faults.restart_api_server()
    code, _, err = controller.wait(RUN_S)
    assert code in (0, 3), err
    [record] = cluster.results()["rounds"]
    assert record["error"] == ""
    assert [agent["status"] for agent in record["agents"]] == ["sealed"] * 6
    assert [block["valid"] for block in cluster.results()["blocks"]] == [True]


def test_a_killed_controller_then_collect_then_resume(cluster: Cluster) -> None:
    controller = cluster.start_run(blocks="{planned: 2, reserve: 0}")
    cluster.in_window()
    controller.signal(signal.SIGKILL)
    controller.process.wait()
    run, folder = cluster.run_id, cluster.out / cluster.run_id
    assert cluster.admin.run_namespaces() == [f"kabench-{run}"]
    logs = folder / "logs"
    held_before = sorted(path.name for path in logs.rglob("*.hlog"))
    time.sleep(5)  # the window goes on to its end without a controller
    code, out, err = cluster.call("collect", run, "--out", cluster.out)
    assert code == 0, err
    collected = sorted(path.name for path in logs.rglob("*.hlog"))
    assert held_before == []
    assert collected == [f"worker-{number}.hlog" for number in range(1, 7)]
    code, out, err = cluster.call("merge", folder, "--json")
    assert code == 0, out + err

    controller = cluster.start("run", "--resume", run, "--backend", "kubernetes", "--out", cluster.out)
    code, _, err = controller.wait(RUN_S)
    assert code in (0, 3), err
    blocks = cluster.results()["blocks"]
    assert [block["valid"] for block in blocks] == [False, True, True]
    assert codes(blocks[0]) == {"interrupted"}


def test_a_killed_controllers_remains_are_removed_by_clean(cluster: Cluster) -> None:
    controller = cluster.start_run()
    cluster.in_window()
    controller.signal(signal.SIGKILL)
    controller.process.wait()
    run = cluster.run_id
    code, out, err = cluster.call("clean")
    assert code == 0, err
    assert run in out
    assert cluster.admin.run_namespaces() == [f"kabench-{run}"]  # it only told
    code, out, err = cluster.call("clean", "--expired")
    assert code == 0, err
    assert cluster.admin.run_namespaces() == [f"kabench-{run}"]  # its time is not over
    code, out, err = cluster.call("clean", "--run", run, "--discard")
    assert code == 0, out + err
    assert cluster.admin.run_namespaces() == []
    until(lambda: not cluster.admin.pods(run), "the pods' end")
