"""What is not sent over a wire: the changes between two lists, and what a refusal means."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from kubernetes_asyncio import client

from kabench.backends import patience
from kabench.backends.kubernetes import api as api_module
from kabench.backends.kubernetes.api import Cluster, relisted
from kabench.backends.kubernetes.refusals import Refused, passes, refused
from kabench.clock import SystemClock


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
    ("status", "message", "again"),
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
def test_which_refusals_are_asked_again(status: int, message: str, again: bool) -> None:
    assert passes(refused("patch Pod x", status, message)) is again


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
    error = refused("patch Pod x", status, message)
    assert message in str(error)
    assert advice in str(error)
    assert (error.status, error.message) == (status, message)


@contextlib.asynccontextmanager
async def an_api_server(*answers: int | None) -> AsyncIterator[Cluster]:
    """A server that answers with these statuses, one a request; None: it drops the connection."""
    left = list(answers)

    async def answer(request: web.BaseRequest) -> web.Response:
        status = left.pop(0)
        if status is None:
            assert request.transport is not None
            request.transport.abort()
        body = {"items": []} if status == 200 else {"kind": "Status", "message": "you may not"}
        return web.json_response(body, status=status or 200)

    runner = web.ServerRunner(web.Server(answer), shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        settings = client.Configuration(host=f"http://127.0.0.1:{runner.addresses[0][1]}")
        async with client.ApiClient(settings) as api:
            yield Cluster("test", api, SystemClock())
    finally:
        await runner.cleanup()


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr(patience, "LONGEST_PAUSE_S", 0.0)


async def test_what_was_granted_before_is_asked_again_after_the_api_server_was_away(hurried: None) -> None:
    async with an_api_server(200, None, None, 403, 401, 200) as cluster:  # one drop aiohttp hides
        assert await cluster.list("Node") == []
        assert await cluster.list("Node") == []


async def test_a_right_that_is_missing_is_said_at_once(hurried: None) -> None:
    async with an_api_server(200, 403, 200) as cluster:
        assert await cluster.list("Node") == []
        with pytest.raises(Refused, match="you may not; kabench doctor"):
            await cluster.list("Node")


async def test_rights_that_stay_refused_are_missing(hurried: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "SETTLING_NS", 0)
    async with an_api_server(None, 403, 200) as cluster:
        with pytest.raises(Refused, match="you may not"):
            await cluster.list("Node")
