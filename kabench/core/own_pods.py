"""Pods of the user's own: from the manifest that a scenario names to the template that it then holds. Pure.

A template is the labels, annotations and spec of the manifest's pod, and nothing is changed in it here. What kabench sets
when it makes pods of it (name, namespace, scheduler, node, restart policy, its own labels) may not stand in a manifest.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from kabench.core.pod_rules import Findings, check_metadata, check_pod
from kabench.core.quantities import Amounts, amounts_of
from kabench.core.spec import OwnPod, Requests, Scenario, Stressor, Target
from kabench.core.yaml_source import Document, Path, dotted, read_documents, short
from kabench.errors import SpecError

ReadFile = Callable[[str], tuple[str, str]]
"""A path as it stands in the scenario to (text, name for messages); SpecError where it cannot be read."""

Use = Literal["target", "noise"]

FILLED_IN = "template"
"""The field of `OwnPod` that no scenario file may give."""

KUBECTL_YAML = "1.1"
"""Kubernetes' tools read YAML 1.1: `no` is false and `0644` octal. Another reading would change what runs."""

TEMPLATES: Mapping[str, Path] = {
    "Pod": (),
    "PodTemplate": ("template",),
    "Deployment": ("spec", "template"),
    "Job": ("spec", "template"),
}
"""Where the pod is, by kind. What else a Deployment or a Job says is about roll-outs and retries: there are none."""

KINDS: Mapping[Use, str] = {"target": "a Deployment or a Pod", "noise": "a Job, a Deployment or a Pod"}


def no_files(path: str) -> tuple[str, str]:
    """A reader where there is no folder to read from.

    Raises:
        SpecError: always.
    """
    raise SpecError(f"{path}: cannot be read: this scenario is no file, so it has no folder")


def with_pods(scenario: Scenario, document: Document, read: ReadFile) -> tuple[Scenario, list[str]]:
    """The scenario with its manifests' templates and requests in it, and all that is wrong with them, a line each.

    Args:
        scenario: as it was read from `document`.
        document: what the file itself gives, and where.
        read: reads the manifests.
    """
    reading = _Reading(document, read)
    targets = tuple(reading.target(target, number) for number, target in enumerate(scenario.targets))
    stressors = tuple(reading.stressor(one, number) for number, one in enumerate(scenario.noise.stressors))
    noise = scenario.noise.model_copy(update={"stressors": stressors})
    return scenario.model_copy(update={"targets": targets, "noise": noise}), reading.problems


class _Reading:
    """The manifests of one scenario, one after the other."""

    def __init__(self, document: Document, read: ReadFile) -> None:
        self._document, self._read = document, read
        self.problems: list[str] = []

    def target(self, target: Target, number: int) -> Target:
        if target.pod is None:
            return target
        where: Path = ("targets", number)
        self._come_from_the_manifest(where, ("requests",))
        self._refuse_given((*where, "http", "cpu_us"), "only the built-in echo burns CPU time; leave it out")
        found = self._template(target.pod, where, "target", target.replicas, target.pod.port)
        pod = target.pod.model_copy(update={FILLED_IN: found})
        return target.model_copy(update={"pod": pod, "requests": _requests(found)})

    def stressor(self, stressor: Stressor, number: int) -> Stressor:
        if stressor.pod is None:
            return stressor
        where: Path = ("noise", "stressors", number)
        self._come_from_the_manifest(where, ("requests", "workers"))
        found = self._template(stressor.pod, where, "noise", 1, None)
        pod = stressor.pod.model_copy(update={FILLED_IN: found})
        return stressor.model_copy(update={"pod": pod, "requests": _requests(found)})

    def _template(self, pod: OwnPod, where: Path, use: Use, pods: int, port: int | None) -> dict[str, Any]:
        """Empty where it cannot be had: `problems` says why."""
        self._refuse_given((*where, "pod", FILLED_IN), "kabench takes it from the manifest; leave it out")
        try:
            text, name = self._read(pod.manifest)
        except SpecError as error:
            self.problems.append(f"{self._document.at((*where, 'pod', 'manifest'))}: {error}")
            return {}
        try:
            return read_template(text, name, use, pods, port)
        except SpecError as error:
            self.problems += str(error).splitlines()
            return {}

    def _come_from_the_manifest(self, where: Path, fields: Sequence[str]) -> None:
        for name in fields:
            self._refuse_given((*where, name), "an own pod has what its manifest says; leave it out")

    def _refuse_given(self, path: Path, why: str) -> None:
        data: Any = self._document.data
        for part in path:
            if isinstance(part, str) and (not isinstance(data, dict) or part not in data):
                return
            data = data[part]
        self.problems.append(f"{self._document.at(path)}: {dotted(path)}: {why}")


def _requests(template: Mapping[str, Any]) -> Requests:
    amounts = amounts_of(template["spec"]) if template else Amounts()
    return Requests(cpu_millis=amounts.cpu_millis, memory_mib=amounts.memory_mib)


def read_template(text: str, name: str, use: Use, pods: int, port: int | None = None) -> dict[str, Any]:
    """The labels, annotations and spec of the pod in a manifest.

    Args:
        text: the manifest.
        name: its file, for messages.
        use: what the pods are for.
        pods: how many there are of them, by the scenario.
        port: where they listen.

    Raises:
        SpecError: it is no manifest, or contradicts a fair measurement; all that is wrong is named, a line each.
    """
    documents = read_documents(text, name, KUBECTL_YAML)
    if len(documents) != 1:
        where = documents[1].at(()) if documents else f"{name}:1"
        raise SpecError(f"{where}: {len(documents)} objects in the file; give one: {KINDS[use]}")
    [document] = documents
    try:
        data = json.loads(json.dumps(document.data, default=str))
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{name}:1: it contains itself (an alias inside its own anchor)") from error
    findings = Findings(document, data)
    where_pod = _pod_in(findings, use, pods)
    if where_pod is not None:
        check_metadata(findings, (*where_pod, "metadata"))
        check_pod(findings, (*where_pod, "spec"), noise=use == "noise", port=port)
    if findings.problems:
        raise SpecError("\n".join(text for _, text in sorted(findings.problems)))
    assert where_pod is not None
    metadata = findings.mapping((*where_pod, "metadata"))
    kept = {key: metadata[key] for key in ("labels", "annotations") if metadata.get(key)}
    return {"metadata": kept, "spec": findings.mapping((*where_pod, "spec"))}


def _pod_in(findings: Findings, use: Use, pods: int) -> Path | None:
    """Where the pod is; None where the object has none that kabench could make."""
    if not isinstance(findings.get(()), dict):
        findings.add((), f"found {short(findings.get(()))}; give an object of Kubernetes: {KINDS[use]}")
        return None
    kind = findings.get(("kind",))
    if kind not in TEMPLATES or (kind == "Job" and use == "target"):
        found = f"found {short(kind)}" if kind is not None else "missing"
        findings.add(("kind",), f"{found}; give {KINDS[use]}: fresh pods are made of it in every round")
        return None
    for field in ("replicas", "parallelism", "completions") if kind in ("Deployment", "Job") else ():
        count = findings.get(("spec", field))
        if count not in (None, pods):
            how = f"the scenario has {pods}" if use == "target" else "every noisy node gets one pod"
            findings.add(("spec", field), f"found {short(count)}, and {how}; leave it out here")
    return TEMPLATES[str(kind)]
