"""Casualties: what ended without our asking."""

from __future__ import annotations

from kabench.backends.base import Casualty
from kabench.backends.kubernetes.losses import Losses
from kabench.backends.kubernetes.pods import Pod


def pod(uid: str, role: str, *, ended: bool = False) -> Pod:
    state = {"terminated": {"exitCode": 137}} if ended else {"running": {}}
    return Pod(
        {
            "metadata": {"uid": uid, "name": f"pod-{uid}", "labels": {"kabench.dev/role": role}},
            "spec": {"nodeName": "worker-2", "containers": [{"name": "c"}]},
            "status": {"containerStatuses": [{"name": "c", "state": state}]},
        }
    )


def test_what_ends_by_itself_is_a_casualty_and_told_once() -> None:
    losses = Losses()
    losses.saw(pod("a", "target"), pod("a", "target", ended=True), 7)
    losses.saw(pod("a", "target", ended=True), None, 8)
    expected = Casualty("target", "pod-a", "worker-2", 7, "c ended: exit code 137 (SIGKILL)")
    assert losses.taken() == [expected]
    assert losses.taken() == []


def test_what_we_end_is_none() -> None:
    losses = Losses()
    losses.expect([pod("a", "target")])
    losses.saw(pod("a", "target"), pod("a", "target", ended=True), 7)
    losses.saw(pod("a", "target", ended=True), None, 8)
    losses.saw(pod("b", "target"), None, 9)
    assert [one.name for one in losses.taken()] == ["pod-b"]


def test_decoys_canaries_and_strangers_pods_do_not_count() -> None:
    losses = Losses()
    for role in ("decoy", "canary", ""):
        losses.saw(pod("a", role), None, 1)
    assert losses.taken() == []
    for role in ("agent", "noise"):
        losses.saw(pod("a", role), None, 1)
    assert [one.role for one in losses.taken()] == ["agent", "noise"]
