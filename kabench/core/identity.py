"""What a measurement is of: kinds, metrics, windows and cells.

A *cell* is the finest thing that is ever kept apart; every coarser figure is a sum of cells.
"""

from __future__ import annotations

import re
from enum import StrEnum

import msgspec

NULL_TARGET = "null-echo"
"""The name under which every agent logs the null echo beside it."""

NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
"""Names of phases, targets, workloads and nodes: DNS labels, so that they fit tags, file names and Kubernetes."""


class Kind(StrEnum):
    """What a target speaks; `NULL` is the agent's own null echo, never part of a result."""

    REDIS = "redis"
    HTTP = "http"
    NULL = "null"


class Metric(StrEnum):
    """The histograms of a cell, all in nanoseconds.

    response = received − due (ok, time-outs and skipped, the latter two at no less than the time-out);
    service = received − sent (ok); lag = issued − due (all planned); wait = sent − issued (all that reached a socket);
    error = received − due of what ended in an error.
    """

    RESPONSE = "response"
    SERVICE = "service"
    LAG = "lag"
    WAIT = "wait"
    ERROR = "error"


class ErrorClass(StrEnum):
    """Why a request counts as an error."""

    CONNECT = "connect"  # no connection could be made
    RESET = "reset"  # the peer closed while the reply was due
    ABORTED = "aborted"  # our own closing, because another request on the connection timed out
    STATUS = "status"  # HTTP status of 400 and more
    REPLY = "reply"  # a Redis error reply
    MISS = "miss"  # nil for a key that was filled
    MALFORMED = "malformed"  # what came is not the protocol


class WindowId(msgspec.Struct, frozen=True, order=True):
    """One agent's share of one window of one run: what is counted once, however often it is found."""

    run: str
    window: str
    agent: str


class Cell(msgspec.Struct, frozen=True, order=True):
    """Where a measurement belongs (`workload` is the name in the scenario, `target` one replica of it)."""

    phase: str
    block: int
    agent: str
    target: str
    node: str
    workload: str
    kind: Kind


def window_name(block: int, phase: str) -> str:
    """The window of `phase` in `block`: `007-default`. Blocks are numbered from 1 and never twice in a run."""
    return f"{block:03d}-{phase}"


class Outcomes(msgspec.Struct, frozen=True):
    """What became of the planned requests of a window.

    planned = sent + skipped, and sent = ok + error + timeout, to one. `sent` counts what the agent took on (also those
    that no connection could be made for); `skipped` what it refused because too many were in flight.
    """

    planned: int = 0
    sent: int = 0
    ok: int = 0
    error: int = 0
    timeout: int = 0
    skipped: int = 0
    errors: dict[str, int] = msgspec.field(default_factory=dict)

    def __add__(self, other: Outcomes) -> Outcomes:
        """The sum, class by class."""
        errors = dict(self.errors)
        for name, count in other.errors.items():
            errors[name] = errors.get(name, 0) + count
        return Outcomes(
            self.planned + other.planned,
            self.sent + other.sent,
            self.ok + other.ok,
            self.error + other.error,
            self.timeout + other.timeout,
            self.skipped + other.skipped,
            dict(sorted(errors.items())),
        )

    @property
    def reconciled(self) -> bool:
        """Whether the counts add up."""
        return (
            self.planned == self.sent + self.skipped
            and self.sent == self.ok + self.error + self.timeout
            and self.error == sum(self.errors.values())
        )


def silent_scheduler(name: str) -> str:
    """Who decided, where a pod asked for the scheduler `name` and nobody sent an event of having bound it."""
    return f"schedulerName {name} (no event)"
