"""Until when a run's namespace is missed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from kabench.backends.kubernetes.api import Cluster
from kabench.backends.kubernetes.objects import RunSetup, run_objects
from kabench.clock import Clock

MARGIN = timedelta(minutes=15)
"""A run's namespace expires so long after the run's planned end."""


def expiry(clock: Clock, planned_s: float) -> str:
    """When a run that begins now and takes so long as planned expires; RFC 3339."""
    return _text(_now(clock) + timedelta(seconds=planned_s) + MARGIN)


class Lease:
    """Keeps a run that takes longer than planned from expiring."""

    def __init__(self, cluster: Cluster, setup: RunSetup, clock: Clock) -> None:
        self._cluster, self._setup, self._clock = cluster, setup, clock
        self._expires = datetime.fromisoformat(setup.expires)

    async def renew(self) -> None:
        """Extend it, where half of the margin is used up."""
        instant = _now(self._clock)
        if self._expires - instant > MARGIN / 2:
            return
        self._expires = instant + MARGIN
        namespace = run_objects(replace(self._setup, expires=_text(self._expires)))[0]
        await self._cluster.apply(namespace)


def _now(clock: Clock) -> datetime:
    """The instant, in UTC."""
    return datetime.fromtimestamp(clock.realtime_ns() / 1e9, UTC)


def _text(instant: datetime) -> str:
    return instant.isoformat(timespec="seconds")
