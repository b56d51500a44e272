"""Runs whose controllers are gone: what their agents hold is fetched, and what they left is removed."""

from __future__ import annotations

import json
import re
from functools import partial

from e2e_kit import Cluster

from kabench.backends.kubernetes import naming
from kabench.backends.kubernetes.api import Cluster as Api
from kabench.backends.kubernetes.manifests import Object
from kabench.store.collect import find

AGENTS = 6
LONG_GONE, FAR_OFF = "2020-01-01T00:00:00Z", "2100-01-01T00:00:00Z"


def killed_in_a_window(cluster: Cluster) -> str:
    """Start a run, kill its controller while agents measure; returns its id."""
    controller = cluster.start_run()
    cluster.in_window()
    controller.process.kill()
    controller.wait()
    return cluster.run_id


def test_a_killed_runs_logs_are_fetched_before_it_is_removed(cluster: Cluster) -> None:
    run = killed_in_a_window(cluster)
    assert cluster.admin.pods(run, naming.TARGET)

    code, out, _ = cluster.call("clean")
    assert code == 0
    assert re.search(rf"{run}: \d+ pods, may be active until", out)
    assert "nothing was removed" in out

    code, out, err = cluster.call("clean", "--all")
    assert (code, out) == (2, "")
    assert f"may still be active: {run}; add --yes" in err

    code, out, _ = cluster.call("clean", "--run", run)
    assert code == 4
    stays = re.search(rf"{run} stays: agents still hold (\d+) logs? \((worker-.*: 1)\)", out)
    assert stays, out
    logs, nodes = int(stays[1]), re.findall(r"worker-\d", stays[2])
    assert 0 < logs <= AGENTS  # on a busy machine one may have been armed too late
    assert f"kabench collect {run}" in out

    code, out, _ = cluster.call("collect", run, "--out", cluster.out)
    assert code == 0, out
    assert f"fetched {logs} log" in out
    found = find([cluster.out / run]).logs
    assert sorted(log.window_id.agent for log in found) == nodes
    assert all(log.sealed for log in found)  # the window ran to its end without a controller
    results = cluster.results()
    assert results["status"] == "interrupted"
    assert {cell["cell"]["agent"] for cell in results["cells"]} == set(nodes)

    code, out, _ = cluster.call("collect", run, "--out", cluster.out)
    assert code == 0
    assert "nothing to fetch" in out

    code, out, _ = cluster.call("clean", "--run", run)
    assert code == 0
    assert re.search(rf"removed {run} in \d+\.\d s", out)
    assert cluster.admin.run_namespaces() == []


def test_from_another_machine_the_logs_alone_are_fetched(cluster: Cluster) -> None:
    run = killed_in_a_window(cluster)
    elsewhere = cluster.folder / "elsewhere"
    code, out, _ = cluster.call("collect", run, "--out", elsewhere)
    assert code == 0, out
    assert f"kabench merge {elsewhere / run}" in out
    assert not (elsewhere / run / "results.json").exists()
    code, out, _ = cluster.call("merge", "--json", elsewhere / run)
    assert code == 0
    assert len(json.loads(out)["unjudged"]) == len(find([elsewhere / run]).logs)

    code, out, _ = cluster.call("clean", "--all", "--yes")
    assert code == 0
    assert f"removed {run}" in out


def test_an_agent_that_cannot_be_asked_is_not_removed_without_a_word(cluster: Cluster) -> None:
    run = killed_in_a_window(cluster)
    cluster.admin.ask(partial(_without_token, naming.namespace_of(run)))
    code, out, _ = cluster.call("collect", run, "--out", cluster.out)
    assert code == 4
    assert "worker-1: the run's token is gone" in out
    code, out, _ = cluster.call("clean", "--run", run)
    assert code == 4
    assert f"it is not known what the agents on {AGENTS} nodes hold" in out
    code, out, _ = cluster.call("clean", "--run", run, "--discard")
    assert code == 0
    assert cluster.admin.run_namespaces() == []


async def _without_token(namespace: str, api: Api) -> None:
    await api.delete("Secret", naming.TOKEN_SECRET, namespace)


def a_namespace(run: str, expires: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": naming.namespace_of(run),
            "labels": naming.run_labels(run),
            "annotations": {naming.EXPIRES: expires},
        },
    }


def test_only_what_has_expired_is_removed_with_expired(cluster: Cluster) -> None:
    for run, expires in (("s-test-old", LONG_GONE), ("s-test-live", FAR_OFF)):
        cluster.admin.ask(partial(_applied, a_namespace(run, expires)))
    code, out, _ = cluster.call("clean", "--expired")
    assert code == 0
    assert "removed s-test-old in" in out
    assert cluster.admin.run_namespaces() == ["kabench-s-test-live"]
    code, out, _ = cluster.call("clean", "--run", "s-test-live")
    assert code == 0
    code, _, err = cluster.call("clean", "--run", "s-test-live")
    assert code == 2
    assert "kabench-test holds no run s-test-live; runs there: none" in err


async def _applied(wanted: Object, api: Api) -> None:
    await api.apply(wanted)


def test_a_run_that_lives_is_not_collected_from_its_own_folder(cluster: Cluster) -> None:
    controller = cluster.start_run()
    cluster.in_window()
    code, _, err = cluster.call("collect", cluster.run_id, "--out", cluster.out)
    assert code == 4
    assert "another kabench is writing this run" in err
    code, out, err = controller.wait(180)
    assert code == 0, out + err
