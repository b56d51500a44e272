"""What goes wrong in the middle of a window: the block is void or whole as it should be, and the run goes on."""

from __future__ import annotations

from typing import Any

from e2e_kit import RUN_S, Cluster

from cluster import faults


def codes(block: dict[str, Any]) -> set[str]:
    return {reason["code"] for reason in block["void"]}


def agents_lost(record: dict[str, Any]) -> list[str]:
    return [casualty["node"] for casualty in record["casualties"] if casualty["role"] == "agent"]


def test_a_lost_agent_and_a_lost_worker_void_their_blocks_and_a_lost_api_server_does_not(
    cluster: Cluster,
) -> None:
    controller = cluster.start_run(
        agents="3",
        blocks="{planned: 1, reserve: 2}",
        timing="{window_s: 3, warm_up_s: 0.5, ready_timeout_s: 20}",  # room for a fault on a busy machine
    )
    cluster.in_window(1)
    lost, other, _ = cluster.admin.pods(cluster.run_id, "agent")
    cluster.admin.delete_pod(lost)
    deleted, cut = (pod["spec"]["nodeName"] for pod in (lost, other))

    cluster.in_window(2)
    with faults.cut_off(cut):
        cluster.wait_for("round-ended", 2)

    cluster.in_window(3)
    faults.restart_api_server()

    code, out, err = controller.wait(RUN_S)
    assert code == 4, err
    blocks, rounds = cluster.results()["blocks"], cluster.results()["rounds"]
    assert [block["valid"] for block in blocks] == [False, False, True], blocks
    assert "missing-agent" in codes(blocks[0])
    assert agents_lost(rounds[0]) == [deleted]
    assert deleted in out + err
    assert "missing-agent" in codes(blocks[1])
    assert cut in agents_lost(rounds[1])
    assert rounds[2]["error"] == ""
    assert rounds[2]["casualties"] == []
    assert [agent["status"] for agent in rounds[2]["agents"]] == ["sealed"] * 3
