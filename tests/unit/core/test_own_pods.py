"""Pods of the user's own: read as they stand, and refused with file and line where they contradict a fair comparison."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kabench.core.own_pods import Use, read_template
from kabench.core.scenario import load_scenario, override
from kabench.core.spec import Requests, Scenario
from kabench.errors import SpecError

SCENARIO = """\
name: mine
phases:
  - {name: a, scheduler: default-scheduler}
targets:
  - name: my-cache
    kind: redis
    replicas: 2
    pod: {manifest: cache.yaml, port: 6380}
noise:
  stressors:
    - {kind: own, name: my-batch, pod: {manifest: batch.yaml}}
"""

CACHE = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: my-cache, namespace: theirs}
spec:
  replicas: 2
  template:
    metadata:
      labels: {app: my-cache}
      annotations: {note: kept}
    spec:
      securityContext: {runAsNonRoot: true, runAsUser: 999, seccompProfile: {type: RuntimeDefault}}
      containers:
        - name: cache
          image: redis:7.4.2
          args: [--port, "6380"]
          ports: [{containerPort: 6380}]
          resources: {requests: {cpu: 150m, memory: 64Mi}, limits: {memory: 128Mi}}
          securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
          volumeMounts: [{name: data, mountPath: /data}]
      volumes:
        - {name: data, emptyDir: {}}
"""

BATCH = """\
apiVersion: batch/v1
kind: Job
metadata: {name: my-batch}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
      containers:
        - name: batch
          image: batch:1
          resources: {requests: {cpu: 1, memory: 96M}, limits: {memory: 256M}}
          securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
"""


def load(scenario: str = SCENARIO, cache: str = CACHE, batch: str = BATCH) -> Scenario:
    files = {"cache.yaml": cache, "batch.yaml": batch}

    def read(path: str) -> tuple[str, str]:
        if path not in files:
            raise SpecError(f"there/{path}: cannot be read: No such file or directory")
        return files[path], f"there/{path}"

    return load_scenario(scenario, "s.yaml", read)


def refused(*texts: str) -> list[str]:
    with pytest.raises(SpecError) as caught:
        load(*texts)
    return str(caught.value).splitlines()


def test_a_manifest_is_held_as_it_stands_without_its_name() -> None:
    scenario = load()
    [target], [stressor] = scenario.targets, scenario.noise.stressors
    assert target.pod is not None
    assert (target.pod.port, target.pod.manifest) == (6380, "cache.yaml")
    assert target.pod.template["metadata"] == {"labels": {"app": "my-cache"}, "annotations": {"note": "kept"}}
    spec = target.pod.template["spec"]
    assert spec.keys() == {"securityContext", "containers", "volumes"}
    assert spec["containers"][0]["args"] == ["--port", "6380"]
    assert target.requests == Requests(cpu_millis=150, memory_mib=64)
    assert stressor.pod is not None
    assert stressor.pod.template["metadata"] == {}
    assert (stressor.label, stressor.requests) == ("my-batch", Requests(cpu_millis=1000, memory_mib=92))


def test_results_and_resumed_runs_hold_the_manifest() -> None:
    scenario = load()
    plain = json.loads(json.dumps(scenario.model_dump(mode="json")))
    assert Scenario.model_validate(plain) == scenario
    assert override(scenario, blocks=3).targets == scenario.targets
    assert load(cache=CACHE.replace('6380"', '6381"')).fingerprint != scenario.fingerprint
    assert load(cache="# only a comment is new\n" + CACHE).fingerprint == scenario.fingerprint


def test_a_pod_itself_is_a_manifest_too() -> None:
    head, _, spec = CACHE.partition("    spec:\n")
    pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec:\n" + spec.replace(
        "\n    ", "\n"
    ).removeprefix("    ")
    assert head
    [own], [same] = load(cache=pod).targets, load().targets
    assert own.pod is not None
    assert same.pod is not None
    assert own.pod.template == {"metadata": {}, "spec": same.pod.template["spec"]}


def test_the_schema_has_what_a_file_may_give() -> None:
    schema = Scenario.model_json_schema()
    parts = {name: schema["$defs"][name] for name in ("TargetPod", "OwnPod", "Stressor")}
    assert parts["TargetPod"]["properties"].keys() == {"manifest", "port"}
    assert parts["TargetPod"]["required"] == ["manifest", "port"]
    assert parts["OwnPod"]["properties"].keys() == {"manifest"}
    assert "own" in parts["Stressor"]["properties"]["kind"]["enum"]
    assert "template" not in json.dumps(schema)


def test_yaml_is_read_as_kubectl_reads_it() -> None:
    found = read_template(CACHE.replace("emptyDir: {}", "downwardAPI: {defaultMode: 0644}"), "f", "target", 2)
    assert found["spec"]["volumes"][0]["downwardAPI"]["defaultMode"] == 0o644


IN_POD, IN_CONTAINER = "      containers:", "          args:"
POD, CONTAINER = "spec.template.spec.", "spec.template.spec.containers[0]."
RESTRICTED = f"18: {CONTAINER}securityContext: a run's namespace is restricted (Pod Security): "


@pytest.mark.parametrize(
    ("field", "told"),
    [
        ("nodeName: worker-1", "the phase decides it; leave it out"),
        ("nodeSelector: {a: b}", "the phase decides it; leave it out"),
        ("affinity: {podAffinity: {}}", "the phase decides it; leave it out"),
        ("schedulerName: s", "the phase decides it; leave it out"),
        ("schedulingGates: [{name: g}]", "nobody would lift them"),
        ("hostNetwork: true", "a run's namespace does not admit it (Pod Security: restricted)"),
        ("priorityClassName: p", "it could evict what it is measured with"),
        ("restartPolicy: Always", "found 'Always'; leave it out: a pod that ended is not started anew"),
        ("serviceAccountName: me", "a run's namespace has only the account 'default'"),
        ("imagePullSecrets: [{name: s}]", "a run's namespace has none of yours"),
        ("activeDeadlineSeconds: 5", "kabench ends the pods"),
        ("terminationGracePeriodSeconds: 30", "found 30; give at most 10: every round waits for it"),
        ("terminationGracePeriodSeconds: soon", "found 'soon'; give at most 10"),
    ],
)
def test_what_the_phase_decides_or_no_namespace_has_is_refused(field: str, told: str) -> None:
    [line] = refused(SCENARIO, CACHE.replace(IN_POD, f"      {field}\n{IN_POD}"))
    assert line.startswith(f"there/cache.yaml:12: {POD}{field.partition(':')[0]}: {told}")


@pytest.mark.parametrize(
    ("field", "where", "told"),
    [
        ("livenessProbe: {tcpSocket: {port: 1}}", "livenessProbe", "its kill in a window would pass for"),
        ("envFrom: [{secretRef: {name: s}}]", "envFrom[0]", "a run's namespace has none of yours"),
        (
            "env: [{name: A, valueFrom: {configMapKeyRef: {}}}]",
            "env[0].valueFrom.configMapKeyRef",
            "a run's namespace has none of yours",
        ),
        ("env: [{name: A, value: no}]", "env[0].value", "found False; give text, in quotes"),
        ("command: [5]", "command[0]", "found 5; give text, in quotes"),
    ],
)
def test_what_would_be_measured_instead_is_refused(field: str, where: str, told: str) -> None:
    [line] = refused(SCENARIO, CACHE.replace(IN_CONTAINER, f"          {field}\n{IN_CONTAINER}"))
    assert line.startswith(f"there/cache.yaml:15: {CONTAINER}{where}: {told}")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("replicas: 2", "replicas: 3", "5: spec.replicas: found 3, and the scenario has 2; leave it out here"),
        ("emptyDir: {}", "hostPath: {path: /}", f"21: {POD}volumes[0].hostPath: a run's namespace does not admit it"),
        ("emptyDir: {}", "secret: {secretName: s}", f"21: {POD}volumes[0].secret: a run's namespace has none of yours"),
        ("limits: {", "limits: {cpu: 1, ", f"17: {CONTAINER}resources.limits.cpu: a CPU limit: p99 would measure its"),
        ("limits: {memory: 128Mi}", "limits: {}", f"17: {CONTAINER}resources.limits.memory: missing; give it: a run's"),
        ("cpu: 150m, ", "", f"17: {CONTAINER}resources.requests.cpu: missing; give it: schedulers go by it"),
        ("cpu: 150m", "cpu: lots", f"17: {CONTAINER}resources.requests.cpu: 'lots' is no amount"),
        ("memory: 64Mi", "memory: 1Gi", f"17: {CONTAINER}resources.requests.memory: more than its limit"),
        ("cpu: 150m", "cpu: 150m, gpu: 1", f"17: {CONTAINER}resources.requests.gpu: quota and decoys know CPU and"),
        ('"6380"', "6380", f"15: {CONTAINER}args[1]: found 6380; give text, in quotes"),
        ("ort: 6380", "ort: 6379", f"16: {CONTAINER}ports[0].containerPort: the scenario's port is 6380, and here"),
        ("ort: 6380", "ort: 6380, hostPort: 1", f"16: {CONTAINER}ports[0].hostPort: a run's namespace does not"),
        ("image: redis:7.4.2", "tty: false", f"13: {CONTAINER}image: missing; give it"),
        ("runAsNonRoot: true", "fsGroup: 1", f"{RESTRICTED}give runAsNonRoot: true, here or for the pod"),
        ("runAsUser: 999", "runAsUser: 0", f"{RESTRICTED}give a runAsUser other than 0"),
        ("type: RuntimeDefault", "type: Unconfined", f"{RESTRICTED}give seccompProfile: {{type: RuntimeDefault}}"),
        ("drop: [ALL]", "drop: [NET_RAW]", f"{RESTRICTED}give capabilities: {{drop: [ALL]}}"),
        ("drop: [ALL]", "drop: [ALL], add: [SYS_ADMIN]", f"{RESTRICTED}add no capability but NET_BIND_SERVICE"),
        ("allowPrivilegeEscalation: false", "privileged: true", f"{RESTRICTED}leave out privileged; give allow"),
        ("app: my-cache}\n      ann", "app: 1}\n      ann", "8: spec.template.metadata.labels.app: found 1; give text"),
        ("app: my-cache}\n ", "kabench.dev/a: x}\n ", "8: spec.template.metadata.labels.kabench.dev/a: kabench sets it"),
        ("{note: kept}", "{}\n      finalizers: [a/b]", "10: spec.template.metadata.finalizers: it would outlive"),
        ("emptyDir: {}}", "emptyDir: {}}\n        - 5", f"22: {POD}volumes[1]: found 5; give a mapping"),
        ("volumes:\n        - {name: data, emptyDir: {}}", "volumes: 5", f"20: {POD}volumes: found 5; give a list"),
        ("kind: Deployment", "kind: StatefulSet", "2: kind: found 'StatefulSet'; give a Deployment or a Pod: fresh"),
        ("kind: Deployment", "kind: Job", "2: kind: found 'Job'; give a Deployment or a Pod"),
        ("kind: Deployment\n", "", "1: kind: missing; give a Deployment or a Pod"),
        ("kind: Deployment", "kind: [Deployment", "3: not YAML: "),
    ],
)  # fmt: skip
def test_what_contradicts_a_fair_comparison_is_refused_by_line(old: str, new: str, message: str) -> None:
    [line] = refused(SCENARIO, CACHE.replace(old, new, 1))
    assert line.startswith(f"there/cache.yaml:{message}")


def test_init_containers_are_looked_at_too() -> None:
    lines = refused(
        SCENARIO, CACHE.replace(IN_POD, f"      initContainers: [{{name: i, image: j}}]\n{IN_POD}")
    )
    assert f"there/cache.yaml:12: {POD}initContainers[0].resources.requests.cpu: missing" in "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "there/cache.yaml:1: 0 objects in the file; give one: a Deployment or a Pod"),
        ("# nothing\n---\n", "there/cache.yaml:1: 0 objects"),
        (CACHE + "---\nkind: Service\n", "there/cache.yaml:23: 2 objects in the file; give one"),
        ("- a\n", "there/cache.yaml:1: found ['a']; give an object of Kubernetes: a Deployment or a Pod"),
        ("a: &x [*x]\n", "there/cache.yaml:1: it contains itself"),
        ("kind: Pod\n", "there/cache.yaml:1: spec.containers: missing; give at least one"),
        ("kind: Pod\nspec: {containers: none}\n", "there/cache.yaml:2: spec.containers: found 'none'; give a list"),
    ],
)  # fmt: skip
def test_what_is_no_manifest_is_said_in_a_line(text: str, message: str) -> None:
    assert refused(SCENARIO, text)[0].startswith(message)


BATCHES = "    - {kind: own, name: my-batch, pod: {manifest: batch.yaml}}\n"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("    pod:", "    requests: {cpu_millis: 1}\n    pod:", "8: targets[0].requests: an own pod has what its manifest"),
        ("    pod:", "    http: {cpu_us: 1}\n    pod:", "8: targets[0].http.cpu_us: only the built-in echo burns"),
        ("pod: {", "pod: {template: {}, ", "8: targets[0].pod.template: kabench takes it from the manifest"),
        ("cache.yaml", "gone.yaml", "8: there/gone.yaml: cannot be read: No such file"),
        (", port: 6380", "", "8: targets[0].pod.port: missing; give it"),
        ("port: 6380", "port: 66000", "8: targets[0].pod.port: found 66000; give a number ≤ 65535"),
        ("port: 6380", "portt: 1", "8: targets[0].pod.portt: unknown field 'portt'; did you mean 'port'?"),
        ("port: 6380", "x: 1", "8: targets[0].pod.x: unknown field 'x'; known are manifest, port"),
        ("name: my-batch, ", "", "11: noise.stressors[0]: kind own needs a name and a pod: {manifest: FILE}"),
        ("name: my-batch", "name: stress-cpu", "11: noise.stressors[0]: the name 'stress-cpu' is that of a built-in"),
        ("kind: own", "kind: stress-cpu", "11: noise.stressors[0]: name and pod are of kind own"),
        ("kind: own", "workers: 2, kind: own", "11: noise.stressors[0].workers: an own pod has what its manifest"),
        ("    - {kind: own", f"{BATCHES}    - {{kind: own", "9: noise: the name 'my-batch' stands twice"),
    ],
)  # fmt: skip
def test_a_scenario_that_contradicts_its_manifests_is_refused(old: str, new: str, message: str) -> None:
    assert any(line.startswith(f"s.yaml:{message}") for line in refused(SCENARIO.replace(old, new, 1)))


def test_noise_may_be_a_job_but_only_one_pod_of_it() -> None:
    lines = refused(SCENARIO, CACHE, BATCH.replace("backoffLimit: 0", "parallelism: 4"))
    assert lines == [
        "there/batch.yaml:5: spec.parallelism: found 4, and every noisy node gets one pod; leave it out here"
    ]
    assert "noise that is throttled is another noise" in refused(
        SCENARIO, CACHE, BATCH.replace("limits: {", "limits: {cpu: 1, ")
    )[0]  # fmt: skip


def test_all_manifests_problems_are_found_at_once() -> None:
    lines = refused(SCENARIO, CACHE.replace("150m", "x").replace("128Mi", "y"), BATCH.replace("Job", "Cron"))
    assert [line.split(": ")[0] for line in lines] == [
        "there/cache.yaml:17",
        "there/cache.yaml:17",
        "there/batch.yaml:2",
    ]


def test_a_scenario_that_is_no_file_has_no_manifests() -> None:
    with pytest.raises(SpecError, match=r"s\.yaml:8: cache\.yaml: cannot be read: this scenario is no file"):
        load_scenario(SCENARIO, "s.yaml")


@pytest.mark.parametrize("use", ["target", "noise"])
@pytest.mark.parametrize("wrong", [5, "x", [], [5], {"a": []}, True])
def test_no_shape_of_manifest_crashes(use: Use, wrong: Any) -> None:
    manifest = {"kind": "Pod", "metadata": {}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    context = {"runAsNonRoot": True, "seccompProfile": wrong, "capabilities": wrong}
    for path in (
        "metadata",
        "spec",
        "spec.containers",
        "spec.securityContext",
        "spec.volumes",
        "metadata.labels",
    ):
        changed: dict[str, Any] = json.loads(json.dumps(manifest))
        *parents, last = path.split(".")
        place = changed
        for parent in parents:
            place = place[parent]
        place[last] = wrong
        with pytest.raises(SpecError):
            read_template(json.dumps(changed), "f", use, 1, 80)
    for field in ("resources", "securityContext", "ports", "args", "env", "envFrom"):
        changed = json.loads(json.dumps(manifest))
        changed["spec"]["containers"][0] |= {"securityContext": context, field: wrong}
        with pytest.raises(SpecError):
            read_template(json.dumps(changed), "f", use, 1, 80)
