"""What is not sent over a wire: the changes between two lists, and what a refusal means."""

from __future__ import annotations

from typing import Any

import pytest

from kabench.backends.kubernetes.api import _passes, _refused, relisted


def one(uid: str, version: int = 1) -> dict[str, Any]:
    return {"metadata": {"uid": uid, "resourceVersion": str(version)}}


def test_what_happened_between_two_lists_is_told_as_changes() -> None:
    known = {"a": one("a"), "b": one("b"), "c": one("c")}
    changes = relisted(known, [one("b"), one("c", 2), one("d")])
    assert [(change.type, change.object["metadata"]["uid"]) for change in changes] == [
        ("DELETED", "a"),
        ("MODIFIED", "c"),
        ("ADDED", "d"),
    ]
    assert sorted(known) == ["b", "c", "d"]
    assert relisted(known, [one("b"), one("c", 2), one("d")]) == []


@pytest.mark.parametrize(
    ("status", "message", "passes"),
    [
        (500, "etcdserver: leader changed", True),
        (503, "starting", True),
        (429, "too many requests", True),
        (409, "Operation cannot be fulfilled on resourcequotas", True),
        (403, 'pods "x" is forbidden: status unknown for quota: kabench', True),
        (403, 'error looking up service account ns/default: serviceaccount "default" not found', True),
        (
            403,
            'cannot list: RBAC: clusterrole.rbac.authorization.k8s.io "kabench-controller" not found',
            True,
        ),
        (403, 'pods "x" is forbidden: exceeded quota: kabench', False),
        (403, "violates PodSecurity", False),
        (404, "not found", False),
        (422, "invalid", False),
    ],
)
def test_which_refusals_are_asked_again(status: int, message: str, passes: bool) -> None:
    assert _passes(_refused("patch Pod x", status, message)) is passes


@pytest.mark.parametrize(
    ("status", "message", "advice"),
    [
        (401, "Unauthorized", "log in anew"),
        (403, "exceeded quota: kabench", "raise the quota"),
        (403, "violates PodSecurity", "admission forbids it"),
        (403, "cannot list resource", "kabench doctor"),
    ],
)
def test_a_refusal_says_what_to_do(status: int, message: str, advice: str) -> None:
    error = _refused("patch Pod x", status, message)
    assert message in str(error)
    assert advice in str(error)
    assert (error.status, error.message) == (status, message)
