"""All pods of a run as they are now: one watch in the background, whoever waits is woken by every change."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from kabench.backends.kubernetes.api import Cluster
from kabench.backends.kubernetes.manifests import Object
from kabench.backends.kubernetes.pods import Pod
from kabench.clock import Clock
from kabench.core.spec import NS_PER_S
from kabench.errors import ClusterError

T = TypeVar("T")

LOOK_S = 0.5
"""A wait looks again after so long even if nothing changed: patience with a trouble may have ended."""
PAUSE_S = 1.0


class PodTable:
    """The pods of a namespace, and who bound them.

    Attributes:
        pods: those that are there, by UID.
        gone: the last sight of those that are not, by UID, until `forget`.
        bound_ns: when a pod was first seen on a node; monotonic.
        bound_by: the component that says it has bound a pod, by the pod's UID.
        changed: called with a pod's last sight and its new one (None: gone).
    """

    def __init__(self, cluster: Cluster, namespace: str, clock: Clock) -> None:
        self._cluster, self._namespace, self._clock = cluster, namespace, clock
        self.pods: dict[str, Pod] = {}
        self.gone: dict[str, Pod] = {}
        self.bound_ns: dict[str, int] = {}
        self.bound_by: dict[str, str] = {}
        self.changed: Callable[[Pod, Pod | None], None] = lambda _before, _after: None
        self._trouble_ns: dict[tuple[str, str], int] = {}
        self._failures: dict[str, ClusterError] = {}
        self._news = asyncio.Event()

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Held while the table is to be current."""
        tasks = [
            asyncio.create_task(self._follow("Pod", "", self._take_pod), name="watch pods"),
            asyncio.create_task(
                self._follow("Event", "reason=Scheduled", self._take_event), name="watch events"
            ),
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            for task in tasks:
                if not task.cancelled():
                    task.result()

    def of(self, *roles: str) -> list[Pod]:
        """The pods of these roles that are there."""
        return [pod for pod in self.pods.values() if pod.role in roles]

    def check(self, pod: Pod) -> None:
        """Raise the pod's trouble, if it has one that has lasted for longer than it may."""
        trouble = pod.trouble
        if trouble is None:
            return
        now_ns = self._clock.monotonic_ns()
        since_ns = self._trouble_ns.setdefault((pod.uid, trouble.text), now_ns)
        if now_ns - since_ns >= trouble.patience_s * NS_PER_S:
            raise trouble.error()

    def forget(self, *uids: str) -> None:
        """Keep nothing of pods that are gone."""
        for uid in uids:
            self.gone.pop(uid, None)
            self.bound_ns.pop(uid, None)
            self.bound_by.pop(uid, None)
        self._trouble_ns = {key: since for key, since in self._trouble_ns.items() if key[0] in self.pods}

    async def until(self, check: Callable[[], T | None], seconds: float, why: Callable[[], str]) -> T:
        """Wait until `check` answers with something else than None.

        Args:
            check: looks at the table; what it raises is raised.
            seconds: the deadline.
            why: says what is missing, asked at the deadline.

        Raises:
            ClusterError: the deadline has passed, or the table cannot be kept current.
        """
        try:
            async with asyncio.timeout(seconds):
                while True:
                    news = self._news
                    for failure in self._failures.values():
                        raise ClusterError(str(failure)) from failure
                    found = check()
                    if found is not None:
                        return found
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(LOOK_S):
                            await news.wait()
        except TimeoutError as error:
            raise ClusterError(why()) from error

    async def _follow(self, kind: str, fields: str, take: Callable[[str, Object], None]) -> None:
        """Watch for as long as it takes: an API server that was away for long may still come back."""
        known: dict[str, Object] = {}
        while True:
            try:
                async for change in self._cluster.watch(kind, self._namespace, fields=fields, known=known):
                    take(change.type, change.object)
                    self._tell()
            except ClusterError as error:
                self._failures[kind] = error
                self._tell()
            await asyncio.sleep(PAUSE_S)  # whoever waits hears of it now; later waits see whether it lasts
            self._failures.pop(kind, None)

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    def _take_pod(self, type_: str, found: Object) -> None:
        pod = Pod(found)
        before = self.pods.get(pod.uid)
        if pod.node:
            self.bound_ns.setdefault(pod.uid, self._clock.monotonic_ns())
        if type_ == "DELETED":
            self.pods.pop(pod.uid, None)
            self.gone[pod.uid] = pod
        else:
            self.pods[pod.uid] = pod
        if before is not None:
            self.changed(before, None if type_ == "DELETED" else pod)

    def _take_event(self, type_: str, found: Object) -> None:
        uid = str((found.get("regarding") or {}).get("uid", ""))
        component = found.get("reportingController") or (found.get("deprecatedSource") or {}).get("component")
        if type_ != "DELETED" and uid and component:
            self.bound_by[uid] = str(component)
