"""Pods of the user's own in a run: as their manifests have them, but for what a round decides."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from pod_security import breaches

from kabench.backends.kubernetes import naming
from kabench.backends.kubernetes.objects import (
    RunSetup,
    check_scenario,
    decoy_pods,
    noise_pods,
    run_objects,
    target_pods,
)
from kabench.backends.kubernetes.templates import target_port
from kabench.backends.local import LocalBackend
from kabench.cli.sources import load_source
from kabench.core.identity import Kind
from kabench.core.spec import Scenario, Target
from kabench.errors import SpecError

EXAMPLE = Path(__file__).parents[3] / "examples" / "own-workload" / "scenario.yaml"
NODES = tuple(f"worker-{number}" for number in range(1, 7))
KUBERNETES = kubernetes_validate.latest_version()


@pytest.fixture(scope="module")
def example() -> Scenario:
    return load_source(str(EXAMPLE))


def setup(scenario: Scenario) -> RunSetup:
    return RunSetup("r", scenario, "token", NODES, "2026-01-02T04:00:00Z")


def test_the_example_is_sound_and_its_pods_valid_and_restricted(example: Scenario) -> None:
    check_scenario(example)
    the = setup(example)
    pods = target_pods(the, example.phases[0], 3, NODES)
    pods += noise_pods(the, NODES[:2], 60, "003-default") + decoy_pods(the, NODES[2:], 60, "003-default")
    assert len(pods) == 4 + 2 + 4
    for pod in pods:
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)
        assert breaches(pod["spec"]) == []
        assert pod["metadata"]["namespace"] == naming.namespace_of("r")


def test_nothing_of_a_manifest_is_changed_but_what_the_round_decides(example: Scenario) -> None:
    [target] = example.targets
    assert target.pod is not None
    before = copy.deepcopy(target.pod.template)
    pod = target_pods(setup(example), example.phases[0], 3, NODES)[1]
    spec = pod["spec"]
    decided = {name: spec.pop(name) for name in ("schedulerName", "affinity", "restartPolicy")}
    assert spec.pop("terminationGracePeriodSeconds") == 1
    assert decided["schedulerName"] == "default-scheduler"
    assert decided["restartPolicy"] == "Never"
    assert spec == before["spec"]
    labels = pod["metadata"]["labels"]
    ours = naming.run_labels("r", naming.TARGET) | {
        "kabench.dev/workload": "my-cache",
        "kabench.dev/replica": "my-cache-2",
        "kabench.dev/block": "3",
        "kabench.dev/phase": "default",
    }
    assert labels == before["metadata"]["labels"] | ours
    assert pod["metadata"]["name"] == "my-cache-2-3-default"
    assert target.pod.template == before  # and the scenario that results will hold neither


def test_a_grace_period_that_is_given_stays(example: Scenario) -> None:
    plain = example.model_dump(mode="json")
    plain["targets"][0]["pod"]["template"]["spec"]["terminationGracePeriodSeconds"] = 7
    pod = target_pods(setup(Scenario.model_validate(plain)), example.phases[0], 1, NODES)[0]
    assert pod["spec"]["terminationGracePeriodSeconds"] == 7


def test_own_noise_ends_and_its_decoys_look_like_it(example: Scenario) -> None:
    the = setup(example)
    [noise] = noise_pods(the, NODES[:1], 60, "r")
    [decoy] = decoy_pods(the, NODES[:1], 60, "r")
    assert noise["spec"]["activeDeadlineSeconds"] == decoy["spec"]["activeDeadlineSeconds"] == 90
    assert noise["spec"]["containers"][0]["args"][:2] == ["--matrix", "2"]
    assert [pod["spec"]["containers"][0]["resources"]["requests"] for pod in (noise, decoy)] == [
        {"cpu": "750m", "memory": "96Mi"}
    ] * 2
    for field in ("schedulerName", "affinity", "restartPolicy"):
        assert noise["spec"][field] == decoy["spec"][field]
    role = naming.ROLE
    assert (noise["metadata"]["labels"].pop(role), decoy["metadata"]["labels"].pop(role)) == (
        "noise",
        "decoy",
    )
    assert noise["metadata"]["labels"] == decoy["metadata"]["labels"]
    assert decoy["metadata"]["labels"]["app"] == decoy["metadata"]["labels"][naming.WORKLOAD]


def test_the_quota_counts_own_pods(example: Scenario) -> None:
    def hard(scenario: Scenario) -> dict[str, int]:
        found = run_objects(setup(scenario))[1]["spec"]["hard"]
        return {name: int(re.sub(r"\D", "", amount)) for name, amount in found.items()}

    less = example.model_dump(mode="json")
    less["targets"][0]["replicas"] = 1
    less["noise"]["stressors"] = []
    whole, part = hard(example), hard(Scenario.model_validate(less))
    # twice: three more caches, two batches and their decoys on four nodes
    assert {name: whole[name] - part[name] for name in whole} == {
        "pods": 2 * (3 + 6),
        "requests.cpu": 2 * (3 * 150 + 6 * 750),
        "requests.memory": 2 * (3 * 64 + 6 * 96),
        "limits.memory": 2 * (3 * 128 + 2 * 256 + 4 * (96 + 128)),
    }


def test_an_own_pods_memory_counts_against_the_cap(example: Scenario) -> None:
    plain = example.model_dump(mode="json")
    container = plain["noise"]["stressors"][0]["pod"]["template"]["spec"]["containers"][0]
    container["resources"]["limits"]["memory"] = "7Gi"
    with pytest.raises(SpecError, match=r"^noise\.stressors: they may take 7168 MiB on a node"):
        check_scenario(Scenario.model_validate(plain))
    plain["noise"]["stressors"][0]["requests"]["cpu_millis"] = 8001
    container["resources"]["limits"]["memory"] = "1Gi"
    with pytest.raises(SpecError, match=r"^noise\.stressors: 9 workers on a node"):
        check_scenario(Scenario.model_validate(plain))


def test_ports_are_the_scenarios_for_own_pods(example: Scenario) -> None:
    ports: list[Any] = [target_port(target) for target in example.targets]
    ports += [target_port(Target(name="t", kind=kind)) for kind in (Kind.REDIS, Kind.HTTP)]
    assert ports == [6380, naming.REDIS_PORT, naming.HTTP_PORT]


@pytest.mark.parametrize(
    ("left", "told"), [("targets", "target my-cache: a pod of"), ("noise", "stressor my-batch: a pod")]
)
async def test_the_local_backend_has_no_pods(example: Scenario, left: str, told: str, tmp_path: Path) -> None:
    plain = example.model_dump(mode="json") | {"phases": [{"name": "p", "policy": "default"}]}
    if left == "noise":
        plain["targets"] = [{"name": "t", "kind": "http"}]
    with pytest.raises(SpecError, match=f"^{told}.* needs --backend kubernetes"):
        async with LocalBackend().started(Scenario.model_validate(plain), "r", tmp_path, "token"):
            pass
