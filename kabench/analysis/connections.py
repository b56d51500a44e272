"""The connections that stand out: a slow one among fast ones can be a bad path, a bad backend or a busy thread.

Each agent's log tells the fastest and the slowest of its connections to a target, of those with a fair share of its
requests; here they are held against each other over all agents. Means are compared, of thousands of requests as a rule:
per connection no percentile would stand on enough of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from kabench.analysis.words import milliseconds
from kabench.core.hlog import ConnectionFigure
from kabench.core.result import AgentWindow

MUCH = 2.0
"""Slowest over fastest mean service time from which on they differ much; below, chance and load shift them about."""

ENOUGH = 100
"""Requests that a connection's mean must rest on."""


class Connection(NamedTuple):
    """A connection of an agent in a window."""

    figure: ConnectionFigure
    agent: str


class Apart(NamedTuple):
    """The extremes of one target, where they differ much."""

    target: str
    fastest: Connection
    slowest: Connection

    @property
    def ratio(self) -> float:
        """Slowest over fastest."""
        return self.slowest.figure.mean_service_ns / self.fastest.figure.mean_service_ns

    def __str__(self) -> str:
        """One line."""
        slow, fast = (milliseconds(_mean_ns(one)) for one in (self.slowest, self.fastest))
        return (
            f"{self.target}: its slowest connection ({_who(self.slowest)}) took {slow} ms on average, "
            f"{self.ratio:.1f} times the fastest ({_who(self.fastest)}, {fast} ms)"
        )


def apart(windows: Iterable[AgentWindow]) -> list[Apart]:
    """Targets whose connections differ much, by name."""
    fastest: dict[str, Connection] = {}
    slowest: dict[str, Connection] = {}
    for window in windows:
        for target, extremes in window.connections.items():
            if min(extremes.fastest.requests, extremes.slowest.requests) < ENOUGH:
                continue
            fast, slow = (Connection(one, window.agent) for one in (extremes.fastest, extremes.slowest))
            fastest[target] = min(fastest.get(target, fast), fast, key=_mean_ns)
            slowest[target] = max(slowest.get(target, slow), slow, key=_mean_ns)
    found = [Apart(target, fastest[target], slowest[target]) for target in sorted(fastest)]
    return [one for one in found if _mean_ns(one.fastest) and one.ratio >= MUCH]


def _mean_ns(connection: Connection) -> int:
    return connection.figure.mean_service_ns


def _who(connection: Connection) -> str:
    figure = connection.figure
    name = figure.local or f"number {figure.number}"
    return f"{name} of {connection.agent}, {figure.requests:,} requests"
