"""Runs whose controllers are gone: what their agents hold is fetched, and what they left is removed or gone on with."""

from __future__ import annotations

import json
import re
from functools import partial

from e2e_kit import FEW, RUN_S, Cluster
from run_kit import until

from kabench.backends.kubernetes import naming
from kabench.backends.kubernetes.api import Cluster as Api
from kabench.backends.kubernetes.manifests import Object, load
from kabench.store.collect import find

LONG_GONE, FAR_OFF = "2020-01-01T00:00:00Z", "2100-01-01T00:00:00Z"


def killed_in_a_window(cluster: Cluster, **replaced: str) -> str:
    """Start a run, kill its controller while agents measure; returns its id."""
    controller = cluster.start_run(**replaced)
    cluster.in_window()
    controller.process.kill()
    controller.wait()
    return cluster.run_id


def test_a_killed_run_is_removed_on_purpose_only_and_not_while_agents_hold_logs(cluster: Cluster) -> None:
    run = killed_in_a_window(cluster, **FEW)
    assert cluster.admin.pods(run, naming.TARGET)

    code, out, _ = cluster.call("clean")
    assert code == 0
    assert re.search(rf"{run}: \d+ pods, may be active until", out)
    assert "nothing was removed" in out
    code, out, err = cluster.call("clean", "--all")
    assert (code, out) == (2, "")
    assert f"may still be active: {run}; add --yes" in err
    code, out, err = cluster.call("clean", "--expired")
    assert code == 0, err
    assert cluster.admin.run_namespaces() == [f"kabench-{run}"]  # its time is not over

    token = cluster.admin.ask(partial(_taken, "Secret", naming.TOKEN_SECRET, naming.namespace_of(run)))
    code, out, _ = cluster.call("collect", run, "--out", cluster.out)
    assert code == 4
    assert re.search(r"worker-\d: the run's token is gone", out)
    code, out, _ = cluster.call("clean", "--run", run)
    assert code == 4
    assert "it is not known what the agents on 2 nodes hold" in out
    cluster.admin.ask(partial(_applied, token))

    # from another machine, which does not have the run's own folder
    elsewhere = cluster.folder / "elsewhere"
    code, out, _ = cluster.call("collect", run, "--out", elsewhere)
    assert code == 0, out
    assert f"kabench merge {elsewhere / run}" in out
    assert not (elsewhere / run / "results.json").exists()
    code, out, _ = cluster.call("merge", "--json", elsewhere / run)
    assert code == 0
    assert len(json.loads(out)["unjudged"]) == len(find([elsewhere / run]).logs) > 0

    code, out, _ = cluster.call("clean", "--run", run)
    assert code == 0
    assert re.search(rf"removed {run} in \d+\.\d s", out)
    assert cluster.admin.run_namespaces() == []
    assert cluster.admin.pods(run) == []


def test_a_killed_run_is_collected_and_resumed_and_let_alone_while_it_lives(cluster: Cluster) -> None:
    run = killed_in_a_window(cluster, agents="3")
    assert cluster.admin.run_namespaces() == [f"kabench-{run}"]
    nodes = sorted(pod["spec"]["nodeName"] for pod in cluster.admin.pods(run, naming.AGENT))
    assert len(nodes) == 3
    folder = cluster.out / run
    assert not list((folder / "logs").rglob("*.hlog"))

    code, out, _ = cluster.call("clean", "--run", run)
    assert code == 4
    stays = re.search(rf"{run} stays: agents still hold 3 logs \((worker-.*: 1)\)", out)
    assert stays, out
    assert re.findall(r"worker-\d", stays[1]) == nodes
    assert f"kabench collect {run}" in out

    code, out, _ = cluster.call("collect", run, "--out", cluster.out)
    assert code == 0, out
    assert "fetched 3 logs" in out
    found = find([folder]).logs
    assert sorted(log.window_id.agent for log in found) == nodes
    assert all(log.sealed for log in found)  # the window ran to its end without a controller
    results = cluster.results()
    assert results["status"] == "interrupted"
    assert {cell["cell"]["agent"] for cell in results["cells"]} == set(nodes)
    code, out, err = cluster.call("merge", folder, "--json")
    assert code == 0, out + err
    code, out, _ = cluster.call("collect", run, "--out", cluster.out)
    assert code == 0
    assert "nothing to fetch" in out

    controller = cluster.start("run", "--resume", run, "--backend", "kubernetes", "--out", cluster.out)
    cluster.wait_for("fleet-ready", 2)
    code, _, err = cluster.beside("second").run()
    assert code == 4
    assert f"the run {run} is active in kabench-test" in " ".join(err.split())
    code, _, err = cluster.call("collect", run, "--out", cluster.out)
    assert code == 4
    assert "another kabench is writing this run" in err
    code, _, err = controller.wait(RUN_S)
    assert code in (0, 3), err
    blocks = cluster.results()["blocks"]
    assert [block["valid"] for block in blocks] == [False, True]
    assert {reason["code"] for reason in blocks[0]["void"]} == {"interrupted"}


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


def an_agent_that_ends(run: str) -> Object:
    """A pod that is taken for an agent: what it held when it ended, nobody can ask."""
    pod = load("scheduler-canary")
    pod["metadata"] |= {"namespace": naming.namespace_of(run), "labels": naming.run_labels(run, naming.AGENT)}
    pod["spec"]["containers"][0]["name"] = naming.AGENTS
    return pod


def test_only_what_has_expired_is_removed_with_expired_and_with_logs_only_to_discard(
    cluster: Cluster,
) -> None:
    for run, expires in (("s-test-old", LONG_GONE), ("s-test-live", FAR_OFF)):
        cluster.admin.ask(partial(_applied, a_namespace(run, expires)))
    cluster.admin.ask(partial(_applied, an_agent_that_ends("s-test-live")))
    code, out, _ = cluster.call("clean", "--expired")
    assert code == 0
    assert "removed s-test-old in" in out
    assert cluster.admin.run_namespaces() == ["kabench-s-test-live"]

    until(lambda: cluster.admin.pods("s-test-live")[0]["status"]["phase"] == "Succeeded", "the agent's end")
    code, out, _ = cluster.call("clean", "--all", "--yes")
    assert code == 4
    assert "it is not known what the agent on worker-" in out
    assert cluster.admin.run_namespaces() == ["kabench-s-test-live"]
    code, out, _ = cluster.call("clean", "--all", "--yes", "--discard")
    assert code == 0
    assert "removed s-test-live in" in out
    assert cluster.admin.run_namespaces() == []
    code, _, err = cluster.call("clean", "--run", "s-test-live")
    assert code == 2
    assert "kabench-test holds no run s-test-live; runs there: none" in err


async def _applied(wanted: Object, api: Api) -> None:
    await api.apply(wanted)


async def _taken(kind: str, name: str, namespace: str, api: Api) -> Object:
    """Delete an object; returns it as it may be applied again."""
    found = await api.get(kind, name, namespace)
    assert found is not None
    await api.delete(kind, name, namespace)
    metadata = {key: found["metadata"][key] for key in ("name", "namespace", "labels")}
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata, "data": found["data"]}
