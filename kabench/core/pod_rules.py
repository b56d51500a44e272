"""What a pod of the user's own may not say, so that all arms are measured alike and a run's namespace takes it. Pure.

Refused is what the phase decides (node, scheduler), what would be measured in place of a scheduler (CPU limits, kills by a
liveness probe), what a run's namespace does not have (accounts, secrets) or, being "restricted", does not admit, and what
its quota must know. Everything else stands as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from kabench.core.quantities import read_mib, read_millis
from kabench.core.yaml_source import Document, Path, dotted, short

LONGEST_GRACE_S = 10
"""Every round waits for its pods to end."""

OURS = ("kabench.dev/", "app.kubernetes.io/managed-by")
"""Labels that are kabench's own, or begin so."""

VOLUMES = ("csi", "downwardAPI", "emptyDir", "ephemeral")

_DECIDED = "the phase decides it; leave it out"
_RESTRICTED = "a run's namespace does not admit it (Pod Security: restricted); leave it out"
_ELSEWHERE = "a run's namespace has none of yours; put what it holds into the image, or into args and env"
REFUSED: Mapping[str, str] = {
    "nodeName": _DECIDED,
    "nodeSelector": _DECIDED,
    "affinity": _DECIDED,
    "schedulerName": _DECIDED,
    "schedulingGates": "nobody would lift them; leave them out",
    "priorityClassName": "it could evict what it is measured with; leave it out",
    "priority": "it could evict what it is measured with; leave it out",
    "activeDeadlineSeconds": "kabench ends the pods; leave it out",
    "hostNetwork": _RESTRICTED,
    "hostPID": _RESTRICTED,
    "hostIPC": _RESTRICTED,
    "imagePullSecrets": "a run's namespace has none of yours; load the image onto the nodes",
    "resources": "give them container by container",
    "resourceClaims": "quota and decoys know CPU and memory only; leave them out",
    "ephemeralContainers": "they are for debugging; leave them out",
}
"""Fields of a pod's spec that may not be given (false and empty are as good as not)."""


class Findings:
    """A manifest, looked into by path, and what is wrong with it, by line."""

    def __init__(self, document: Document, data: Any) -> None:
        self._document, self._data = document, data
        self.problems: set[tuple[int, str]] = set()

    def add(self, path: Path, what: str) -> None:
        """Note a problem with what is, or should be, at `path`."""
        where = f"{dotted(path)}: " if path else ""
        self.problems.add((self._document.line(path), f"{self._document.at(path)}: {where}{what}"))

    def get(self, path: Path) -> Any:
        """What is there, or None."""
        found = self._data
        for part in path:
            inside = part in found if isinstance(found, dict) else _is_entry(found, part)
            if not inside:
                return None
            found = found[part]
        return found

    def mapping(self, path: Path) -> dict[str, Any]:
        """The mapping that is there; anything else is a problem, and nothing is an empty one."""
        found = self.get(path)
        if found is None or isinstance(found, dict):
            return found or {}
        self.add(path, f"found {short(found)}; give a mapping")
        return {}

    def items(self, path: Path) -> list[Path]:
        """The paths of a list's entries; anything else is a problem."""
        found = self.get(path)
        if found is None or isinstance(found, list):
            return [(*path, number) for number in range(len(found or ()))]
        self.add(path, f"found {short(found)}; give a list")
        return []

    def text(self, path: Path) -> None:
        """Only text may be there: an unquoted `no` or `5` is none."""
        found = self.get(path)
        if not isinstance(found, str):
            self.add(path, f"found {short(found)}; give text, in quotes")


def _is_entry(found: Any, part: int | str) -> bool:
    return isinstance(found, list) and isinstance(part, int) and part < len(found)


def check_metadata(findings: Findings, path: Path) -> None:
    """Labels and annotations that others read, and nothing that keeps a pod from going."""
    metadata = findings.mapping(path)
    for field in ("finalizers", "ownerReferences"):
        if metadata.get(field):
            findings.add((*path, field), "it would outlive its round, or not live so long; leave it out")
    for field in ("labels", "annotations"):
        for key in findings.mapping((*path, field)):
            findings.text((*path, field, key))
            if key.startswith(OURS):
                findings.add((*path, field, key), "kabench sets it; leave it out")


def check_pod(findings: Findings, path: Path, *, noise: bool, port: int | None) -> None:
    """A pod's spec.

    Args:
        findings: the manifest; what is wrong is added.
        path: where the spec is.
        noise: whether it is to disturb, rather than to be measured.
        port: where it should listen.
    """
    spec = findings.mapping(path)
    for field, why in REFUSED.items():
        if spec.get(field):
            findings.add((*path, field), why)
    restart = spec.get("restartPolicy")
    if restart not in (None, "Never"):
        findings.add(
            (*path, "restartPolicy"),
            f"found {short(restart)}; leave it out: a pod that ended is not started anew, since that is a result",
        )
    grace = spec.get("terminationGracePeriodSeconds")
    if grace is not None and not (isinstance(grace, int) and 0 <= grace <= LONGEST_GRACE_S):
        findings.add(
            (*path, "terminationGracePeriodSeconds"),
            f"found {short(grace)}; give at most {LONGEST_GRACE_S}: every round waits for it",
        )
    for field in ("serviceAccountName", "serviceAccount"):
        if spec.get(field) not in (None, "", "default"):
            findings.add((*path, field), "a run's namespace has only the account 'default'; leave it out")
    _check_volumes(findings, (*path, "volumes"))
    if not findings.items((*path, "containers")):
        findings.add((*path, "containers"), "missing; give at least one")
    for field in ("initContainers", "containers"):
        for container in findings.items((*path, field)):
            _check_container(findings, container, findings.mapping((*path, "securityContext")), noise=noise)
    if port is not None:
        _check_port(findings, (*path, "containers"), port)


def _check_volumes(findings: Findings, path: Path) -> None:
    for volume in findings.items(path):
        for kind in findings.mapping(volume).keys() - {"name"} - set(VOLUMES):
            outside = kind in ("configMap", "secret", "persistentVolumeClaim", "projected")
            findings.add(
                (*volume, kind),
                _ELSEWHERE if outside else f"{_RESTRICTED}, or take one of {', '.join(VOLUMES)}",
            )


def _check_port(findings: Findings, path: Path, port: int) -> None:
    """Ports need not be named in a manifest; where they are, ours should be among them."""
    ports = [named for container in findings.items(path) for named in findings.items((*container, "ports"))]
    numbers = [findings.mapping(named).get("containerPort") for named in ports]
    if numbers and port not in numbers:
        shown = ", ".join(map(str, numbers))
        findings.add((*ports[0], "containerPort"), f"the scenario's port is {port}, and here stands {shown}")


def _check_container(findings: Findings, path: Path, pod_context: Mapping[str, Any], *, noise: bool) -> None:
    container = findings.mapping(path)
    for field in ("name", "image"):
        if not container.get(field):
            findings.add((*path, field), "missing; give it")
    for field in ("command", "args"):
        for entry in findings.items((*path, field)):
            findings.text(entry)
    _check_environment(findings, path)
    _check_resources(findings, (*path, "resources"), noise=noise)
    _check_security(findings, path, pod_context)
    if container.get("livenessProbe"):
        findings.add(
            (*path, "livenessProbe"),
            "its kill in a window would pass for the scheduler's doing; leave it out",
        )
    for port in findings.items((*path, "ports")):
        if findings.mapping(port).get("hostPort"):
            findings.add((*port, "hostPort"), _RESTRICTED)


def _check_environment(findings: Findings, path: Path) -> None:
    for source in findings.items((*path, "envFrom")):
        findings.add(source, _ELSEWHERE)
    for variable in findings.items((*path, "env")):
        if "value" in findings.mapping(variable):
            findings.text((*variable, "value"))
        for kind in findings.mapping((*variable, "valueFrom")):
            if kind in ("configMapKeyRef", "secretKeyRef"):
                findings.add((*variable, "valueFrom", kind), _ELSEWHERE)


def _check_resources(findings: Findings, path: Path, *, noise: bool) -> None:
    """Both requests and a memory limit: a scheduler goes by the former, a run's quota counts all; and no CPU limit."""
    requests, limits = findings.mapping((*path, "requests")), findings.mapping((*path, "limits"))
    if "cpu" in limits:
        measured = "noise that is throttled is another noise" if noise else "p99 would measure its throttling"
        findings.add((*path, "limits", "cpu"), f"a CPU limit: {measured}; leave it out")
    _check_amount(findings, (*path, "requests", "cpu"), read_millis, "schedulers go by it")
    requested = _check_amount(findings, (*path, "requests", "memory"), read_mib, "schedulers go by it")
    limit = _check_amount(findings, (*path, "limits", "memory"), read_mib, "a run's quota counts it")
    if requested is not None and limit is not None and requested > limit:
        findings.add((*path, "requests", "memory"), "more than its limit; give at most that")
    for field, given in (("requests", requests), ("limits", limits)):
        for resource in given.keys() - {"cpu", "memory"}:
            findings.add((*path, field, resource), "quota and decoys know CPU and memory only; leave it out")


def _check_amount(findings: Findings, path: Path, read: Callable[[Any], int], why: str) -> int | None:
    amount = findings.get(path)
    if amount is None:
        findings.add(path, f"missing; give it: {why}")
        return None
    try:
        return read(amount)
    except ValueError as error:
        findings.add(path, str(error))
        return None


def _check_security(findings: Findings, path: Path, pod_context: Mapping[str, Any]) -> None:
    """What Pod Security's profile "restricted" asks of a container, its pod's securityContext included."""
    where = (*path, "securityContext")
    own = findings.mapping(where)
    breaches = "; ".join(_breaches(own, {**pod_context, **own}))
    if breaches:
        findings.add(where, f"a run's namespace is restricted (Pod Security): {breaches}")


def _breaches(own: Mapping[str, Any], both: Mapping[str, Any]) -> Iterator[str]:
    capabilities, seccomp = _dict(own.get("capabilities")), _dict(both.get("seccompProfile"))
    if own.get("privileged"):
        yield "leave out privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "give allowPrivilegeEscalation: false"
    if both.get("runAsNonRoot") is not True:
        yield "give runAsNonRoot: true, here or for the pod"
    if both.get("runAsUser") == 0:
        yield "give a runAsUser other than 0"
    if seccomp.get("type") not in ("RuntimeDefault", "Localhost"):
        yield "give seccompProfile: {type: RuntimeDefault}, here or for the pod"
    if capabilities.get("drop") != ["ALL"]:
        yield "give capabilities: {drop: [ALL]}"
    if capabilities.get("add") not in (None, [], ["NET_BIND_SERVICE"]):
        yield "add no capability but NET_BIND_SERVICE"


def _dict(found: Any) -> Mapping[str, Any]:
    return found if isinstance(found, dict) else {}
