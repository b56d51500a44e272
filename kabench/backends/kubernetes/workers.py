"""The cluster's nodes as kabench sees them. Pure: the API's dicts come in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kabench.backends.base import Node
from kabench.backends.kubernetes.objects import HOSTNAME
from kabench.core.quantities import MIB, read_mib, read_millis

INFO = {
    "kubelet": "kubeletVersion",
    "runtime": "containerRuntimeVersion",
    "os": "osImage",
    "kernel": "kernelVersion",
    "architecture": "architecture",
}


@dataclass(frozen=True)
class Worker:
    """A node that takes pods.

    Attributes:
        node: what the controller knows of it.
        hostname: its label, which pods are bound by.
        info: versions, for the record.
        images: digests by image name, as far as the kubelet tells.
    """

    node: Node
    hostname: str
    info: Mapping[str, str] = field(default_factory=dict)
    images: Mapping[str, str] = field(default_factory=dict)


def worker(found: Mapping[str, Any]) -> Worker:
    """A Node object as a worker."""
    metadata, status = found["metadata"], found["status"]
    allocatable, info = status.get("allocatable", {}), status.get("nodeInfo", {})
    return Worker(
        Node(
            name=metadata["name"],
            cpu_millis=read_millis(allocatable.get("cpu", "0")),
            memory_bytes=MIB * read_mib(allocatable.get("memory", "0")),
        ),
        hostname=metadata.get("labels", {}).get(HOSTNAME, metadata["name"]),
        info={name: info[key] for name, key in INFO.items() if info.get(key)},
        images=_images(status.get("images", ())),
    )


def unfit(found: Mapping[str, Any]) -> str:
    """Why a node takes no pods of ours; "" where it does."""
    if found.get("spec", {}).get("unschedulable"):
        return "cordoned"
    if not is_ready(found):
        return "not Ready"
    taints = found.get("spec", {}).get("taints") or ()
    hard = [taint["key"] for taint in taints if taint.get("effect") in ("NoSchedule", "NoExecute")]
    return f"tainted {hard[0]}" if hard else ""


def left_out(found: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Why those of the nodes that take no pods of ours do not, by name."""
    reasons = {node["metadata"]["name"]: unfit(node) for node in found}
    return {name: reason for name, reason in sorted(reasons.items()) if reason}


def full_names(image: str) -> tuple[str, ...]:
    """What a kubelet may list `image` as; runtimes fill in the registry and the tag."""
    last = image.rpartition("/")[2]
    tagged = image if ":" in last or "@" in last else f"{image}:latest"
    return tagged, f"docker.io/library/{tagged}", f"docker.io/{tagged}", f"localhost/{tagged}"


def is_ready(found: Mapping[str, Any]) -> bool:
    """Whether its kubelet says that it is Ready, and is in reach."""
    conditions = found.get("status", {}).get("conditions", ())
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def _images(listed: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    found = {}
    for image in listed:
        names = image.get("names") or ()
        digest = next((name.partition("@")[2] for name in names if "@" in name), "")
        found.update({name: digest for name in names if "@" not in name})
    return found
