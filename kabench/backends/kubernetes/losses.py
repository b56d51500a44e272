"""What ended before its time, from one look at a pod to the next. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from kabench.backends.base import Casualty
from kabench.backends.kubernetes.naming import AGENT, NOISE, TARGET
from kabench.backends.kubernetes.pods import Pod, loss

COUNTED = (AGENT, TARGET, NOISE)
"""Roles whose loss matters to a measurement; a decoy that ends leaves its node as it was."""


class Losses:
    """Gathers casualties; what was asked to end is none."""

    def __init__(self) -> None:
        self._found: list[Casualty] = []
        self._expected: set[str] = set()

    def expect(self, pods: Iterable[Pod]) -> None:
        """These are about to be ended by us."""
        self._expected.update(pod.uid for pod in pods)

    def saw(self, before: Pod, after: Pod | None, at_ns: int) -> None:
        """A pod's last look and its new one; None: it is gone."""
        if before.role in COUNTED and before.uid not in self._expected:
            reason = loss(before, after)
            if reason:
                self._found.append(Casualty(before.role, before.name, before.node, at_ns, reason))
        if after is None:
            self._expected.discard(before.uid)

    def taken(self) -> list[Casualty]:
        """What was lost since the last call."""
        found, self._found = self._found, []
        return found
