"""What is refused, and what a run that cannot go on leaves: a clear line, an exit code, and nothing in the cluster."""

from __future__ import annotations

import json
import signal
import threading
import time

import pytest
from e2e_kit import RUN_S, Admin, Cluster
from run_kit import events, until

from kabench.backends.kubernetes import naming
from kabench.backends.kubernetes.api import Cluster as Api
from kabench.errors import ClusterError


def says(text: str) -> str:
    """What a command said, on one line."""
    return " ".join(text.split())


def test_an_image_that_does_not_exist(cluster: Cluster) -> None:
    code, _, err = cluster.run(kubernetes="{images: {redis: 'kabench-no-such-image:1'}, pull_policy: Never}")
    assert code in (2, 4)
    assert "kabench-no-such-image:1" in says(err)
    assert "Traceback" not in err


def test_an_agents_image_that_does_not_exist(cluster: Cluster) -> None:
    begun = time.monotonic()
    code, _, err = cluster.run(kubernetes="{images: {agent: 'kabench-no-such-agent:1'}, pull_policy: Never}")
    assert code in (2, 4)
    assert "kabench-no-such-agent:1" in says(err)
    assert time.monotonic() - begun < 60


def test_a_scheduler_that_does_not_exist(cluster: Cluster) -> None:
    code, _, err = cluster.run("--phase", "default", "--phase", "mine=scheduler:nobody-at-home")
    assert code == 4
    assert "no scheduler named nobody-at-home is bound to answer" in says(err)


def test_a_quota_that_is_too_small(cluster: Cluster) -> None:
    stop = threading.Event()
    found: list[str] = []

    def squeeze() -> None:
        """An administrator's quota, as soon as the run's namespace is there."""
        while not stop.is_set() and not found:
            found.extend(cluster.admin.run_namespaces())
            stop.wait(0.05)
        quota = {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "small", "namespace": found[0]},
            "spec": {"hard": {"pods": "8"}},
        }
        cluster.admin.ask(lambda api: api.apply(quota))

    watcher = threading.Thread(target=squeeze)
    watcher.start()
    try:
        code, out, _ = cluster.run()
    finally:
        stop.set()
        watcher.join()
    assert code == 4
    assert "exceeded quota: small" in says(out)
    assert "raise the quota, or ask for fewer" in says(out)


def test_a_foreign_context_is_refused_before_anything_is_asked_of_it(cluster: Cluster) -> None:
    content = json.loads(cluster.kubeconfig.read_text())
    content["contexts"].append({"name": "production", "context": content["contexts"][0]["context"]})
    content["current-context"] = "production"
    foreign = cluster.folder / "foreign"
    foreign.write_text(json.dumps(content))
    code, _, err = cluster.run("--kubeconfig", foreign)
    assert code == 2
    assert "--allow-context production" in says(err)
    code, _, err = cluster.run("--kubeconfig", foreign, "--allow-context", "production", "--agents", "99")
    assert code in (2, 4)
    assert "99" in says(err)  # it was let in, and found too few workers


def test_a_second_run_at_once_is_refused(cluster: Cluster) -> None:
    controller = cluster.start_run()
    cluster.wait_for("fleet-ready")
    first = cluster.run_id
    other = Cluster(cluster.admin, cluster.kubeconfig, cluster.folder / "other")
    other.folder.mkdir()
    code, _, err = other.run()
    assert code == 4
    assert f"the run {first} is active in kabench-test" in says(err)
    code, _, err = controller.wait(RUN_S)
    assert code in (0, 3), err


STAGES = {
    "start": lambda cluster: until(cluster.admin.run_namespaces, "the namespace", RUN_S),
    "noise": lambda cluster: until(lambda: pods(cluster, "noise"), "noise", RUN_S),
    "targets": lambda cluster: until(lambda: pods(cluster, "target"), "targets", RUN_S),
    "window": lambda cluster: cluster.in_window(),
    "between": lambda cluster: cluster.wait_for("round-ended"),
}


def pods(cluster: Cluster, role: str) -> bool:
    return bool(events(cluster.out, "fleet-ready")) and bool(cluster.admin.pods(cluster.run_id, role))


@pytest.mark.parametrize("stage", STAGES)
def test_ctrl_c_leaves_no_namespace_behind(cluster: Cluster, stage: str) -> None:
    controller = cluster.start_run(blocks="{planned: 3, reserve: 0}")
    STAGES[stage](cluster)
    controller.signal(signal.SIGINT if stage != "noise" else signal.SIGTERM)
    begun = time.monotonic()
    code, out, err = controller.wait(RUN_S)
    assert code == 130, err
    assert time.monotonic() - begun < 60
    assert cluster.admin.run_namespaces() == []
    assert "Traceback" not in out + err


def test_the_shipped_rights_are_no_more_than_they_should_be(cluster: Cluster) -> None:
    account = Admin(cluster.kubeconfig)

    async def rights(api: Api) -> dict[str, bool]:
        return {
            "pods/proxy": await api.may("create", "", "pods/proxy"),
            "nodes/proxy": await api.may("get", "", "nodes/proxy"),
            "pods/exec": await api.may("create", "", "pods/exec"),
            "clusterroles": await api.may("create", "rbac.authorization.k8s.io", "clusterroles"),
            "secrets": await api.may("list", "", "secrets"),
        }

    assert account.ask(rights) == {
        "pods/proxy": True,
        "nodes/proxy": False,
        "pods/exec": False,
        "clusterroles": False,
        "secrets": False,
    }
    with pytest.raises(ClusterError, match="kabench doctor lists the rights"):
        account.ask(lambda api: api.list("Secret", naming.SYSTEM_NAMESPACE))
