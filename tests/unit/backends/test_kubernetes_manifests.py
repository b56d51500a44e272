"""The manifests as they are: valid, restricted, ours, and found in a wheel as well."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from pod_security import breaches, own_breaches, pod_specs

from kabench import __version__
from kabench.backends.kubernetes import naming
from kabench.backends.kubernetes.manifests import load, load_all, names
from kabench.backends.kubernetes.templates import noise_limit_mib
from kabench.backends.stressors import DEFAULT_CACHE_BYTES, stress_ng_arguments
from kabench.core.quantities import read_mib
from kabench.core.spec import Images, Stressor, StressorKind
from kabench.errors import ClusterError

ROOT = Path(__file__).parents[3]
KUBERNETES = kubernetes_validate.latest_version()
STRESSORS: tuple[StressorKind, ...] = ("stress-cache", "stress-membw", "stress-cpu")
ALL = [(name, index) for name in names() for index in range(len(load_all(name)))]


def one(name: str, index: int) -> dict[str, Any]:
    return load_all(name)[index]


@pytest.mark.parametrize(("name", "index"), ALL)
def test_every_object_is_valid(name: str, index: int) -> None:
    kubernetes_validate.validate(one(name, index), KUBERNETES, strict=True)


def test_the_validation_knows_a_wrong_field() -> None:
    pod = load("decoy")
    pod["spec"]["containers"][0]["imagePolicy"] = "Never"
    with pytest.raises(kubernetes_validate.ValidationError, match="imagePolicy"):
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


@pytest.mark.parametrize(("name", "index"), ALL)
def test_pods_are_restricted_and_keep_our_rules(name: str, index: int) -> None:
    for spec in pod_specs(one(name, index)):
        assert breaches(spec) == []
        assert own_breaches(spec) == []
        token = spec["automountServiceAccountToken"]
        assert token is (name == "controller-job")


@pytest.mark.parametrize(
    ("where", "field", "value", "told"),
    [
        ("pod", "hostNetwork", True, "hostNetwork"),
        ("pod", "volumes", [{"name": "v", "hostPath": {"path": "/"}}], "volume hostPath"),
        ("pod", "securityContext", {}, "stress: runAsNonRoot"),
        ("container", "securityContext", {"readOnlyRootFilesystem": True}, "stress: drop"),
        ("container", "resources", {"requests": {"cpu": "1"}, "limits": {"cpu": "1"}}, "stress: a CPU limit"),
        ("container", "readinessProbe", {}, "stress: a probe that goes on in a window"),
    ],
)
def test_the_checks_see_what_is_wrong(where: str, field: str, value: Any, told: str) -> None:
    spec = load("stress-cache")["spec"]
    assert breaches(spec) + own_breaches(spec) == []
    (spec if where == "pod" else spec["containers"][0])[field] = value
    assert told in breaches(spec) + own_breaches(spec)


def test_manifests_and_names_in_code_agree() -> None:
    agents = load("agents")
    agent, null = agents["spec"]["template"]["spec"]["containers"]
    assert (agents["metadata"]["name"], agent["name"], null["name"]) == (
        naming.AGENTS,
        naming.AGENTS,
        "null-echo",
    )
    assert f"0.0.0.0:{naming.AGENT_PORT}" in agent["args"]
    null_port = null["args"][null["args"].index("--port") + 1]
    assert f"127.0.0.1:{null_port}" in agent["args"]
    assert agent["ports"][0]["containerPort"] == naming.AGENT_PORT
    assert load_all("network-policy")[2]["spec"]["ingress"][0]["ports"][0]["port"] == naming.AGENT_PORT
    reference = {"name": naming.TOKEN_SECRET, "key": naming.TOKEN_KEY}
    assert [e["valueFrom"]["secretKeyRef"] for e in agent["env"] if e["name"] == "KABENCH_TOKEN"] == [
        reference
    ]
    secret = load("agent-token")
    assert (secret["metadata"]["name"], secret["data"]) == (naming.TOKEN_SECRET, {naming.TOKEN_KEY: ""})
    assert load("quota")["metadata"]["name"] == naming.QUOTA
    for name, port in (("redis-target", naming.REDIS_PORT), ("http-target", naming.HTTP_PORT)):
        container = load(name)["spec"]["containers"][0]
        assert container["ports"][0]["containerPort"] == port
        assert container["args"][container["args"].index("--port") + 1] == str(port)
    labels = [
        load(name)["metadata"]["labels"][naming.ROLE] for name in (*STRESSORS, "decoy", "scheduler-canary")
    ]
    assert labels == [naming.NOISE] * 3 + [naming.DECOY, naming.CANARY]
    namespace, account, role, binding = load_all("controller-rbac")
    assert namespace["metadata"]["name"] == account["metadata"]["namespace"] == naming.SYSTEM_NAMESPACE
    assert {one["metadata"]["name"] for one in (account, role, binding)} == {naming.CONTROLLER}
    assert binding["subjects"][0]["name"] == naming.CONTROLLER
    job = load("controller-job")
    assert job["metadata"]["namespace"] == naming.SYSTEM_NAMESPACE
    assert job["spec"]["template"]["spec"]["serviceAccountName"] == naming.CONTROLLER


def test_images_are_those_of_a_scenario_and_of_this_version() -> None:
    images = Images()
    used = {c["image"] for n, i in ALL for spec in pod_specs(one(n, i)) for c in spec["containers"]}
    assert used == {images.agent, images.noise, images.redis, f"kabench:{__version__}"}


@pytest.mark.parametrize("kind", STRESSORS)
def test_the_noise_is_what_kabench_would_run(kind: StressorKind) -> None:
    container = load(kind)["spec"]["containers"][0]
    stressor = Stressor(kind=kind)
    report = container["terminationMessagePath"]
    assert container["args"] == stress_ng_arguments(stressor, 300, DEFAULT_CACHE_BYTES, "/dev/shm", report)
    limit = read_mib(container["resources"]["limits"]["memory"])
    assert limit == noise_limit_mib(Stressor(kind=kind), DEFAULT_CACHE_BYTES)


def test_stressors_and_decoys_differ_in_what_they_run_only() -> None:
    def alike(name: str) -> dict[str, Any]:
        pod = copy.deepcopy(load(name))
        del pod["metadata"], pod["spec"]["affinity"]
        container = pod["spec"]["containers"][0]
        for field in ("image", "command", "args", "terminationMessagePath"):
            container.pop(field, None)
        del container["resources"]["limits"]
        return pod

    assert alike("stress-membw") == alike("stress-cpu") == alike("stress-cache")
    assert alike("decoy") == alike("stress-cache")


def test_the_rights_are_few() -> None:
    rules = load_all("controller-rbac")[2]["rules"]
    resources = {resource for rule in rules for resource in rule["resources"]}
    verbs = {verb for rule in rules for verb in rule["verbs"]}
    assert "*" not in resources | verbs
    assert not {"nodes/proxy", "pods/exec", "roles", "rolebindings", "clusterroles"} & resources
    assert not {"escalate", "bind", "impersonate", "update"} & verbs
    reading = [
        rule for rule in rules if rule["resources"] == ["secrets"] and set(rule["verbs"]) != {"create"}
    ]
    assert [rule["resourceNames"] for rule in reading] == [[naming.TOKEN_SECRET]]
    policies = {policy["metadata"]["name"] for policy in load_all("network-policy")}
    named = [
        r["resourceNames"] for r in rules if r["resources"] == ["networkpolicies"] and "resourceNames" in r
    ]
    assert [set(names) for names in named] == [policies]


def test_what_is_loaded_may_be_changed() -> None:
    first = load("decoy")
    first["spec"]["containers"].clear()
    assert load("decoy")["spec"]["containers"]


def test_a_manifest_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ClusterError, match=r"manifests/nothing\.yaml: cannot be read: No such file"):
        load("nothing")
    with pytest.raises(ClusterError, match="3 objects where one is wanted"):
        load("network-policy")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    script = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return folder / done.stdout.split()[-1]


def test_a_wheel_holds_all_manifests(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if name.startswith("kabench/manifests/")}
    assert {f"kabench/manifests/{name}.yaml" for name in names()} <= held


def test_manifests_are_read_from_within_a_wheel(wheel: Path, tmp_path: Path) -> None:
    script = (
        "import kabench; from kabench.backends.kubernetes.manifests import load, names;"
        "print(kabench.__file__, len(names()), load('agents')['kind'])"
    )
    environment = os.environ | {"PYTHONPATH": str(wheel)}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    where, count, kind = done.stdout.split()
    assert where.startswith(str(wheel))
    assert (int(count), kind) == (len(names()), "DaemonSet")
