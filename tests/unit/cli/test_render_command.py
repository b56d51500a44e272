"""`kabench render`: what it prints, and what it refuses."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from ruamel.yaml import YAML

from kabench.backends.kubernetes import api
from kabench.backends.kubernetes.access import Access
from kabench.cli import main


@pytest.fixture(autouse=True)
def sigterm() -> Iterator[None]:
    """`main` takes SIGTERM over; the test process keeps its own."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_a_scenario_is_printed_as_kubectl_takes_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["render", "--agents", "3", "--phase", "mine=scheduler:my-scheduler"]) == 0
    objects = list(YAML(typ="safe", pure=True).load_all(capsys.readouterr().out))
    pods = [one for one in objects if one["kind"] == "Pod"]
    assert {pod["spec"]["schedulerName"] for pod in pods} == {"my-scheduler", "default-scheduler"}
    assert objects[0]["kind"] == "Namespace"


def test_a_wrong_flag_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["render", "--dry-run", "client"]) == 2
    assert "--dry-run client: give none or server" in capsys.readouterr().err
    assert main(["render", "--phase", "p=policy:default"]) == 2
    assert "phase p: policy is of the local backend" in capsys.readouterr().err


def test_the_server_is_asked_and_its_refusals_end_with_an_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Server:
        async def get(self, kind: str, name: str) -> None:
            return None

        async def apply(self, wanted: dict[str, Any], *, dry_run: bool) -> None:
            assert dry_run
            if wanted["kind"] == "Secret":
                raise api.Refused(403, "no", "secrets are forbidden")

    @asynccontextmanager
    async def open_cluster(access: Access) -> AsyncIterator[Server]:
        assert access.context == "kabench-test"
        yield Server()

    monkeypatch.setattr(api, "open_cluster", open_cluster)
    assert main(["render", "--dry-run", "server", "--context", "kabench-test"]) == 4
    said = capsys.readouterr()
    assert "Namespace kabench-example: accepted\n" in said.out
    assert "Secret kabench-token: secrets are forbidden\n" in said.out
    assert "objects were refused" in said.err
