"""A cluster in memory, for what asks a cluster and changes it: objects are kept, and go when and as the test says."""

from __future__ import annotations

import asyncio
import re
from base64 import b64encode
from collections.abc import AsyncIterator
from typing import Any

from kabench.backends.kubernetes.api import Change, relisted
from kabench.backends.kubernetes.manifests import Object
from kabench.backends.kubernetes.naming import (
    AGENT,
    AGENTS,
    EXPIRES,
    TOKEN_KEY,
    TOKEN_SECRET,
    namespace_of,
    run_labels,
)
from kabench.backends.kubernetes.refusals import Refused

Key = tuple[str, str, str]


class MemoryCluster:
    """Has the calls of `kabench.backends.kubernetes.api.Cluster` that are needed here.

    Attributes:
        objects: by kind, namespace and name.
        calls: what was changed, in order.
        deaf: pods that end only when they are not asked.
        held_up: namespaces that stay, and why.
        denied: rights that we do not have, as "verb resource name".
        asked: rights that were asked for.
        urls: where the proxy leads to, by pod.
        refused: objects that are not let in, by name, and why.
        schedulers: those that bind pods.
        runs_agents: whether a DaemonSet's pods get ready.
    """

    context = "kabench-test"

    def __init__(self, *objects: Object) -> None:
        self.objects: dict[Key, Object] = {}
        self.calls: list[str] = []
        self.deaf: set[str] = set()
        self.held_up: dict[str, str] = {}
        self.denied: set[str] = set()
        self.asked: list[str] = []
        self.urls: dict[str, str] = {}
        self.refused: dict[str, str] = {}
        self.schedulers = {"default-scheduler"}
        self.runs_agents = True
        self._news = asyncio.Event()
        for one in objects:
            self.objects[_key(one)] = one

    async def get(self, kind: str, name: str, namespace: str = "") -> Object | None:
        if kind == "Namespace":
            self._end_namespace(name)
        return self.objects.get((kind, namespace, name))

    async def list(
        self, kind: str, namespace: str = "", *, labels: str = "", fields: str = ""
    ) -> list[Object]:
        return [
            one
            for (its_kind, its_namespace, _), one in self.objects.items()
            if its_kind == kind and namespace in ("", its_namespace) and _matches(one, labels)
        ]

    async def delete(self, kind: str, name: str, namespace: str = "", *, grace_s: int | None = None) -> bool:
        if (kind, namespace, name) not in self.objects:
            return False
        self.calls.append(f"delete {kind} {name}" + (" at once" if grace_s == 0 else ""))
        if kind == "Namespace":
            self.objects[kind, namespace, name]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
            self._end_namespace(name)
        elif kind != "Pod" or name not in self.deaf or grace_s == 0:
            del self.objects[kind, namespace, name]
        return True

    async def delete_all(self, kind: str, namespace: str, labels: str, *, grace_s: int | None = None) -> None:
        for one in await self.list(kind, namespace, labels=labels):
            await self.delete(kind, one["metadata"]["name"], namespace, grace_s=grace_s)

    async def apply(self, wanted: Object, *, dry_run: bool = False) -> Object:
        name = wanted["metadata"]["name"]
        if name in self.refused:
            raise Refused(403, self.refused[name], f"refused: {self.refused[name]}")
        if dry_run:
            return wanted
        self.calls.append(f"apply {wanted['kind']} {name}")
        self._keep(wanted)
        if wanted["kind"] == "DaemonSet" and self.runs_agents:
            for node in await self.list("Node"):
                self._keep(_agent_on(wanted, node["metadata"]["name"]))
        return wanted

    async def watch(
        self,
        kind: str,
        namespace: str = "",
        *,
        labels: str = "",
        fields: str = "",
        known: dict[str, Object] | None = None,
    ) -> AsyncIterator[Change]:
        known = {} if known is None else known
        while True:
            news = self._news
            for change in relisted(known, await self.list(kind, namespace, labels=labels)):
                yield change
            await news.wait()

    async def version(self) -> str:
        return "v1.36.3"

    async def groups(self) -> set[str]:
        return {"apps"}

    async def may(self, verb: str, group: str, resource: str, namespace: str = "", *, name: str = "") -> bool:
        asked = f"{verb} {resource} {name}".strip()
        self.asked.append(asked)
        return asked not in self.denied

    def proxied(self, namespace: str, pod: str, port: int) -> tuple[str, dict[str, str], None]:
        url = self.urls.get(pod, f"https://api/{namespace}/{pod}:{port}")
        return url, {"Authorization": "Bearer x"}, None

    def _keep(self, one: Object) -> None:
        one["metadata"].setdefault("uid", f"uid-{one['metadata']['name']}")
        one["metadata"]["resourceVersion"] = str(len(self.calls))
        if one["kind"] == "Pod" and one["spec"].get("schedulerName") in self.schedulers:
            one["spec"]["nodeName"] = "w1"
        self.objects[_key(one)] = one
        news, self._news = self._news, asyncio.Event()
        news.set()

    def _end_namespace(self, name: str) -> None:
        """It goes with all that is in it, once it was told to and its pods have ended."""
        found = self.objects.get(("Namespace", "", name))
        if found is None or "deletionTimestamp" not in found["metadata"]:
            return
        if name in self.held_up:
            condition = {"type": "NamespaceContentRemaining", "status": "True", "message": self.held_up[name]}
            found["status"] = {"conditions": [condition]}
            return
        inside = [key for key in self.objects if key[1] == name]
        if not any(kind == "Pod" for kind, _, _ in inside):
            for key in [*inside, ("Namespace", "", name)]:
                del self.objects[key]


def a_namespace(run: str, expires: str | None = "2030-01-01T00:00:00Z", *, ending: bool = False) -> Object:
    annotations = {} if expires is None else {EXPIRES: expires}
    metadata: dict[str, Any] = {
        "name": namespace_of(run),
        "labels": run_labels(run),
        "annotations": annotations,
    }
    if ending:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return {"kind": "Namespace", "metadata": metadata}


def a_token(run: str, token: str = "the-token") -> Object:
    metadata = {"name": TOKEN_SECRET, "namespace": namespace_of(run)}
    return {"kind": "Secret", "metadata": metadata, "data": {TOKEN_KEY: b64encode(token.encode()).decode()}}


def a_pod(
    run: str, name: str, node: str = "w1", role: str = AGENT, *, ending: bool = False, **agent: Any
) -> Object:
    """A pod that runs; `agent` replaces parts of its container's status."""
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": namespace_of(run),
        "uid": f"uid-{name}",
        "labels": run_labels(run, role),
    }
    if ending:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    status = {"name": AGENTS, "image": "i", "state": {"running": {}}, "restartCount": 0} | agent
    return {
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"nodeName": node, "containers": [{"name": AGENTS, "image": "i"}]},
        "status": {"podIP": "10.0.0.7", "phase": "Running", "containerStatuses": [status]},
    }


def a_node(name: str, *images: str, ready: bool = True, cordoned: bool = False, taint: str = "") -> Object:
    return {
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": {
            "unschedulable": cordoned,
            "taints": [{"key": taint, "effect": "NoSchedule"}] if taint else [],
        },
        "status": {
            "conditions": [{"type": "Ready", "status": "True" if ready else "Unknown"}],
            "images": [
                {"names": [image, f"{image.partition(':')[0]}@sha256:{'0' * 64}"]} for image in images
            ],
        },
    }


def _agent_on(daemon_set: Object, node: str) -> Object:
    template, metadata = daemon_set["spec"]["template"], daemon_set["metadata"]
    running = [
        {"name": one["name"], "image": "i", "state": {"running": {}}}
        for one in template["spec"]["containers"]
    ]
    return {
        "kind": "Pod",
        "metadata": {
            "name": f"agent-{node}",
            "namespace": metadata["namespace"],
            "labels": template["metadata"]["labels"],
        },
        "spec": {**template["spec"], "nodeName": node},
        "status": {
            "podIP": "10.0.0.7",
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": running,
        },
    }


def _key(one: Object) -> Key:
    metadata = one["metadata"]
    return one["kind"], metadata.get("namespace", ""), metadata["name"]


def _matches(one: Object, selector: str) -> bool:
    """Equality and existence, which is all that is asked for."""
    labels = one["metadata"].get("labels", {})
    for part in filter(None, re.split(r",(?![^(]*\))", selector)):
        key, equals, value = part.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True
