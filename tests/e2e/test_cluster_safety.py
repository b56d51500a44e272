"""What is refused, and what a run that cannot go on leaves: a clear line, an exit code, and nothing in the cluster."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
from e2e_kit import FEW, RUN_S, Admin, Cluster
from run_kit import events, run_folder, until

from kabench.backends.kubernetes import naming
from kabench.backends.kubernetes.api import Cluster as Api
from kabench.errors import ClusterError


class Ended(NamedTuple):
    """How a run ended, and after how long."""

    code: int
    out: str
    err: str
    seconds: float


def says(text: str) -> str:
    """What a command said, on one line."""
    return " ".join(text.split())


def namespace(cluster: Cluster) -> bool:
    """Whether the cluster's newest run has one."""
    made = run_folder(cluster.out) is not None
    return made and naming.namespace_of(cluster.run_id) in cluster.admin.run_namespaces()


def squeezed(cluster: Cluster) -> tuple[int, str, str]:
    """A run in whose namespace an administrator leaves room for its agents and a canary only, as soon as it is there."""
    controller = cluster.start_run("--alongside", **FEW)
    until(lambda: namespace(cluster), "the namespace")
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "small", "namespace": naming.namespace_of(cluster.run_id)},
        "spec": {"hard": {"pods": "3"}},
    }
    cluster.admin.ask(lambda api: api.apply(quota))
    return controller.wait(RUN_S)


DOOMED: dict[str, Callable[[Cluster], tuple[int, str, str]]] = {
    "image": lambda cluster: cluster.run(
        "--alongside", **FEW, kubernetes="{images: {redis: 'kabench-no-such-image:1'}, pull_policy: Never}"
    ),
    "agents": lambda cluster: cluster.run(
        "--alongside", **FEW, kubernetes="{images: {agent: 'kabench-no-such-agent:1'}, pull_policy: Never}"
    ),
    "scheduler": lambda cluster: cluster.run(
        "--alongside", "--phase", "default", "--phase", "mine=scheduler:nobody-at-home", agents="3"
    ),
    "quota": squeezed,
}


def ended(cluster: Cluster, run: Callable[[Cluster], tuple[int, str, str]]) -> Ended:
    begun = time.monotonic()
    return Ended(*run(cluster), time.monotonic() - begun)


@pytest.fixture(scope="class")
def doomed(
    admin: Admin, kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[Ended]]]:
    """How runs end that cannot go on, by what is wrong. They go beside each other: most of their time is waiting."""
    cluster = Cluster(admin, kubeconfig, tmp_path_factory.mktemp("doomed"))
    with ThreadPoolExecutor(len(DOOMED)) as pool:
        yield {name: pool.submit(ended, cluster.beside(name), run) for name, run in DOOMED.items()}
    cluster.end()
    left = admin.run_namespaces()
    assert not left, f"the runs left {left}"


class TestARunThatCannotGoOn:
    """It says why, and leaves nothing."""

    def test_for_an_image_that_does_not_exist(self, doomed: dict[str, Future[Ended]]) -> None:
        run = doomed["image"].result()
        assert run.code in (2, 4)
        assert "kabench-no-such-image:1" in says(run.err)
        assert "Traceback" not in run.err

    def test_for_an_agents_image_that_does_not_exist(self, doomed: dict[str, Future[Ended]]) -> None:
        run = doomed["agents"].result()
        assert run.code in (2, 4)
        assert "kabench-no-such-agent:1" in says(run.err)
        assert run.seconds < 60

    def test_for_a_scheduler_that_does_not_exist(self, doomed: dict[str, Future[Ended]]) -> None:
        run = doomed["scheduler"].result()
        assert run.code == 4
        assert "no scheduler named nobody-at-home is bound to answer" in says(run.err)

    def test_for_a_quota_that_is_too_small(self, doomed: dict[str, Future[Ended]]) -> None:
        run = doomed["quota"].result()
        assert run.code == 4
        assert "exceeded quota: small" in says(run.out)
        assert "raise the quota, or ask for fewer" in says(run.out)


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


def pods(cluster: Cluster, role: str) -> bool:
    return bool(events(cluster.out, "fleet-ready")) and bool(cluster.admin.pods(cluster.run_id, role))


STAGES: dict[str, Callable[[Cluster], object]] = {
    "start": lambda cluster: until(lambda: namespace(cluster), "the namespace", RUN_S),
    "noise": lambda cluster: until(lambda: pods(cluster, "noise"), "noise", RUN_S),
    "targets": lambda cluster: until(lambda: pods(cluster, "target"), "targets", RUN_S),
    "window": lambda cluster: cluster.in_window(),
    "between": lambda cluster: cluster.wait_for("round-ended"),
}


def interrupted(cluster: Cluster, stage: str) -> None:
    """A run that is told to end at a stage: it does, and takes its namespace away."""
    controller = cluster.start_run("--alongside", **FEW, blocks="{planned: 3, reserve: 0}")
    STAGES[stage](cluster)
    controller.signal(signal.SIGINT if stage != "noise" else signal.SIGTERM)
    begun = time.monotonic()
    code, out, err = controller.wait(RUN_S)
    assert code == 130, f"{stage}: {err}"
    assert time.monotonic() - begun < 60
    assert not namespace(cluster), stage
    assert "Traceback" not in out + err


def test_ctrl_c_at_any_stage_of_runs_beside_each_other_leaves_no_namespace_behind(cluster: Cluster) -> None:
    with ThreadPoolExecutor(len(STAGES)) as pool:
        ends = [pool.submit(interrupted, cluster.beside(stage), stage) for stage in STAGES]
    for end in ends:
        end.result()
    assert cluster.admin.run_namespaces() == []


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
