"""A cluster in memory that lives: schedulers bind, kubelets start containers and end them, watches tell of it.

Everything happens at once, in the call that causes it; what is to go wrong is said beforehand.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

from memory_cluster import MemoryCluster, a_node

from kabench.backends.kubernetes.api import Change
from kabench.backends.kubernetes.manifests import Object
from kabench.backends.kubernetes.objects import HOSTNAME

SCHEDULERS = ("default-scheduler", "second")

ACCOUNT = """---
system-info:
      stress-ng-version: 0.15.06
metrics:
    - stressor: cpu
      bogo-ops: 1000
      wall-clock-time: 2.5
      user-time: 2.0
      system-time: 0.1
"""


class LivingCluster(MemoryCluster):
    """Workers `w1` … `wN`.

    Attributes:
        state: of the container of a pod that is new, from the pod; None is one that runs.
        cut: nodes out of reach: nothing on them starts or ends.
        refused: raised by the next apply of an object of that kind.
        quota_is_seen: whether the quota's controller runs.
    """

    def __init__(self, workers: int = 6) -> None:
        super().__init__(*(a_node(f"w{number}") for number in range(1, workers + 1)))
        self.state: Callable[[Object], dict[str, Any] | None] = lambda _pod: None
        self.cut: set[str] = set()
        self.refused: dict[str, Exception] = {}
        self.quota_is_seen = True
        self._numbers = itertools.count(1)
        self._watchers: list[tuple[str, str, asyncio.Queue[Change]]] = []
        for one in self.objects.values():
            one["status"]["allocatable"] = {"cpu": "2", "memory": "8Gi"}

    @contextlib.asynccontextmanager
    async def opened(self, *_: Any) -> AsyncIterator[LivingCluster]:
        """In the place of `open_cluster`."""
        yield self

    async def version(self) -> str:
        return "v1.36.3"

    async def apply(self, wanted: Object, *, dry_run: bool = False) -> Object:
        kind, metadata = wanted["kind"], wanted["metadata"]
        if kind in self.refused:
            raise self.refused.pop(kind)
        key = (kind, metadata.get("namespace", ""), metadata["name"])
        if key in self.objects:
            metadata["uid"] = self.objects[key]["metadata"].get("uid", "")
            self.objects[key] = self.objects[key] | wanted
            return self.objects[key]
        metadata["uid"] = f"uid-{next(self._numbers)}"
        self.objects[key] = wanted
        if kind == "ResourceQuota" and self.quota_is_seen:
            wanted["status"] = {"hard": wanted["spec"]["hard"]}
        if kind == "DaemonSet":
            self._daemons(wanted)
        if kind == "Pod":
            self._tell("ADDED", wanted)
            self._schedule(wanted)
        return wanted

    async def delete(self, kind: str, name: str, namespace: str = "", *, grace_s: int | None = None) -> bool:
        found = self.objects.get((kind, namespace, name))
        if found is None or kind != "Pod":
            return await super().delete(kind, name, namespace, grace_s=grace_s)
        self.calls.append(f"delete Pod {name}" + (" at once" if grace_s == 0 else ""))
        found["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        self._tell("MODIFIED", found)
        if grace_s == 0 or found["spec"].get("nodeName") not in self.cut:
            self.end(found, message=ACCOUNT)
            self.vanish(found)
        return True

    async def watch(
        self, kind: str, namespace: str = "", *, fields: str = "", known: dict[str, Object] | None = None
    ) -> AsyncIterator[Change]:
        news: asyncio.Queue[Change] = asyncio.Queue()
        for one in await self.list(kind, namespace):
            news.put_nowait(Change("ADDED", _copy(one)))
        self._watchers.append((kind, namespace, news))
        while True:
            yield await news.get()

    def pods(self, role: str) -> list[Object]:
        return [
            one
            for (kind, _, _), one in self.objects.items()
            if kind == "Pod" and one["metadata"]["labels"].get("kabench.dev/role") == role
        ]

    def end(self, pod: Object, code: int = 0, message: str = "") -> None:
        """Its containers end."""
        for container in pod["status"].get("containerStatuses", ()):
            container["state"] = {"terminated": {"exitCode": code, "message": message}}
        pod["status"]["conditions"] = []
        self._tell("MODIFIED", pod)

    def vanish(self, pod: Object) -> None:
        """It is gone; an agent's DaemonSet makes another."""
        metadata = pod["metadata"]
        del self.objects["Pod", metadata["namespace"], metadata["name"]]
        self._tell("DELETED", pod)
        for (kind, namespace, _), one in list(self.objects.items()):
            if kind == "DaemonSet" and namespace == metadata["namespace"]:
                self._daemons(one)

    def _daemons(self, daemon_set: Object) -> None:
        template, space = daemon_set["spec"]["template"], daemon_set["metadata"]["namespace"]
        taken = {pod["spec"].get("nodeName") for pod in self.pods("agent")}
        for node in _hostnames(template):
            if node in taken or node in self.cut:
                continue
            number = next(self._numbers)
            name = f"kabench-agent-{number}"
            metadata = {"name": name, "namespace": space, "uid": f"uid-{number}"}
            labels = {"labels": dict(template["metadata"]["labels"])}
            pod = {"kind": "Pod", "metadata": metadata | labels, "spec": dict(template["spec"])}
            self.objects["Pod", space, name] = pod
            self._run(pod, node)

    def _schedule(self, pod: Object) -> None:
        scheduler = pod["spec"].get("schedulerName", "default-scheduler")
        pod["status"] = {}
        if scheduler not in SCHEDULERS:
            return
        hosts = _hostnames(pod)
        node = hosts[next(self._numbers) % len(hosts)]
        self._run(pod, node)
        event = {
            "kind": "Event",
            "metadata": {"uid": f"e-{pod['metadata']['uid']}", "namespace": pod["metadata"]["namespace"]},
            "regarding": {"uid": pod["metadata"]["uid"]},
            "reportingController": scheduler,
        }
        self._tell("ADDED", event)

    def _run(self, pod: Object, node: str) -> None:
        pod["spec"]["nodeName"] = node
        state = self.state(pod) or {"running": {}}
        ready = [{"type": "Ready", "status": "True"}] if "running" in state else []
        pod["status"] = {
            "podIP": f"10.0.0.{next(self._numbers)}",
            "conditions": ready,
            "containerStatuses": [
                {"name": one["name"], "image": one["image"], "restartCount": 0, "state": dict(state)}
                for one in pod["spec"]["containers"]
            ],
        }
        self._tell("MODIFIED", pod)

    def _tell(self, type_: str, one: Object) -> None:
        for kind, namespace, news in self._watchers:
            if kind == one["kind"] and namespace in ("", one["metadata"].get("namespace", "")):
                news.put_nowait(Change(type_, _copy(one)))

    async def list(
        self, kind: str, namespace: str = "", *, labels: str = "", fields: str = ""
    ) -> list[Object]:
        roles = re.search(r"kabench\.dev/role in \(([^)]*)\)", labels)
        rest = re.sub(r",?kabench\.dev/role in \([^)]*\)", "", labels)
        found = await super().list(kind, namespace, labels=rest, fields=fields)
        if roles is None:
            return found
        wanted = roles[1].split(",")
        return [one for one in found if one["metadata"]["labels"].get("kabench.dev/role") in wanted]


def _hostnames(pod: Object) -> list[str]:
    affinity = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    (term,) = affinity["nodeSelectorTerms"][0]["matchExpressions"]
    assert term["key"] == HOSTNAME
    return list(term["values"])


def _copy(one: Any) -> Any:
    if isinstance(one, dict):
        return {key: _copy(value) for key, value in one.items()}
    return [_copy(value) for value in one] if isinstance(one, list) else one
