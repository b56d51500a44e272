"""What a pod's status means, on statuses as a kubelet and an API server write them."""

from __future__ import annotations

import math
from typing import Any

import pytest

from kabench.backends.kubernetes.pods import Pod, loss
from kabench.errors import ClusterError, SpecError

Status = dict[str, Any]


def pod(
    *containers: Status, node: str = "worker-1", conditions: list[Status] | None = None, **more: Any
) -> Pod:
    metadata: Status = {"uid": "u1", "name": "redis-1", "labels": {"kabench.dev/role": "target"}}
    if more.pop("ending", False):
        metadata["deletionTimestamp"] = "2026-01-02T03:04:05Z"
    status: Status = {"containerStatuses": list(containers), "conditions": conditions or [], **more}
    spec = {"nodeName": node, "containers": [{"name": "c"} for _ in containers] or [{"name": "c"}]}
    return Pod({"metadata": metadata, "spec": spec, "status": status})


def container(state: str, name: str = "redis", restarts: int = 0, **about: Any) -> Status:
    return {"name": name, "image": "redis:7", "restartCount": restarts, "state": {state: about}}


RUNNING = container("running", startedAt="2026-01-02T03:04:05Z")
READY = [{"type": "Ready", "status": "True"}]


def test_a_pod_runs_once_all_of_its_containers_do() -> None:
    assert pod(RUNNING).running
    assert not pod().running
    assert not pod(RUNNING, container("waiting", reason="ContainerCreating")).running
    assert pod(RUNNING).trouble is None
    assert pod(container("waiting", reason="ContainerCreating")).trouble is None


def test_a_pod_without_a_status_has_no_trouble_and_does_not_run() -> None:
    bare = Pod({"metadata": {"uid": "u", "name": "n"}, "spec": {}})
    assert (bare.node, bare.ip, bare.running, bare.ready, bare.restarts, bare.trouble) == (
        "", "", False, False, 0, None,
    )  # fmt: skip


@pytest.mark.parametrize("reason", ["ErrImageNeverPull", "ImagePullBackOff", "InvalidImageName"])
def test_an_image_that_is_not_to_be_had_is_the_users_to_mend(reason: str) -> None:
    trouble = pod(container("waiting", reason=reason)).trouble
    assert trouble is not None
    assert trouble.patience_s == 0
    error = trouble.error()
    assert isinstance(error, SpecError)
    assert "redis:7" in str(error)
    assert "worker-1" in str(error)
    assert reason in str(error)


def test_a_first_failure_to_pull_may_pass() -> None:
    trouble = pod(container("waiting", reason="ErrImagePull")).trouble
    assert trouble is not None
    assert 0 < trouble.patience_s < math.inf


def test_what_no_node_takes_waits_for_its_scheduler_until_the_deadline() -> None:
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/6 nodes are available: 6 Insufficient cpu.",
    }
    trouble = pod(node="", conditions=[condition]).trouble
    assert trouble is not None
    assert trouble.patience_s == math.inf
    assert "6 Insufficient cpu" in trouble.text
    assert isinstance(trouble.error(), ClusterError)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (container("terminated", exitCode=137, reason="OOMKilled"), "OOMKilled, exit code 137 (SIGKILL)"),
        (container("terminated", exitCode=1, reason="Error", message="a\nno port\n"), "exit code 1: no port"),
        (container("waiting", reason="CrashLoopBackOff", message="back-off 10s"), "CrashLoopBackOff"),
        (container("waiting", reason="RunContainerError", message="exec: no such file"), "no such file"),
    ],
)
def test_a_container_that_does_not_stay_up_says_why(state: Status, words: str) -> None:
    trouble = pod(state).trouble
    assert trouble is not None
    assert words in trouble.text
    assert not trouble.mistake


def test_a_crash_loop_tells_of_the_last_crash() -> None:
    state = container("waiting", reason="CrashLoopBackOff", restarts=2)
    state["lastState"] = {"terminated": {"exitCode": 2, "reason": "Error", "message": "token missing"}}
    trouble = pod(state).trouble
    assert trouble is not None
    assert "token missing" in trouble.text


def test_an_evicted_pod_is_in_trouble() -> None:
    trouble = pod(phase="Failed", reason="Evicted", message="The node was low on resource: memory.").trouble
    assert trouble is not None
    assert "Evicted: The node was low on resource: memory." in trouble.text
    preempted = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}
    trouble = pod(RUNNING, conditions=[preempted]).trouble
    assert trouble is not None
    assert "PreemptionByScheduler" in trouble.text


def test_the_last_words_are_the_termination_message() -> None:
    assert pod(container("terminated", exitCode=0, message="---\nmetrics:")).last_words == "---\nmetrics:"
    assert pod(RUNNING).last_words == ""


def restarted(count: int) -> Pod:
    state = container("running", "kabench-agent", count)
    state["lastState"] = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    return pod(state, conditions=READY)


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (pod(RUNNING), pod(RUNNING), ""),
        (pod(RUNNING), pod(container("terminated", exitCode=137)), "redis ended: exit code 137 (SIGKILL)"),
        (pod(RUNNING), pod(RUNNING, ending=True), "the pod was deleted"),
        (pod(RUNNING), None, "the pod was deleted"),
        (pod(RUNNING, ending=True), None, ""),
        (pod(container("terminated", exitCode=1)), None, ""),
        (pod(RUNNING), restarted(1), "kabench-agent ended: OOMKilled, exit code 137 (SIGKILL)"),
        (restarted(1), restarted(1), ""),
        (pod(container("terminated", exitCode=137)), restarted(1), ""),
        (pod(RUNNING, ending=True), pod(container("terminated", exitCode=137), ending=True), ""),
        (restarted(1), restarted(2), "kabench-agent ended: OOMKilled, exit code 137 (SIGKILL)"),
        (
            pod(RUNNING, conditions=READY),
            pod(RUNNING),
            "its node is out of reach",
        ),
        (pod(RUNNING, conditions=READY), pod({**RUNNING, "ready": False}), ""),
        (pod(RUNNING, conditions=READY), pod({**RUNNING, "ready": True}), "its node is out of reach"),
        (pod(RUNNING, conditions=READY), pod(RUNNING, ending=True), "the pod was deleted"),
    ],
)
def test_what_was_lost_between_two_looks(before: Pod, after: Pod | None, words: str) -> None:
    assert loss(before, after) == words
