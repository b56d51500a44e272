"""What Pod Security's profile "restricted" asks of a pod, as far as pods like ours can break it, and our own rules."""

from __future__ import annotations

from typing import Any

VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


def pod_specs(one: dict[str, Any]) -> list[dict[str, Any]]:
    """The pod specs in an object: of a pod, or of what makes pods."""
    if one["kind"] == "Pod":
        return [one["spec"]]
    return [one["spec"]["template"]["spec"]] if "template" in one.get("spec", {}) else []


def breaches(spec: dict[str, Any]) -> list[str]:
    """What of a pod's spec "restricted" refuses."""
    found = [name for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name)]
    for volume in spec.get("volumes", []):
        found += [f"volume {kind}" for kind in volume.keys() - {"name"} - VOLUMES]
    pod = spec.get("securityContext", {})
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        own = container.get("securityContext", {})
        both = pod | own
        wrong = {
            "privileged": own.get("privileged"),
            "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is not False,
            "runAsNonRoot": both.get("runAsNonRoot") is not True,
            "runAsUser": both.get("runAsUser") == 0,
            "seccompProfile": both.get("seccompProfile", {}).get("type")
            not in ("RuntimeDefault", "Localhost"),
            "drop": "ALL" not in own.get("capabilities", {}).get("drop", []),
            "add": set(own.get("capabilities", {}).get("add", [])) - {"NET_BIND_SERVICE"},
            "hostPort": any("hostPort" in port for port in container.get("ports", [])),
        }
        found += [f"{container['name']}: {name}" for name, broken in wrong.items() if broken]
    return found


def own_breaches(spec: dict[str, Any]) -> list[str]:
    """What of a pod's spec our own rules refuse, beyond "restricted"."""
    found = [] if spec.get("enableServiceLinks") is False else ["enableServiceLinks"]
    for container in spec["containers"]:
        resources = container.get("resources", {})
        wrong = {
            "a CPU limit": "cpu" in resources.get("limits", {}),
            "no memory limit": "memory" not in resources.get("limits", {}),
            "no requests": resources.get("requests", {}).keys() != {"cpu", "memory"},
            "a root that can be written to": container["securityContext"].get("readOnlyRootFilesystem")
            is not True,
            "a probe that goes on in a window": {"livenessProbe", "readinessProbe"} & container.keys(),
        }
        found += [f"{container['name']}: {name}" for name, broken in wrong.items() if broken]
    return found
