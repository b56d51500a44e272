"""Which nodes take pods, and what is known of them."""

from __future__ import annotations

from typing import Any

import pytest

from kabench.backends.kubernetes.workers import is_ready, unfit, worker


def node(ready: str = "True", **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "w1", "labels": {"kubernetes.io/hostname": "w1.example"}},
        "spec": spec,
        "status": {
            "allocatable": {"cpu": "1930m", "memory": "8152084Ki"},
            "conditions": [{"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": ready}],
            "nodeInfo": {"kubeletVersion": "v1.36.3", "kernelVersion": "6.1", "bootID": "b"},
            "images": [
                {"names": ["docker.io/library/redis@sha256:abc", "docker.io/library/redis:7.4.2"]},
                {"names": ["localhost/pause:1"]},
                {},
            ],
        },
    }


def test_what_a_scheduler_can_use_and_what_it_is_made_of() -> None:
    found = worker(node())
    assert (found.node.name, found.hostname) == ("w1", "w1.example")
    assert found.node.cpu_millis == 1930
    assert found.node.memory_bytes // (1 << 20) == pytest.approx(8152084 / 1024, abs=1)
    assert not found.node.cpus  # what its agent may run on, only the agent knows
    assert found.info == {"kubelet": "v1.36.3", "kernel": "6.1"}
    assert found.images == {"docker.io/library/redis:7.4.2": "sha256:abc", "localhost/pause:1": ""}


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (node(), ""),
        (node("Unknown"), "not Ready"),
        (node(unschedulable=True), "cordoned"),
        (
            node(taints=[{"key": "node-role/control-plane", "effect": "NoSchedule"}]),
            "tainted node-role/control-plane",
        ),
        (node(taints=[{"key": "gpu", "effect": "NoExecute"}]), "tainted gpu"),
        (node(taints=[{"key": "spot", "effect": "PreferNoSchedule"}]), ""),
    ],
)
def test_why_a_node_takes_no_pods(found: dict[str, Any], reason: str) -> None:
    assert unfit(found) == reason


def test_a_node_that_says_nothing_is_not_ready() -> None:
    assert not is_ready({"metadata": {"name": "w"}})
