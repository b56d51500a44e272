"""What a pod's status means. Pure: the API's dicts come in."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kabench.backends.kubernetes.naming import ROLE
from kabench.errors import ClusterError, KabenchError, SpecError

SIGNALS = {130: "SIGINT", 137: "SIGKILL", 139: "SIGSEGV", 143: "SIGTERM"}

BAD_IMAGE = frozenset({"ErrImageNeverPull", "ImagePullBackOff", "InvalidImageName", "ImageInspectError"})
MAY_PASS_S = {
    "ErrImagePull": 5.0,  # a registry may have been busy
    "CreateContainerConfigError": 10.0,  # the kubelet may not have seen the Secret yet
    "CreateContainerError": 10.0,
    "RunContainerError": 5.0,
    "CrashLoopBackOff": 0.0,
}
"""Reasons to wait that are troubles, and for how long they may be none."""


@dataclass(frozen=True)
class Trouble:
    """Why a pod does not come up. `patience_s`: for so long it may pass by itself."""

    text: str
    patience_s: float = 0.0
    mistake: bool = False

    def error(self) -> KabenchError:
        """To raise: a SpecError where nothing but another scenario helps."""
        return SpecError(self.text) if self.mistake else ClusterError(self.text)


@dataclass(frozen=True)
class Pod:
    """A pod as the API server has it."""

    object: dict[str, Any]

    @property
    def uid(self) -> str:
        """Of this pod, and no other of the same name."""
        return str(self.object["metadata"]["uid"])

    @property
    def name(self) -> str:
        """In its namespace."""
        return str(self.object["metadata"]["name"])

    @property
    def role(self) -> str:
        """What it is for; "" where it is none of ours."""
        return self.label(ROLE)

    def label(self, name: str) -> str:
        """The value of a label; "" without it."""
        return str(self.object["metadata"].get("labels", {}).get(name, ""))

    @property
    def node(self) -> str:
        """The node that it is bound to; "" before."""
        return str(self.object.get("spec", {}).get("nodeName") or "")

    @property
    def ip(self) -> str:
        """Its address; "" before it has one."""
        return str(self._status.get("podIP") or "")

    @property
    def ending(self) -> bool:
        """Someone has asked for its end."""
        return bool(self.object["metadata"].get("deletionTimestamp"))

    @property
    def running(self) -> bool:
        """All of its containers run."""
        containers = self.containers
        wanted = len(self.object.get("spec", {}).get("containers", ()))
        return len(containers) >= max(1, wanted) and all("running" in c.get("state", {}) for c in containers)

    @property
    def ready(self) -> bool:
        """Its probes are content, and its node is in reach."""
        return self._condition("Ready").get("status") == "True"

    @property
    def restarts(self) -> int:
        """How often its containers were started anew, in all."""
        return sum(int(container.get("restartCount", 0)) for container in self.containers)

    @property
    def containers(self) -> list[dict[str, Any]]:
        """Their statuses."""
        found: list[dict[str, Any]] = self._status.get("containerStatuses") or []
        return found

    @property
    def fails_its_probe(self) -> bool:
        """Whether a container runs and its own readiness probe fails: overload, a result, and no loss."""
        return any(container.get("ready") is False for container in self.containers)

    @property
    def out_of_reach(self) -> bool:
        """Whether its node is: the cluster says then that it is not ready, and leaves its containers as they were."""
        return self.running and not self.ready and not self.fails_its_probe

    @property
    def last_words(self) -> str:
        """The termination message of the container that ended; "" without one."""
        for container in self.containers:
            for state in ("state", "lastState"):
                message = container.get(state, {}).get("terminated", {}).get("message")
                if message:
                    return str(message)
        return ""

    @property
    def end(self) -> str:
        """How it ended, where it has: of its own, by a signal, evicted; "" while it lives."""
        for container in self.containers:
            ended = container.get("state", {}).get("terminated")
            if ended:
                return f"{container['name']} ended: {_how(ended)}"
        if self._status.get("phase") in ("Failed", "Succeeded"):
            reason = self._status.get("reason") or self._status["phase"]
            return _joined(str(reason), str(self._status.get("message") or ""))
        return ""

    @property
    def restart(self) -> str:
        """Why a container was last started anew; "" where none was."""
        for container in self.containers:
            ended = container.get("lastState", {}).get("terminated")
            if container.get("restartCount") and ended:
                return f"{container['name']} ended: {_how(ended)}"
        return "a container was started anew" if self.restarts else ""

    @property
    def trouble(self) -> Trouble | None:
        """What keeps it from running, if anything does."""
        return next(self._troubles(), None)

    def _troubles(self) -> Iterator[Trouble]:
        where = f"pod {self.name}" + (f" on {self.node}" if self.node else "")
        disrupted = self._condition("DisruptionTarget")
        if disrupted.get("status") == "True":
            yield Trouble(f"{where} is evicted: {_joined(disrupted.get('reason'), disrupted.get('message'))}")
        if self.end:
            yield Trouble(f"{where}: {self.end}")
        scheduled = self._condition("PodScheduled")
        if scheduled.get("status") == "False" and not self.node:
            said = scheduled.get("message") or scheduled.get("reason")
            yield Trouble(f"{where} is placed nowhere; its scheduler says: {said}", math.inf)
        for container in self.containers:
            waiting = container.get("state", {}).get("waiting")
            if waiting:
                yield from self._waits(where, container, waiting)

    def _waits(self, where: str, container: dict[str, Any], waiting: dict[str, Any]) -> Iterator[Trouble]:
        reason = str(waiting.get("reason", ""))
        if reason in BAD_IMAGE or reason == "ErrImagePull":
            yield Trouble(
                f"{where}: the image {container['image']} is not to be had ({reason}); "
                f"load it into the nodes, or correct its name or kubernetes.pull_policy in the scenario",
                MAY_PASS_S.get(reason, 0.0),
                mistake=True,
            )
        elif reason in MAY_PASS_S:
            ended = container.get("lastState", {}).get("terminated")
            said = _how(ended) if ended else str(waiting.get("message") or "")
            yield Trouble(
                f"{where}: {container['name']}: {_joined(reason, said)}", MAY_PASS_S.get(reason, 0.0)
            )

    @property
    def _status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.object.get("status") or {}
        return found

    def _condition(self, kind: str) -> dict[str, Any]:
        conditions: list[dict[str, Any]] = self._status.get("conditions") or []
        return next((one for one in conditions if one.get("type") == kind), {})


def loss(before: Pod, after: Pod | None) -> str:
    """What a pod that was all right has lost between two looks at it (None: it is gone); "" where nothing."""
    if before.ending:
        return ""  # told when its end was asked for
    if after is None:
        return "" if before.end else "the pod was deleted"
    if after.ending:
        return "the pod was deleted"
    if after.end and not before.end:
        return after.end
    if after.restarts > before.restarts and not before.end:
        return after.restart
    if before.ready and after.out_of_reach:
        return "its node is out of reach"
    return ""


def _how(ended: dict[str, Any]) -> str:
    code = int(ended.get("exitCode", 0))
    reason = str(ended.get("reason") or "")
    text = f"{reason}, " if reason not in ("", "Error", "Completed") else ""
    signal = f" ({SIGNALS[code]})" if code in SIGNALS else ""
    said = str(ended.get("message") or "").strip().splitlines()
    return f"{text}exit code {code}{signal}" + (f": {said[-1][:200]}" if said and code else "")


def _joined(*parts: Any) -> str:
    return ": ".join(str(part).strip() for part in parts if part)
